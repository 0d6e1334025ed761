"""Scalars for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from antmmf.contracts import Figure, RunInfo, RunState, StepReport
from antmmf.errors import PluginError
from antmmf.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes scalars into ``folder`` of the run's folder; raises ``PluginError`` when tensorboard is missing."""

    def __init__(self, *, folder: str = "tensorboard") -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise PluginError(
                'the callback tensorboard needs the package tensorboard: pip install "antmmf-core[tensorboard]"'
            ) from error
        self.folder = folder
        self._writer: SummaryWriter | None = None

    @hookimpl
    def antmmf_run_start(self, info: RunInfo, state: RunState) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # purge_step hides what a continued run is going to write again.
        purge = state.step + 1 if state.step > 0 else None
        self._writer = SummaryWriter(str(info.save_dir / self.folder), purge_step=purge)

    @hookimpl
    def antmmf_step_end(self, state: RunState, report: StepReport) -> None:
        self._add("train/loss", report.loss, state.step)
        for name, value in report.terms.items():
            self._add(f"train/terms/{name}", value, state.step)
        self._add("train/lr", report.lr, state.step)
        if report.grad_norm is not None:
            self._add("train/grad_norm", report.grad_norm, state.step)
        for part, seconds in report.seconds.items():
            self._add(f"seconds/{part}", seconds, state.step)

    @hookimpl
    def antmmf_eval_end(self, state: RunState, figures: Mapping[str, Figure]) -> None:
        for name, figure in figures.items():
            self._add(name, figure.value, state.step)
        if self._writer is not None:
            self._writer.flush()

    @hookimpl
    def antmmf_run_end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add(self, name: str, value: float, step: int) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)
