"""A callback that shows a run in Weights & Biases: through hooks alone, as any other tracker can."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from antmmf import Figure, PluginError, RunInfo, hookimpl
from antmmf.contracts import RunState, StepReport

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

ID_FILE = "wandb_id.txt"


class Wandb:
    """Sends reports, figures and the places of checkpoints to Weights & Biases: to one W&B run, however often a run is
    stopped and goes on, because its id stands in every checkpoint and in the run's folder.

    What is None is left to wandb's own settings, such as ``WANDB_PROJECT`` and ``WANDB_MODE``. Raises ``PluginError``
    when wandb cannot be imported.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        entity: str | None = None,
        name: str | None = None,
        tags: tuple[str, ...] = (),
        mode: Literal["online", "offline", "disabled"] | None = None,
    ) -> None:
        try:
            from wandb import init
        except Exception as error:  # a broken installation may raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise PluginError(f'the callback cannot import wandb: {reason}; pip install "wandb>=0.18"') from error
        self._start = partial(init, project=project, entity=entity, name=name, tags=tags, mode=mode, resume="allow")
        self._id: str | None = None
        self._run: Run | None = None
        self._next_step = 0

    def state_dict(self) -> dict[str, str | None]:
        """The id of the W&B run, for checkpoints."""
        return {"id": self._id}

    def load_state_dict(self, state: Mapping[str, str | None]) -> None:
        """Go on with the W&B run that ``state`` names."""
        self._id = state["id"]

    @hookimpl
    def antmmf_run_start(self, info: RunInfo) -> None:
        kept = info.save_dir / ID_FILE
        if self._id is None and kept.is_file():  # the run was stopped before its first checkpoint
            self._id = kept.read_text(encoding="utf-8")
        about = {"recipe": info.recipe, "save_dir": str(info.save_dir), "device": info.device}
        config = {**info.config, "run": about}
        # allow_val_change: a run that goes on may be told something else
        self._run = self._start(id=self._id, dir=str(info.save_dir), config=config, allow_val_change=True)
        # wandb sync may number the rows of an offline run's second part anew, so the steps also stand in the rows
        self._run.define_metric("*", step_metric="step")
        self._next_step = self._run.step
        if not self._run.disabled:
            self._id = self._run.id
            kept.write_text(self._id, encoding="utf-8")

    @hookimpl
    def antmmf_step_end(self, state: RunState, report: StepReport) -> None:
        values = {"train/loss": report.loss, "train/lr": report.lr}
        if report.grad_norm is not None:
            values["train/grad_norm"] = report.grad_norm
        values |= {f"train/terms/{name}": value for name, value in report.terms.items()}
        values |= {f"seconds/{part}": value for part, value in report.seconds.items()}
        values["seconds/decode"] = report.decode
        self._log(state, values)

    @hookimpl
    def antmmf_eval_end(self, state: RunState, figures: Mapping[str, Figure]) -> None:
        values = {name: figure.value for name, figure in figures.items()}
        self._log(state, values)
        self._summarize(**values, best_value=state.best_value, best_step=state.best_step)

    @hookimpl
    def antmmf_checkpoint_saved(self, state: RunState, path: Path) -> None:
        self._summarize(checkpoint=str(path), checkpoint_step=state.step)

    @hookimpl
    def antmmf_run_end(self, error: str | None) -> None:
        self._summarize(error=error)
        if self._run is not None:
            self._run.finish(exit_code=0 if error is None else 1)
            self._run = None

    def _log(self, state: RunState, values: Mapping[str, float]) -> None:
        """Add a row, unless W&B has that step: a run that goes on repeats, bit for bit, what no checkpoint knew."""
        if self._run is not None and state.step >= self._next_step:
            self._run.log({"step": state.step, "epoch": state.epoch, **values}, step=state.step)

    def _summarize(self, **values: Any) -> None:
        if self._run is not None:
            self._run.summary.update(values)
