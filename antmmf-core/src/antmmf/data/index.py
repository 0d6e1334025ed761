"""Annotations -> one Arrow file, memory-mapped: opening it costs the same for ten records as for a hundred million."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]

from antmmf.contracts import Dataset, Json, Record, Segment
from antmmf.data.keyed import hashed, sample_id
from antmmf.data.lock import locked
from antmmf.errors import DataError

_SCHEMA_VERSION = 1
_ROWS_A_CHUNK = 4096
_ROWS_A_BLOCK = 1000
_KEPT_CHUNKS = 256
_SEGMENT = pa.struct([("start", pa.float64()), ("end", pa.float64()), ("text", pa.string())])
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("media", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("texts", pa.list_(pa.string())),
        ("negatives", pa.list_(pa.string())),
        ("transcript", pa.list_(_SEGMENT)),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("options", pa.list_(pa.string())),
        ("language", pa.string()),
        ("extras", pa.string()),
    ]
)


class Index:
    """The records of one data set in random access; pickled by its path.

    ``ids`` (len,) int64 are the sample ids, mapped from disk. ``blocks`` are numbers of consecutive records that lie
    together: those of each shard, else a thousand.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids: npt.NDArray[np.int64] = np.load(path / "ids.npy", mmap_mode="r")
        blocks = path / "blocks.npy"
        self.blocks: npt.NDArray[np.int64] = np.load(blocks) if blocks.exists() else _even_blocks(len(self.ids))
        self._chunks: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}  # used last comes last
        self._file = pa.ipc.open_file(pa.memory_map(str(path / "records.arrow")))

    def __len__(self) -> int:
        return len(self.ids)

    def __reduce__(self) -> tuple[type[Index], tuple[Path]]:
        return Index, (self.path,)

    def record(self, row: int) -> Record:
        """The record at ``row`` (0-based)."""
        chunk, offset = divmod(row, _ROWS_A_CHUNK)
        empty, columns = self._chunk(chunk)
        return _record({**empty, **{name: column[offset].as_py() for name, column in columns.items()}})

    def _chunk(self, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The columns of a chunk: of those where no record has anything, the value, and the others. The last few that
        were asked for are kept."""
        found = self._chunks.pop(number, None)
        if found is None:
            batch = self._file.get_batch(number)
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            empty = {name: column[0].as_py() for name, column in columns.items() if _is_empty(column)}
            found = empty, {name: column for name, column in columns.items() if name not in empty}
            if len(self._chunks) >= _KEPT_CHUNKS:
                del self._chunks[next(iter(self._chunks))]
        self._chunks[number] = found
        return found

    def texts(self) -> Iterator[str]:
        """Every text: captions, lines of transcripts, questions and options, in the order of the records."""
        for row in self.columns("texts", "transcript", "question", "options"):
            yield from row["texts"]
            yield from (line["text"] for line in row["transcript"])
            if row["question"] is not None:
                yield row["question"]
            yield from row["options"]

    def answers(self) -> Iterator[str]:
        """The answer of every record that has one."""
        return (row["answer"] for row in self.columns("answer") if row["answer"] is not None)

    def columns(self, *names: str) -> Iterator[dict[str, Any]]:
        """The named fields of every record, in their order; others are not read."""
        for chunk in range(self._file.num_record_batches):
            yield from self._file.get_batch(chunk).select(list(names)).to_pylist()


def _is_empty(column: Any) -> bool:
    """Whether every value is null, or every list has nothing in it."""
    return column.null_count == len(column) or (pa.types.is_list(column.type) and len(column.flatten()) == 0)


def _even_blocks(num: int) -> npt.NDArray[np.int64]:
    full, rest = divmod(num, _ROWS_A_BLOCK)
    return np.array([_ROWS_A_BLOCK] * full + [rest] * (rest > 0), dtype=np.int64)


def open_index(dataset: Dataset, *, name: str, version: str, parameters: Mapping[str, Json], folder: Path) -> Index:
    """The index of ``dataset``, built under ``folder`` when there is none for these files and parameters.

    ``name`` and ``version`` are the component's; sample ids are hashes of ``name`` and the record's key. Of several
    processes one builds and the others wait. Raises ``DataError`` for a key that occurs twice and for no records.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = json.dumps(parameters, sort_keys=True, default=str)
    with locked(folder / f".{hashed(name, plain):016x}.lock"):
        prepare = getattr(dataset, "prepare", None)
        if prepare is not None:
            prepare()
        key = hashed(_SCHEMA_VERSION, name, version, plain, *_fingerprint(dataset.sources(), name))
        path = folder / f"{name.rpartition(':')[2]}-{key:016x}"
        if not path.is_dir():
            _build(dataset, name=name, path=path)
    return Index(path)


def _fingerprint(sources: Iterable[Path], name: str) -> Iterator[str | int]:
    for source in sources:
        try:
            stat = Path(source).stat()
        except OSError as error:
            raise DataError(f"{name}: cannot read {source}: {error.strerror}; check the data set's paths") from error
        yield from (str(source), stat.st_size, stat.st_mtime_ns)


def _build(dataset: Dataset, *, name: str, path: Path) -> None:
    """Write beside ``path``, then rename: an index is whole or not there."""
    beside = Path(tempfile.mkdtemp(prefix=".building-", dir=path.parent))
    try:
        ids = array("q")  # 8 bytes a record, not a Python list
        with pa.OSFile(str(beside / "records.arrow"), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
            for rows in _chunks(dataset.records()):
                ids.extend(sample_id(name, row["key"]) for row in rows)
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=_SCHEMA))
        if not ids:
            files = ", ".join(str(source) for source in dataset.sources()) or "no files"
            raise DataError(f"{name}: no records in {files}; check the split and the data set's paths")
        np.save(beside / "ids.npy", np.frombuffer(ids, dtype=np.int64))
        blocks = getattr(dataset, "blocks", None)
        if blocks is not None:
            sizes = np.asarray(list(blocks()), dtype=np.int64)
            assert sizes.sum() == len(ids), f"{name}: blocks() has {sizes.sum()} records, records() {len(ids)}"
            np.save(beside / "blocks.npy", sizes[sizes > 0])
        _refuse_duplicates(Index(beside), name=name)
        os.chmod(beside, 0o755)  # mkdtemp makes it private, but an index may be shared
        os.rename(beside, path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _chunks(records: Iterable[Record]) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    for record in records:
        rows.append(_row(record))
        if len(rows) == _ROWS_A_CHUNK:
            yield rows
            rows = []
    if rows:
        yield rows


def _refuse_duplicates(index: Index, *, name: str) -> None:
    order = np.argsort(index.ids, kind="stable")
    same = np.flatnonzero(np.diff(index.ids[order]) == 0)
    if len(same) == 0:
        return
    first, again = sorted(int(row) for row in order[same[0] : same[0] + 2])
    key = index.record(again).key
    raise DataError(
        f"{name}: every key must occur once, but {key!r} is record {first + 1} and record {again + 1} "
        f"({len(same)} such keys); all texts of a video belong into one record"
    )


def _row(record: Record) -> dict[str, Any]:
    values = {field: getattr(record, field) for field in _SCHEMA.names}
    values["transcript"] = [asdict(segment) for segment in record.transcript]
    values["extras"] = json.dumps(dict(record.extras), ensure_ascii=False) if record.extras else None
    return values


def _record(row: dict[str, Any]) -> Record:
    for field in ("texts", "negatives", "options"):
        row[field] = tuple(row[field])
    row["transcript"] = tuple([Segment(**segment) for segment in row["transcript"]])
    row["extras"] = json.loads(row["extras"]) if row["extras"] else {}
    return Record(**row)
