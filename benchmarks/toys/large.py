"""An index of many records in our own format, and what the loader needs for them: ``python -m toys.large PART ...``.

Building 50 M records through ``open_index`` takes long and gigabytes, so the file is written column by column, and
after ``written`` different records they come again; every one has an id of its own. With ``written`` = ``records`` it
is what ``open_index`` would write.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
from antmmf.contracts import Record
from antmmf.data import index as format
from antmmf.data.index import Index
from antmmf.data.loader import Loader

from toys.data import ToyCollator, toy_reader

BATCH, ROUNDS, NUM_BATCHES = 16, 15, 100
PLACES = (0, 200, 200_000)


class LargeIndex(Index):
    """An index whose records come again after the written ones."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.written = json.loads((path / "written.json").read_text())

    def __reduce__(self) -> tuple[type[LargeIndex], tuple[Path]]:
        return LargeIndex, (self.path,)

    def record(self, row: int) -> Record:
        return super().record(row % self.written)


def write(path: Path, num: int, written: int) -> dict[str, float]:
    """Write the index; says what it took."""
    started = time.perf_counter()
    path.mkdir()
    rows = format._ROWS_A_CHUNK
    ids = np.lib.format.open_memmap(path / "ids.npy", mode="w+", dtype=np.int64, shape=(num,))
    for first in range(0, num, 1 << 20):
        last = min(first + (1 << 20), num)
        ids[first:last] = np.arange(first, last, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # odd: one to one
    ids.flush()
    with pa.OSFile(str(path / "records.arrow"), "wb") as sink, pa.ipc.new_file(sink, format._SCHEMA) as writer:
        for first in range(0, written, rows):
            writer.write_batch(_batch(first, min(rows, written - first)))
    (path / "written.json").write_text(json.dumps(written))
    size = sum(file.stat().st_size for file in path.iterdir())
    return {"seconds": time.perf_counter() - started, "mb": size / 1e6}


def _batch(first: int, num: int) -> pa.RecordBatch:
    numbers = pa.array(np.arange(first, first + num)).cast(pa.string())
    names = pc.binary_join_element_wise("clip", numbers, "")
    each, none = pa.array(range(num + 1), pa.int32()), pa.array([0] * (num + 1), pa.int32())
    columns: dict[str, Any] = {field.name: pa.nulls(num, field.type) for field in format._SCHEMA}
    for name in ("negatives", "transcript", "options"):
        kind = format._SCHEMA.field(name).type
        columns[name] = pa.ListArray.from_arrays(none, pa.array([], kind.value_type), type=kind)
    kind = format._SCHEMA.field("texts").type
    columns |= {"key": names, "media": names, "texts": pa.ListArray.from_arrays(each, names, type=kind)}
    columns["language"] = pa.array(["en"] * num)
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=format._SCHEMA)


def memory(path: Path, num: int, _: int) -> dict[str, Any]:
    """Seconds from opening to the first batch, and MB of this process and of a worker after some batches."""
    seconds: dict[str, float] = {}
    for workers in (0, 2):
        started = time.perf_counter()
        loader = _loader(path, workers)
        steps = loader.stream(1)
        next(steps)
        seconds[str(workers)] = time.perf_counter() - started
        for _ in range(NUM_BATCHES):
            next(steps)
    own, mapped = zip(*(_resident(process.pid) for process in loader._loader._iterator._workers), strict=True)
    main_own, main_mapped = _resident("self")
    loader.close()
    return {
        "records": num,
        "first_batch": seconds,
        "worker_own": max(own),
        "worker_mapped": max(mapped),
        "main_own": main_own,
        "main_mapped": main_mapped,
    }


def skip(path: Path, _: int, __: int) -> dict[str, dict[str, list[float]]]:
    """Seconds to the first batch from several places in an epoch, with 0 and with 2 workers that run already, and how
    much longer than from the start in the same round."""
    found: dict[str, dict[str, list[float]]] = {str(place): {"seconds": [], "beyond": []} for place in PLACES}
    for workers in (0, 2):
        loader = _loader(path, workers)
        rounds: list[dict[int, float]] = []
        for number in range(ROUNDS + 1):
            seconds: dict[int, float] = {}
            for place in PLACES[number % 3 :] + PLACES[: number % 3]:
                started = time.perf_counter()
                next(loader.stream(number + 1, start=place * BATCH))
                seconds[place] = time.perf_counter() - started
            rounds.append(seconds)
        loader.close()
        for place in PLACES:
            found[str(place)]["seconds"].append(median(seconds[place] for seconds in rounds[1:]))
            found[str(place)]["beyond"].append(median(seconds[place] - seconds[0] for seconds in rounds[1:]))
    return found


def _loader(path: Path, workers: int) -> Loader:
    reader = toy_reader(LargeIndex(path))
    return Loader(reader, ToyCollator(), batch_size=BATCH, train=True, seed=7, num_workers=workers)


def _resident(process: int | str) -> tuple[float, float]:
    """MB of a process that are its own, and MB of mapped files, which the system may take back."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    own, mapped = (int(status[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile"))
    return own, mapped


PARTS: dict[str, Callable[[Path, int, int], Any]] = {"write": write, "memory": memory, "skip": skip}

if __name__ == "__main__":
    _, part, folder, records, different = sys.argv
    import toys.large  # the same module under its own name, so that workers can import what they are sent

    print(json.dumps(getattr(toys.large, part)(Path(folder), int(records), int(different))))
