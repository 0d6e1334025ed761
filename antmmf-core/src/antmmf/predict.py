"""What a task predicts for every sample of a split, as JSON lines and as Parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from torch import Tensor

from antmmf.contracts import Json, Record
from antmmf.data.index import Index
from antmmf.task import Task


def write_predictions(task: Task, rows: Mapping[str, Tensor], index: Index, path: Path) -> None:
    """Write ``task.predictions`` of a split's rows to ``path``, and beside it as Parquet."""
    numbers = {int(id): number for number, id in enumerate(index.ids)}

    def record(id: int) -> Record:
        return index.record(numbers[id])

    write_lines(task.predictions(rows, record), path)


def write_lines(lines: Iterable[Mapping[str, Json]], path: Path) -> None:
    """Write ``path`` (``.jsonl``) and the same as ``.parquet``, whole or not at all; what a line lacks is null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = list(lines)
    beside = path.with_name(f".tmp-{path.name}")
    with beside.open("w", encoding="utf-8") as file:
        for line in found:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    names = dict.fromkeys(name for line in found for name in line)
    table = pa.table({name: pa.array([line.get(name) for line in found]) for name in names})
    pq.write_table(table, beside.with_suffix(".parquet"))
    os.replace(beside, path)
    os.replace(beside.with_suffix(".parquet"), path.with_suffix(".parquet"))
