"""What a task predicts for every sample of a split, as JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from antmmf.contracts import Record
from antmmf.data.index import Index
from antmmf.task import Task


def write_predictions(task: Task, rows: Mapping[str, Tensor], index: Index, path: Path) -> None:
    """Write ``task.predictions`` of a split's rows to ``path``, whole or not at all."""
    numbers = {int(id): number for number, id in enumerate(index.ids)}

    def record(id: int) -> Record:
        return index.record(numbers[id])

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".tmp-{path.name}")
    with beside.open("w", encoding="utf-8") as file:
        for line in task.predictions(rows, record):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    os.replace(beside, path)
