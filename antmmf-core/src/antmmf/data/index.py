"""Annotations -> one Arrow file, memory-mapped: opening it costs the same for ten records as for a hundred million."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import platform
import shutil
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, asdict, fields
from functools import cached_property
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]

from antmmf.contracts import Dataset, Json, Record, Segment
from antmmf.data.keyed import hashed, sample_ids
from antmmf.data.lock import locked
from antmmf.errors import DataError

_SCHEMA_VERSION = 1  # a column may be added without a new one: where an index lacks it, nobody has anything in it
_ROWS_A_CHUNK = 1 << 16
_ROWS_A_BLOCK = 1000
_KEPT_CHUNKS = 256
_REPORTS = 5.0  # seconds from one to the next
_LOG = logging.getLogger("antmmf")
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

_NOTHING = {field.name: {} if field.default is MISSING else field.default for field in fields(Record)}
_MADE: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("texts", "negatives", "options"), lambda texts: tuple(texts or ())),
    "transcript": lambda segments: tuple([Segment(**segment) for segment in segments or ()]),
    "extras": lambda text: json.loads(text) if text else {},
}


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
        self._chunks: dict[int, tuple[list[Any], list[Any]]] = {}  # used last comes last
        self._file = pa.ipc.open_file(pa.memory_map(str(path / "records.arrow")))

    def __len__(self) -> int:
        return len(self.ids)

    def __reduce__(self) -> tuple[type[Index], tuple[Path]]:
        return Index, (self.path,)

    def record(self, row: int) -> Record:
        """The record at ``row`` (0-based)."""
        chunk, offset = divmod(row, _ROWS_A_CHUNK)
        columns, made = self._chunk(chunk)
        values = {name: column[offset].as_py() for name, column in columns}
        for name, make in made:
            values[name] = make(values[name])
        return Record(**values)

    def _chunk(self, number: int) -> tuple[list[tuple[str, Any]], list[tuple[str, Callable[[Any], Any]]]]:
        """The columns of a chunk in which any record has something, and what makes a record's value of theirs where it
        is another. The last few chunks that were asked for are kept."""
        found = self._chunks.pop(number, None)
        if found is None:
            batch = self._file.get_batch(number)
            named = zip(batch.schema.names, batch.columns, strict=True)
            columns = [(name, column) for name, column in named if name in _NOTHING and not _is_empty(column)]
            found = columns, [(name, _MADE[name]) for name, _ in columns if name in _MADE]
            if len(self._chunks) >= _KEPT_CHUNKS:
                del self._chunks[next(iter(self._chunks))]
        self._chunks[number] = found
        return found

    @cached_property
    def first_texts(self) -> npt.NDArray[np.int64]:
        """The number of each record's first text among all texts, and last the number of them (len + 1,); a record
        without texts counts as one."""
        columns = (self._file.get_batch(chunk).column("texts") for chunk in range(self._file.num_record_batches))
        counts = [column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False) for column in columns]
        return np.concatenate([[0], np.cumsum(np.maximum(np.concatenate(counts), 1), dtype=np.int64)])

    @cached_property
    def num_texts(self) -> int:
        """The number of all texts of records: captions, without transcripts, questions and options."""
        columns = (self._file.get_batch(chunk).column("texts") for chunk in range(self._file.num_record_batches))
        return sum(len(column.flatten()) for column in columns)

    def texts(self) -> Iterator[str]:
        """Every text: captions, lines of transcripts, questions and options, in the order of the records."""
        for row in self.columns("texts", "transcript", "question", "options"):
            yield from row["texts"] or ()
            yield from (line["text"] for line in row["transcript"] or ())
            if row["question"] is not None:
                yield row["question"]
            yield from row["options"] or ()

    def answers(self) -> Iterator[str]:
        """The answer of every record that has one."""
        return (row["answer"] for row in self.columns("answer") if row["answer"] is not None)

    def columns(self, *names: str) -> Iterator[dict[str, Any]]:
        """The named fields of every record, in their order; others are not read."""
        there = [name for name in names if name in self._file.schema.names]
        absent = dict.fromkeys(set(names).difference(there))
        for chunk in range(self._file.num_record_batches):
            for row in self._file.get_batch(chunk).select(there).to_pylist():
                yield {**absent, **row}


def _is_empty(column: Any) -> bool:
    """Whether every value is null, or every list has nothing in it."""
    return column.null_count == len(column) or (pa.types.is_list(column.type) and len(column.flatten()) == 0)


def _even_blocks(num: int) -> npt.NDArray[np.int64]:
    full, rest = divmod(num, _ROWS_A_BLOCK)
    return np.array([_ROWS_A_BLOCK] * full + [rest] * (rest > 0), dtype=np.int64)


def open_index(dataset: Dataset, *, name: str, version: str, parameters: Mapping[str, Json], folder: Path) -> Index:
    """The index of ``dataset``, built under ``folder`` when there is none for these contents and parameters.

    ``name`` and ``version`` are the component's; sample ids are hashes of ``name`` and the record's key. Of several
    processes one builds and the others wait. Raises ``DataError`` for a key that occurs twice and for no records.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = json.dumps(parameters, sort_keys=True, default=str)
    known = folder / f".{hashed(name, plain):016x}"
    with locked(known.with_suffix(".lock")):
        prepare = getattr(dataset, "prepare", None)
        if prepare is not None:
            prepare()
        key = hashed(
            _SCHEMA_VERSION, name, version, plain, *_contents(dataset.sources(), name, known.with_suffix(".json"))
        )
        path = folder / f"{name.rpartition(':')[2]}-{key:016x}"
        if not path.is_dir():
            _build(dataset, name=name, path=path, beside=folder / f".building-{platform.node()}{known.name}")
    try:
        return Index(path)
    except Exception as error:
        raise DataError(f"{path}: is no whole index ({error}); remove it, and it is built again") from error


def _contents(sources: Iterable[Path], name: str, table: Path) -> list[str]:
    """Path and hash of each source; ``table`` remembers them, so that a file is read again only when its size or time
    has changed. Of a folder the names in it count."""
    known: dict[str, Json] = {}
    with suppress(OSError, ValueError):
        known.update(json.loads(table.read_text(encoding="utf-8")))
    now: dict[str, list[Json]] = {}
    for source in map(Path, sources):
        try:
            status = source.stat()
            state = [status.st_size, status.st_mtime_ns]
            before = known.get(str(source), [])
            now[str(source)] = before if before[:2] == state else [*state, _hash(source)]
        except OSError as error:
            raise DataError(f"{name}: cannot read {source}: {error.strerror}; check the data set's paths") from error
    if now != known:
        beside = table.with_suffix(".new")
        beside.write_text(json.dumps(now), encoding="utf-8")
        os.replace(beside, table)
    return [text for source, (*_, digest) in now.items() for text in (source, digest)]


def _hash(source: Path) -> str:
    if source.is_dir():
        return f"{hashed(*sorted(entry.name for entry in os.scandir(source))):016x}"
    digest = hashlib.sha256()  # CPUs have instructions for it
    with source.open("rb") as file:
        while part := file.read(1 << 22):
            digest.update(part)
    return digest.hexdigest()


def _build(dataset: Dataset, *, name: str, path: Path, beside: Path) -> None:
    """Write ``beside``, which nobody else of this machine does, then rename: an index is whole or not there."""
    shutil.rmtree(beside, ignore_errors=True)  # of one who was killed
    beside.mkdir()
    try:
        ids = array("q")  # 8 bytes a record, not a Python list
        file = str(beside / "records.arrow")
        with _rare_collections(), pa.OSFile(file, "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
            said = time.monotonic()
            for records in _chunks(dataset.records()):
                if time.monotonic() - said > _REPORTS:
                    said = time.monotonic()
                    _LOG.info("indexing %s: %s records", name, f"{len(ids):,}")
                numbers, batch = _batch(name, records)
                ids.frombytes(numbers.tobytes())
                _LOG.debug("indexed %d", len(ids), extra={"indexed": len(ids)})  # for a progress bar
                writer.write_batch(batch)
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
        try:
            os.rename(beside, path)
        except OSError:
            if not path.is_dir():  # another machine, which does not see our lock, was faster
                raise
            shutil.rmtree(beside)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Have Python look for cyclic garbage less often: records are millions of objects and no cycles."""
    before = gc.get_threshold()
    gc.set_threshold(1_000_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    records = iter(records)
    while chunk := list(islice(records, _ROWS_A_CHUNK)):
        yield chunk


def _refuse_duplicates(index: Index, *, name: str) -> None:
    ordered = np.sort(index.ids)
    if not (ordered[1:] == ordered[:-1]).any():  # as nearly always; the order that sorts them takes three times as long
        return
    order = np.argsort(index.ids, kind="stable")
    same = np.flatnonzero(np.diff(index.ids[order]) == 0)
    first, again = sorted(int(row) for row in order[same[0] : same[0] + 2])
    raise DataError(
        f"{name}: every key must occur once, but {index.record(again).key!r} is record {first + 1} and record "
        f"{again + 1} ({len(same)} such keys); all texts of a video belong into one record"
    )


def _batch(name: str, records: list[Record]) -> tuple[npt.NDArray[np.int64], Any]:
    """Ids and columns of ``records``. Raises ``DataError`` for one with a value that has no place in them."""
    try:
        ids = sample_ids(name, [record.key for record in records])
        return ids, pa.record_batch([_column(field, records) for field in _SCHEMA], schema=_SCHEMA)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        for record in records if len(records) > 1 else ():
            _batch(name, [record])
        raise DataError(f"{name}: record {records[0].key!r} of {records[0].media!r} cannot be kept: {error}") from error


def _column(field: Any, records: list[Record]) -> Any:
    values = list(map(attrgetter(field.name), records))
    nothing = _NOTHING[field.name]
    if values[0] == nothing and values.count(nothing) == len(values):
        values = [None] * len(values)
    elif field.name == "transcript":
        values = [[asdict(segment) for segment in transcript] for transcript in values]
    elif field.name == "extras":
        values = [json.dumps(dict(extras), ensure_ascii=False) if extras else None for extras in values]
    return pa.array(values, field.type)
