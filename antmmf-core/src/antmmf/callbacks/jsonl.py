"""Every report and every evaluation of a run as one JSON line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from antmmf.contracts import Figure, RunInfo, RunState, StepReport
from antmmf.hookspecs import hookimpl


class JsonLines:
    """Appends to ``file_name`` in the run's folder; every line is on disk when the next step begins.

    A continued run first drops the lines of steps that its checkpoint does not know: they are going to come again.
    """

    def __init__(self, *, file_name: str = "metrics.jsonl") -> None:
        self.file_name = file_name
        self._file: TextIO | None = None

    @hookimpl
    def antmmf_run_start(self, info: RunInfo, state: RunState) -> None:
        path = info.save_dir / self.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_after(path, state.step)
        self._file = path.open("a", encoding="utf-8")

    @hookimpl
    def antmmf_step_end(self, state: RunState, report: StepReport) -> None:
        self._write({"kind": "step", "step": state.step, "epoch": state.epoch, **asdict(report)})

    @hookimpl
    def antmmf_eval_end(self, state: RunState, split: str, figures: Mapping[str, Figure]) -> None:
        plain = {name: asdict(figure) for name, figure in figures.items()}
        self._write({"kind": "evaluation", "step": state.step, "split": split, "figures": plain})

    @hookimpl
    def antmmf_run_end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(_finite(line), ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if len(kept) == len(lines):
        return
    beside = path.with_name(f".tmp-{path.name}")
    beside.write_text("".join(kept), encoding="utf-8")
    beside.replace(path)
