"""What a run says to the person in front of it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from antmmf.contracts import Figure, RunInfo, RunState, StepReport
from antmmf.hookspecs import hookimpl

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress, TaskID


said = logging.getLogger("antmmf.said")
"""What was printed already, for the log in the run's folder."""


class Console:
    """A live bar on a terminal, else a line a report; an evaluation on the way as one line, the last ones as tables.

    ``progress`` None: a bar if the output is a terminal and NO_COLOR is not set.
    """

    def __init__(self, *, progress: bool | None = None) -> None:
        from rich.console import Console as RichConsole

        self.progress = progress
        self._out: RichConsole = RichConsole(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._row: TaskID | None = None
        self._max_steps = 0
        self._last: dict[str, Figure] = {}

    @hookimpl
    def antmmf_run_start(self, info: RunInfo, state: RunState) -> None:
        self._max_steps = info.max_steps
        self._say(f"{info.recipe} on {info.device} -> {info.save_dir}")
        for line in info.notes:
            self._say(f"  {line}")
        wanted = self.progress if self.progress is not None else self._out.is_terminal and "NO_COLOR" not in os.environ
        if wanted and info.max_steps > state.step:
            self._start_bar(state)

    @hookimpl
    def antmmf_step_end(self, state: RunState, report: StepReport) -> None:
        seconds = sum(report.seconds.values())
        rate = report.samples / seconds if seconds > 0 else 0.0
        values = f"loss {report.loss:.4f}  {rate:.1f} samples/s"
        left = _duration(seconds * (self._max_steps - state.step))
        line = f"step {state.step}/{self._max_steps}  epoch {state.epoch}  {values}  lr {report.lr:.3g}  {left} left"
        self._say(line + _data_note(report, seconds), has_bar=True)
        if self._bar is not None and self._row is not None:
            self._bar.update(self._row, completed=state.step, said=values)

    @hookimpl
    def antmmf_eval_end(self, state: RunState, split: str, figures: Mapping[str, Figure]) -> None:
        if split == "val" and state.step < self._max_steps:
            self._say(f"val after step {state.step}: {';  '.join(_heads(figures))}")
            return
        self._table(f"{split} after step {state.step}" if self._max_steps else split, figures)
        for line in _heads(figures):
            said.info(line)
        self._last = dict(figures)

    @hookimpl
    def antmmf_checkpoint_saved(self, path: Path) -> None:
        self._say(f"saved {path}", has_bar=True)

    @hookimpl
    def antmmf_run_end(self, state: RunState, error: str | None) -> None:
        self._stop_bar()
        if error is not None:
            return
        if state.best_value is not None and state.best_step != state.step:
            used = ", which the figures come from" if self._last else ""
            self._say(f"best on val: {state.best_value:.2f} at step {state.best_step}{used}")
        for line in _heads(self._last):
            self._print(line)

    def _say(self, text: str, *, has_bar: bool = False) -> None:
        """Print and log a line; with ``has_bar`` a bar, where there is one, says as much."""
        said.info(text)
        if self._bar is None or not has_bar:
            self._print(text)

    def _print(self, text: str) -> None:
        if self._bar is None:  # rich takes ten times as long for the same line
            print(text, file=self._out.file, flush=True)
            return
        self._out.print(text, markup=False)

    def _table(self, title: str, figures: Mapping[str, Figure]) -> None:
        from rich import box
        from rich.table import Table

        self._stop_bar()
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("metric", "value", "95 % interval", "n"):
            table.add_column(heading, justify="left" if heading == "metric" else "right")
        for name, figure in figures.items():
            number = "" if figure.n is None else f"{figure.n:,}"
            table.add_row(_title(name), f"{figure.value:.2f}", _interval(figure).replace("[", r"\["), number)
        self._out.print(table)

    def _start_bar(self, state: RunState) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._out, refresh_per_second=2)
        self._row = self._bar.add_task("train", total=self._max_steps, completed=state.step, said="")
        self._bar.start()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _title(name: str) -> str:
    """``test/t2v/R1`` -> ``test t2v R@1``."""
    return re.sub(r"\bR(\d+)$", r"R@\1", name).replace("/", " ")


def _interval(figure: Figure) -> str:
    return "" if figure.low is None or figure.high is None else f"[{figure.low:.2f}, {figure.high:.2f}]"


def _heads(figures: Mapping[str, Figure]) -> Iterator[str]:
    """The first figure of each group, ``test t2v R@1 83.17 [80.33, 86.00], n = 600``; parts of a figure are none."""
    groups = {name.rpartition("/")[0]: name for name in reversed(list(figures))}
    for name in (groups[group] for group in reversed(list(groups)) if group not in figures):
        figure = figures[name]
        count = "" if figure.n is None else f", n = {figure.n:,}"
        yield " ".join(filter(None, (_title(name), f"{figure.value:.2f}", _interval(figure)))) + count


def _data_note(report: StepReport, seconds: float) -> str:
    share = report.seconds.get("data", 0.0) / seconds if seconds > 0 else 0.0
    return f"  waiting for data {share:.0%} (more num_workers?)" if share > 0.2 else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
