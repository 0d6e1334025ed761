"""Read encoded videos and pictures out of an LMDB: one file instead of millions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from antmmf.contracts import Clip, FrameReader, Json, Pick, Source
from antmmf.errors import DataError, PluginError

from antmmf_vision.readers.auto import AutoReader


class LmdbReader:
    """``folder/clips.lmdb/KEY`` is the value of KEY in the database ``folder/clips.lmdb``, the bytes of a whole file.

    Keys are UTF-8 and may hold slashes; the database is a folder or a single file. ``reader`` decodes the bytes.
    Raises ``PluginError`` at construction where lmdb is not installed.
    """

    def __init__(self, *, reader: FrameReader | None = None) -> None:
        self.probe()
        self._reader = reader or AutoReader()
        self._open: dict[Path, Any] = {}

    @classmethod
    def probe(cls) -> str:
        """lmdb's version; raise ``PluginError`` where it is not installed."""
        if find_spec("lmdb") is None:
            raise PluginError("lmdb is not installed: pip install 'antmmf-vision[lmdb]'")
        return version("lmdb")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def read(self, source: Source, pick: Pick) -> Clip:
        """Raise ``DataError`` when there is no such database or key, or its value does not decode."""
        return self._reader.read(self._value(source), pick)

    def facts(self, source: Source) -> Mapping[str, Json]:
        """What the inner reader says of the value."""
        facts: Callable[[Source], Mapping[str, Json]] | None = getattr(self._reader, "facts", None)
        return facts(self._value(source)) if facts is not None else {}

    def _value(self, source: Source) -> Source:
        import lmdb  # type: ignore[import-untyped, import-not-found, unused-ignore]

        database = next((path for path in source.path.parents if path.suffix == ".lmdb" and path.exists()), None)
        if database is None:
            raise DataError(f"{source}: no database *.lmdb on the way to it (reader lmdb)", reason="missing")
        key = source.path.relative_to(database).as_posix()
        try:
            if database not in self._open:
                folder = database.is_dir()
                self._open[database] = lmdb.open(
                    str(database), subdir=folder, readonly=True, lock=False, readahead=False
                )
            with self._open[database].begin(buffers=False) as transaction:
                value = transaction.get(key.encode())
        except lmdb.Error as error:
            raise DataError(f"{database}: {error} (reader lmdb)") from error
        if value is None:
            raise DataError(f"{source}: {database.name} has no key {key!r} (reader lmdb)", reason="missing")
        return Source(source.path, name=str(source), content=value)
