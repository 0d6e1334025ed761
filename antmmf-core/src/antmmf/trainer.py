"""The training loop. One step: load, forward, backward, optimizer; between steps: report, evaluate, save, stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce

import torch
from pluggy import HookRelay
from torch import Tensor, nn

from antmmf.batch import Batch
from antmmf.checkpoint import Checkpoint, Checkpoints
from antmmf.contracts import Figure, Json, RunState, Schedule, Term
from antmmf.data.keyed import hashed
from antmmf.data.loader import LoadedStep, Loader
from antmmf.errors import CheckpointError, ConfigError, DataError, did_you_mean
from antmmf.evaluate import autocast
from antmmf.meter import Meter
from antmmf.stopping import StopSignals
from antmmf.task import Task

_TINY = 1e-12


@dataclass(frozen=True)
class TrainSettings:
    """Numbers of a training run. Intervals and ``patience`` are in optimizer steps; None or 0: only at the end.

    ``amp`` is the type to autocast to; only bfloat16, which needs no loss scaling. ``monitored_metric`` is a figure of
    the validation split, with or without ``val/``.
    """

    max_steps: int
    seed: int = 0
    device: torch.device | str = "cpu"
    amp: torch.dtype | None = None
    max_grad_l2_norm: float | None = None
    log_interval: int = 100
    evaluation_interval: int | None = None
    snapshot_interval: int | None = None
    monitored_metric: str | None = None
    metric_minimize: bool = False
    patience: int | None = None


class Trainer:
    """Trains ``task``, which is on its device already. ``evaluate_val`` returns unprefixed figures.

    ``assets``, asked for at each save, and ``files`` (texts by name) go into every checkpoint, and so does the state
    of those ``callbacks`` that have a ``state_dict``.
    """

    def __init__(
        self,
        task: Task,
        *,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        loader: Loader,
        settings: TrainSettings,
        hook: HookRelay,
        evaluate_val: Callable[[], Mapping[str, Figure]] | None = None,
        checkpoints: Checkpoints | None = None,
        assets: Callable[[], Mapping[str, Json]] = dict,
        files: Mapping[str, str] | None = None,
        callbacks: Mapping[str, object] | None = None,
    ) -> None:
        assert settings.amp in (None, torch.bfloat16), "float16 needs loss scaling, which is not offered"
        self.task = task
        self.optimizer = optimizer
        self.schedule = schedule
        self.loader = loader
        self.settings = settings
        self.hook = hook
        self.evaluate_val = evaluate_val
        self.checkpoints = checkpoints
        self.assets = assets
        self.files = dict(files or {})
        self.callbacks = dict(callbacks or {})
        self.meter = Meter(loader.keys)
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._generators = _default_generators(torch.device(settings.device))
        self._evaluated_at: int | None = None
        self._saved_at: int | None = None
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def fit(self, state: RunState) -> None:
        """Train from ``state`` to the last step; ``state`` moves along.

        SIGINT and SIGTERM finish the step, save, and then raise ``KeyboardInterrupt`` or ``SystemExit``.
        """
        self.task.train()
        stream = self._stream(state)
        stopped = False
        with StopSignals() as signals:
            while state.step < self.settings.max_steps and not stopped:
                self.meter.start()
                loaded = next(stream)
                self.meter.lap("data")
                state.position += loaded.samples
                state.bad_samples = self.loader.quarantine.count
                if loaded.batches:  # else every sample was bad and left out: the position moves, the step does not
                    self._step(loaded.batches, state)
                    stopped = self._between_steps(state)
                if signals.caught:
                    self._save(state, best=False)
                    signals.end()
            self._finish(state)
            if signals.caught:
                signals.end()

    def restore(self, checkpoint: Checkpoint) -> RunState:
        """Take everything that ``checkpoint`` holds, so that ``fit`` goes on as if it had never stopped."""
        if checkpoint.optimizer is None:
            raise CheckpointError(f"{checkpoint.path} has no optimizer state; take its weights with restart: true")
        try:
            self.task.load_state_dict(dict(checkpoint.model))
            self.optimizer.load_state_dict(checkpoint.optimizer)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{checkpoint.path} does not fit this run: {reason}") from error
        for name, callback in self.callbacks.items():
            if name in checkpoint.callbacks and hasattr(callback, "load_state_dict"):
                callback.load_state_dict(checkpoint.callbacks[name])
        return checkpoint.state

    # --- one step -----------------------------------------------------------------------------------------------------

    def _stream(self, state: RunState) -> Iterator[LoadedStep]:
        while True:
            start, num_batches = state.position, 0
            for loaded in self.loader.epoch(state.epoch, start=start):
                num_batches += len(loaded.batches)
                yield loaded
            if not num_batches and start == 0:
                raise DataError(f"an epoch gave not one good sample: {self.loader.quarantine.summary()}")
            state.epoch += 1
            state.position = 0

    def _step(self, batches: tuple[Batch, ...], state: RunState) -> None:
        """One optimizer step over all micro-batches, with the loss that one large batch would have."""
        self._set_rate(state.step)
        moved = [self._move(batch) for batch in batches]
        counts = self._counts(moved, state.step) if len(moved) > 1 else None
        values: dict[str, Tensor] = {}
        for micro, batch in enumerate(moved):
            parts = self._forward(batch, state.step, micro, counts)
            loss = reduce(torch.add, parts.values())
            self.meter.lap("forward")
            loss.backward()  # type: ignore[no-untyped-call]
            self.meter.lap("backward")
            for name, part in parts.items():
                values[name] = values[name] + part.detach() if name in values else part.detach()
        norm = None
        if self.settings.max_grad_l2_norm is not None:
            norm = nn.utils.clip_grad_norm_(self._parameters, self.settings.max_grad_l2_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.meter.lap("optimizer")
        state.step += 1
        self.meter.add_step(state.step, terms=values, norm=norm, ids=[batch.ids.clone() for batch in batches])

    def _move(self, batch: Batch) -> Batch:
        device = torch.device(self.settings.device)
        return batch if device.type == "cpu" else batch.to(device, non_blocking=True)

    def _forward(
        self, batch: Batch, step: int, micro: int, counts: Mapping[str, Tensor | float] | None
    ) -> dict[str, Tensor]:
        """The weighted parts of the loss; ``counts`` are those of the whole step, None where this is all of it."""
        terms = self._terms(batch, step, micro)
        if counts is None:
            return {name: _part(term, term.count) for name, term in terms.items()}
        return {name: _part(term, counts[name]) for name, term in terms.items()}

    def _terms(self, batch: Batch, step: int, micro: int) -> Mapping[str, Term]:
        seed = hashed(self.settings.seed, "forward", step, micro, 0)  # 0: the rank
        for generator in self._generators:
            generator.manual_seed(seed)
        with autocast(self.settings.device, self.settings.amp):
            terms = self.task(batch).terms
        assert terms, f"{type(self.task).__name__} returned no terms in training"
        return terms  # type: ignore[no-any-return]

    def _counts(self, batches: list[Batch], step: int) -> dict[str, Tensor | float]:
        """Each term's count over all micro-batches, by a forward pass of its own: backward needs them beforehand."""
        counts: dict[str, Tensor | float] = {}
        with torch.no_grad():
            for micro, batch in enumerate(batches):
                for name, term in self._terms(batch, step, micro).items():
                    counts[name] = counts.get(name, 0.0) + term.count
        return counts

    def _set_rate(self, step: int) -> None:
        factor = self.schedule(step, self.settings.max_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    # --- between steps ------------------------------------------------------------------------------------------------

    def _between_steps(self, state: RunState) -> bool:
        """Report, evaluate and save where it is due; should training stop?"""
        improved = stopped = False
        if _due(self.settings.log_interval, state):
            self._report(state)
        if _due(self.settings.evaluation_interval, state):
            improved, stopped = self._evaluate(state)
        if improved or _due(self.settings.snapshot_interval, state):
            self._save(state, best=improved)
        return stopped

    def _report(self, state: RunState) -> None:
        if len(self.meter) == 0:
            return
        report = self.meter.report(lr=self.optimizer.param_groups[0]["lr"])
        self.hook.antmmf_step_end(state=state, report=report)

    def _evaluate(self, state: RunState) -> tuple[bool, bool]:
        """Evaluate the validation split; is it the best so far, and should training stop?"""
        if self.evaluate_val is None:
            return False, False
        self._report(state)  # diverged weights are reported as such, not as a strange figure
        figures = {f"val/{name}": figure for name, figure in self.evaluate_val().items()}
        self._evaluated_at = state.step
        improved = self._improved(state, figures)
        self.hook.antmmf_eval_end(state=state, split="val", figures=figures)
        patience = self.settings.patience
        tired = bool(patience) and state.best_step is not None and state.step - state.best_step >= (patience or 0)
        return improved, tired or self.hook.antmmf_should_stop(state=state, figures=figures) is True

    def _improved(self, state: RunState, figures: Mapping[str, Figure]) -> bool:
        if self.settings.monitored_metric is None:
            return False
        name = "val/" + self.settings.monitored_metric.removeprefix("val/")
        if name not in figures:
            hint = did_you_mean(name, figures)
            raise ConfigError(
                f"training_parameters.monitored_metric: must be a figure of the validation split, is {name!r}{hint}; "
                f"there are {', '.join(sorted(figures))}"
            )
        value, best = figures[name].value, state.best_value
        if best is not None and not (value < best if self.settings.metric_minimize else value > best):
            return False
        if value != value:  # NaN is never the best
            return False
        state.best_value, state.best_step = value, state.step
        return True

    def _save(self, state: RunState, *, best: bool) -> None:
        self._report(state)  # weights of a loss that is not finite are never saved
        if self.checkpoints is None or (self._saved_at == state.step and not best):
            return
        path = self.checkpoints.save(
            state,
            model=self.task.state_dict(),
            optimizer=self.optimizer.state_dict(),
            callbacks={
                name: callback.state_dict()
                for name, callback in self.callbacks.items()
                if hasattr(callback, "state_dict")
            },
            assets=self.assets(),
            files=self.files,
            best=best,
        )
        self._saved_at = state.step
        self.hook.antmmf_checkpoint_saved(state=state, path=path)

    def _finish(self, state: RunState) -> None:
        improved = False
        if self._evaluated_at != state.step:
            improved, _ = self._evaluate(state)
        self._save(state, best=improved)


def _due(interval: int | None, state: RunState) -> bool:
    return bool(interval) and state.step % (interval or 1) == 0


def _part(term: Term, count: Tensor | float) -> Tensor:
    """``weight * sum / count``; a count of 0 comes with a sum of 0, and gives 0."""
    if isinstance(count, Tensor):
        mean = term.sum / count.clamp(min=_TINY)
        return mean if term.weight == 1 else mean * term.weight
    return term.sum * (term.weight / max(count, _TINY))


def _default_generators(device: torch.device) -> list[torch.Generator]:
    """The generators that dropout draws from on ``device``."""
    if device.type == "cpu":
        return [torch.default_generator]
    offered = getattr(torch.get_device_module(device), "default_generators", ())
    assert offered, f"torch names no default generators for {device}"
    return [torch.default_generator, offered[device.index or 0]]
