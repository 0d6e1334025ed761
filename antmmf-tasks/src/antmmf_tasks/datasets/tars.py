"""Tars in webdataset's layout that were not made by us: their members are listed once, and then read in place."""

from __future__ import annotations

import json
import logging
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from antmmf.cache import cache_folder
from antmmf.contracts import Json, Record
from antmmf.data.keyed import hashed
from antmmf.data.sources import is_remote, member
from antmmf.errors import DataError

from antmmf_tasks.datasets.media import SUFFIXES
from antmmf_tasks.datasets.release import fault_of

_LOG = logging.getLogger("antmmf")


class Tars:
    """The samples of all tars below ``root`` whose paths fit ``pattern``; ``counts`` are those of each, once read."""

    def __init__(self, root: Path, pattern: str, text_field: str, language: str) -> None:
        self.root, self.pattern = root, pattern
        self.text_field, self.language = text_field, language
        self.counts: list[int] = []

    def paths(self) -> list[Path]:
        """The tars, sorted. Raises ``DataError`` where there are none."""
        if is_remote(str(self.root)):
            raise DataError(f"{self.root}: tars behind a URL cannot be listed; files is for a folder")
        if ".." in Path(self.pattern).parts or Path(self.pattern).is_absolute():
            raise DataError(f"files {self.pattern!r} must be a pattern for tars below {self.root}")
        try:
            found = sorted(path for path in self.root.glob(self.pattern) if path.suffix == ".tar")
        except ValueError as error:
            raise DataError(f"files {self.pattern!r} is no pattern: {error}") from error
        if not found:
            raise DataError(f"{self.root}: no *.tar fits files {self.pattern!r}", reason="missing")
        return found

    def listing(self) -> Path:
        """A small file that changes when a tar does: hashing all their bytes would take hours."""
        states = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in self.paths()]
        return kept_list(self.root / self.pattern, json.dumps(states))

    def records(self) -> Iterator[Record]:
        """A record for each sample that has one file of media. Raises ``DataError`` for what is no tar."""
        self.counts, dropped = [], Counter[str]()
        for path in self.paths():
            count = 0
            try:
                with tarfile.open(path, "r:") as archive:  # parts of a compressed one could not be read in place
                    files = (info for info in archive if info.isreg())
                    for name, members in groupby(files, key=lambda info: _stem(info.name)):
                        record = self._record(path, name, list(members), archive, dropped)
                        if record is not None:
                            yield record
                            count += 1
            except (tarfile.TarError, OSError) as error:
                raise DataError(f"{path}: cannot be read as a tar ({error})", reason="damaged") from error
            self.counts.append(count)
        for what, number in dropped.items():
            _LOG.warning("%s: left out %d %s", self.root / self.pattern, number, what)
        if not any(self.counts):
            raise DataError(f"{self.root / self.pattern}: no sample has one video or picture, and a text")

    def _record(
        self, path: Path, name: str, members: list[tarfile.TarInfo], archive: tarfile.TarFile, dropped: Counter[str]
    ) -> Record | None:
        media = [info for info in members if info.name.lower().endswith(SUFFIXES)]
        if len(media) != 1:
            dropped["samples without a video or picture" if not media else "samples with several"] += 1
            return None
        texts = []
        for text in self._texts(path, members, archive):
            line = " ".join(text.split())
            if fault := fault_of(line):
                dropped[fault] += 1
            else:
                texts.append(line)
        if not texts:
            dropped["samples without a text"] += 1
            return None
        place = member(str(path), name=media[0].name, offset=media[0].offset_data, size=media[0].size)
        key = f"{path.relative_to(self.root).with_suffix('').as_posix()}/{name}"
        return Record(key=key, media=place, texts=tuple(texts), language=self.language)

    def _texts(self, path: Path, members: list[tarfile.TarInfo], archive: tarfile.TarFile) -> Iterator[str]:
        """Of a member ``.txt``, else of a ``.json``, which with img2dataset says the same again."""
        by_ending = {info.name.rpartition(".")[2].lower(): info for info in members}
        info = by_ending.get("txt") or by_ending.get("json")
        file = archive.extractfile(info) if info is not None else None
        if info is None or file is None:
            return
        try:
            content = file.read().decode("utf-8-sig")
            values: Json = {self.text_field: content} if "txt" in by_ending else json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{info.name}: {error}") from error
        text = values.get(self.text_field) if isinstance(values, dict) else None
        yield from (each for each in (text if isinstance(text, list) else [text]) if isinstance(each, str))


def kept_list(of: Path, content: str) -> Path:
    """A file in the cache with ``content``, which stands for what it is a list ``of``."""
    path = cache_folder() / "lists" / f"{hashed(str(of.absolute())):016x}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(content, encoding="utf-8")
    os.replace(beside, path)
    return path


def _stem(name: str) -> str:
    """The name of the sample that a member belongs to: its path up to the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]
