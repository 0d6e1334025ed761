"""Shards: those that ``antmmf data pack`` wrote, on a disk or behind a URL, and any tars in webdataset's layout."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from antmmf.cache import cache_folder
from antmmf.contracts import Record, Segment
from antmmf.data.sources import Sources, is_remote, member, patiently
from antmmf.errors import DataError

from antmmf_tasks.datasets.files import rows
from antmmf_tasks.datasets.tars import Tars


class Shards:
    """The split ``split`` of the shards in ``data_root_dir``, a folder or a URL that fsspec knows.

    Expects ``<split>.json`` and, for each shard that it names, ``<split>-000000.tar`` with the media and
    ``<split>-000000.jsonl`` with the records. Other members of the tars are for other readers of webdataset's layout.
    With ``files``, a pattern such as ``{split}/*.tar`` below a folder, it reads tars that others wrote (webdataset,
    img2dataset, video2dataset): members that follow one another under one name are a sample, its text is the member
    ``.txt`` or the field ``text_field`` of the member ``.json``.
    """

    def __init__(
        self,
        *,
        data_root_dir: str,
        split: str = "train",
        files: str | None = None,
        text_field: str = "caption",
        language: str = "en",
    ) -> None:
        self._root, self._split = data_root_dir.rstrip("/"), split
        self._fetch = Sources(cache_folder() / "remote", max_gb=math.inf)  # a run keeps the cache to its size
        self._tars = Tars(Path(self._root), files.replace("{split}", split), text_field, language) if files else None

    def sources(self) -> Sequence[Path]:
        """The split's table, and the records of each shard; remote ones are copied first. Of other tars a list."""
        if self._tars is not None:
            return [self._tars.listing()]
        return [self._local(f"{self._split}.json"), *(self._local(_records_of(shard)) for shard in self._shards)]

    def blocks(self) -> Iterable[int]:
        """The number of records in each shard."""
        if self._tars is not None:
            return self._tars.counts
        return [int(shard["records"]) for shard in self._shards]

    def records(self) -> Iterator[Record]:
        """Raise ``DataError`` with file:line for a line that is no record."""
        if self._tars is not None:
            yield from self._tars.records()
            return
        for shard in self._shards:
            path, count = self._local(_records_of(shard)), 0
            for place, values in rows(path):
                count += 1
                try:
                    yield self._record(values, shard["file"])
                except (ValueError, TypeError, KeyError) as error:
                    raise DataError(f"{place}: is no record of a shard: {error!r}") from error
            if count != int(shard["records"]):
                raise DataError(
                    f"{path}: has {count} records, {self._split}.json says {shard['records']}; pack it again"
                )

    def _record(self, values: dict[str, Any], file: str) -> Record:
        name, offset, size = values.pop("member")
        values["media"] = member(f"{self._root}/{file}", name=name, offset=offset, size=size)
        for field in ("texts", "negatives", "options"):
            values[field] = tuple(values[field])
        values["transcript"] = tuple(Segment(**segment) for segment in values["transcript"])
        return Record(**values)

    @cached_property
    def _shards(self) -> list[dict[str, Any]]:
        path = self._local(f"{self._split}.json")
        try:
            found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["shards"]
            names = [str(shard["file"]) for shard in found if int(shard["records"]) >= 0]
        except FileNotFoundError as error:
            there = sorted(other.stem for other in path.parent.glob("*.json"))
            has = f"the splits there are {', '.join(there)}" if there else "antmmf data pack writes it"
            raise DataError(f"{self._root}: there is no {self._split}.json; {has}", reason="missing") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path}: is no table of shards: {error!r}") from error
        for name in names:
            if Path(name).name != name:
                raise DataError(f"{path}: shards must lie beside it, {name!r} does not")
        return found

    def _local(self, name: str) -> Path:
        place = f"{self._root}/{name}"
        return patiently(lambda: self._fetch.local(place), of=lambda: place) if is_remote(place) else Path(place)


def _records_of(shard: dict[str, Any]) -> str:
    return str(Path(shard["file"]).with_suffix(".jsonl"))
