"""The training loop. One step: load, forward, backward, optimizer; between steps: report, evaluate, save, stop."""

from __future__ import annotations

import logging
import platform
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from pluggy import HookRelay
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from antmmf.autopsy import slow_ranks
from antmmf.batch import Batch
from antmmf.checkpoint import Checkpoint, Checkpoints, load_model, load_optimizer
from antmmf.contracts import Figure, Json, RunState, Schedule
from antmmf.data.loader import LoadedStep, Loader
from antmmf.device import tell_overflow
from antmmf.distributed.world import World
from antmmf.ema import Ema
from antmmf.errors import CheckpointError, ConfigError, DataError, did_you_mean
from antmmf.evaluate import StoppedError
from antmmf.memory import explained, find_micro_batches
from antmmf.meter import Meter, refuse_broken
from antmmf.step import Step, total
from antmmf.stopping import StopSignals
from antmmf.task import Task

log = logging.getLogger("antmmf")


@dataclass(frozen=True)
class TrainSettings:
    """Numbers of a training run. Intervals and ``patience`` are in optimizer steps; None or 0: only at the end.

    ``amp`` is the type to autocast to; float16 scales the loss. ``monitored_metric`` is a figure of the validation
    split, with or without ``val/``. ``signals`` are signals that end a run beside SIGINT and SIGTERM.
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
    auto_micro_batches: bool = False
    async_save: bool = False
    signals: Sequence[int] = ()


class Trainer:
    """Trains ``task``, which is on its device already, through ``model``: a ``Step`` of it, wrapped for many processes.

    Every process of ``world`` has a trainer; hooks are called on the first one. ``evaluate_val`` returns unprefixed
    figures. ``assets``, asked for at each save, and ``files`` (texts by name) go into every checkpoint, and so does
    the state of those ``callbacks`` that have a ``state_dict``.
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
        model: nn.Module | None = None,
        world: World | None = None,
        ema: Ema | None = None,
        evaluate_val: Callable[[], Mapping[str, Figure]] | None = None,
        checkpoints: Checkpoints | None = None,
        assets: Callable[[], Mapping[str, Json]] = dict,
        files: Mapping[str, str] | None = None,
        callbacks: Mapping[str, object] | None = None,
    ) -> None:
        self.task = task
        self.world = world or World()
        self.model = model or Step(task, seed=settings.seed, device=settings.device, amp=settings.amp)
        self.optimizer = optimizer
        self.schedule = schedule
        self.loader = loader
        self.settings = settings
        self.hook = hook
        self.ema = ema
        self.evaluate_val = evaluate_val
        self.checkpoints = checkpoints
        self.assets = assets
        self.files = dict(files or {})
        self.callbacks = dict(callbacks or {})
        is_half = settings.amp == torch.float16
        self.scaler = torch.amp.GradScaler(torch.device(settings.device).type) if is_half else None
        self._scale = self.scaler.get_scale() if self.scaler is not None else 1.0
        step = self.model.module if isinstance(self.model, DistributedDataParallel) else self.model
        assert isinstance(step, Step)
        self._watch = step.watch
        self.meter = Meter(loader.keys, self._watch, world=self.world, check_norm=not is_half)
        self._is_on_cpu = torch.device(settings.device).type == "cpu"
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._hosts: list[str] = []
        self._suspect = self._slow = ""  # the process that was slow at the last report, and the one that was named
        self._ghost: Batch | None = None
        self._idle_since: int | None = None  # the position since which this epoch had no good sample
        self._evaluated_at: int | None = None
        self._signals = StopSignals()
        self._saved_at: int | None = None
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def fit(self, state: RunState) -> None:
        """Train from ``state`` to the last step; ``state`` moves along.

        SIGINT, SIGTERM and ``settings.signals``, sent to any process, finish the step and save on all of them, and
        then raise ``KeyboardInterrupt`` or ``SystemExit``.
        """
        self.task.train()
        self._hosts = self.world.collect(platform.node())
        self._idle_since = state.position
        if self.settings.auto_micro_batches:
            self.loader.micro_batches = state.micro_batches = find_micro_batches(self, state)
        stream = self.loader.stream(state.epoch, start=state.position)
        stopped, caught, waiting = state.ended, None, "start"
        with StopSignals(self.settings.signals, quiet=not self.world.is_first) as signals:
            self._signals = signals
            while state.step < self.settings.max_steps and not stopped:
                self._watch.start()
                loaded = next(stream)
                self._watch.lap(waiting)
                waiting = "data"
                batches, num_ghosts, caught = self._agree(loaded, signals.caught, state)
                if caught:
                    break
                if loaded.epoch != state.epoch:
                    self._begin_epoch(loaded.epoch, state)
                state.position += loaded.samples
                if batches:  # else every sample was bad and left out: the position moves, the step does not
                    self._step(batches, num_ghosts, state)
                    stopped = self._between_steps(state)
                if signals.caught and self.world.size == 1:  # with others, when all have heard of it
                    caught = signals.caught
                    break
            if not caught:
                self._finish(state)
                caught = int(self.world.exchange([signals.caught or 0]).max())
            if caught:
                self._save(state, best=False)
                self._wait_for_saves(state)
                if self.world.is_first and self.checkpoints is not None:
                    go_on = "training_parameters.resume auto goes on from there"
                    log.warning("%s: stopped after step %d; %s", signal.Signals(caught).name, state.step, go_on)
                signals.caught = caught
                signals.end()

    def is_told_to_stop(self) -> bool:
        """Whether this process caught a signal: then an evaluation should leave off."""
        return self._signals.caught is not None

    def restore(self, checkpoint: Checkpoint) -> RunState:
        """Take everything that ``checkpoint`` holds, so that ``fit`` goes on as if it had never stopped."""
        saved = checkpoint.optimizer
        if saved is None:
            raise CheckpointError(f"{checkpoint.path} has no optimizer state; take its weights with restart: true")
        try:
            load_model(self.task, checkpoint.model)
            load_optimizer(self.optimizer, saved["optimizer"])
            if self.scaler is not None and saved["scaler"] is not None:
                self.scaler.load_state_dict(saved["scaler"])
            if self.ema is not None:
                self.ema = Ema(self.task, decay=self.ema.decay)  # a run that had no average begins one here
                if checkpoint.ema is not None:
                    self.ema.load_state_dict(checkpoint.ema)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            advice = (
                "go on with the same model, freeze and parameter_groups, or take only its weights with restart: true"
            )
            raise CheckpointError(f"{checkpoint.path} does not fit this run: {reason}; {advice}") from error
        for name, callback in self.callbacks.items():
            if name in checkpoint.callbacks and hasattr(callback, "load_state_dict"):
                callback.load_state_dict(checkpoint.callbacks[name])
        if self.checkpoints is not None and checkpoint.path.parent.resolve() == self.checkpoints.folder.resolve():
            self._saved_at = checkpoint.state.step
        return checkpoint.state

    # --- one step -----------------------------------------------------------------------------------------------------

    def _begin_epoch(self, epoch: int, state: RunState) -> None:
        if self._idle_since == 0:
            raise DataError(f"an epoch gave not one good sample: {self.loader.quarantine.summary()}")
        state.epoch, state.position = epoch, 0
        self._idle_since = 0

    def _agree(self, loaded: LoadedStep, caught: int | None, state: RunState) -> tuple[list[Batch], int, int | None]:
        """As many micro-batches as the process that has most, how many of them are ghosts at the end, and the signal
        that any process caught; ``state`` learns of all processes' bad samples."""
        batches = list(loaded.batches)
        num_own, num_bad = len(batches), self.loader.quarantine.count
        self.meter.decode_seconds += loaded.seconds
        if self.world.size == 1:
            state.bad_samples = num_bad
            return batches, 0, None
        table = self.world.exchange([num_own, caught or 0, num_bad])
        state.bad_samples = int(table[:, 2].sum())
        most, caught = (int(value) for value in table[:, :2].amax(0))
        if num_own < most:
            self._ghost = batches[-1] if batches else self._ghost or self.loader.any_batch()
            batches += [self._ghost] * (most - num_own)
        self._watch.lap("communication")
        return batches, most - num_own, caught

    def _step(self, batches: list[Batch], num_ghosts: int, state: RunState) -> None:
        """One optimizer step over all micro-batches, with the loss that one large batch would have."""
        self._set_rate(state.step)
        try:
            moved = batches if self._is_on_cpu else [self.move(batch) for batch in batches]
            self._watch.lap("to_device")
            parts = self.model(moved, state.step, num_ghosts)
            loss = total(parts)
            self._watch.lap("forward")
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
            self._watch.lap("backward")
            norm = self._update(state.step)
        except Exception as error:
            known = explained(error, device=self.settings.device, batches=batches)
            if known is None:
                raise
            raise known from error
        self._watch.lap("optimizer")
        state.step += 1
        self._idle_since = None
        values = {name: part.detach() for name, part in parts.items()}
        watched = frozenset(name for name, part in parts.items() if not part.requires_grad)
        ids = [batch.ids.tolist() for batch in batches[: len(batches) - num_ghosts]]
        self.meter.add_step(state.step, terms=values, watched=watched, norm=norm, ids=ids)

    def move(self, batch: Batch) -> Batch:
        """The batch on the run's device."""
        return batch.to(self.settings.device, non_blocking=True)

    def _update(self, step: int) -> Tensor | None:
        norm = None
        if self.settings.max_grad_l2_norm is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)  # once a step: clipping is of true gradients
            norm = nn.utils.clip_grad_norm_(self._parameters, self.settings.max_grad_l2_norm)
            norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.task.after_step()
        if self.ema is not None:
            self.ema.update(step)
        return norm

    def _set_rate(self, step: int) -> None:
        factor = self.schedule(step, self.settings.max_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    # --- between steps ------------------------------------------------------------------------------------------------

    def _between_steps(self, state: RunState) -> bool:
        """Report, evaluate and save where it is due; should training stop?"""
        if _due(self.settings.log_interval, state):
            self._report(state)
        if state.step == self.settings.max_steps:
            return True  # what else is due is done at the end
        to_evaluate = _due(self.settings.evaluation_interval, state)
        if _due(self.settings.snapshot_interval, state) or (to_evaluate and not self.settings.snapshot_interval):
            self._save(state, best=False)  # an evaluation may fail
        improved, stopped = self._evaluate(state) if to_evaluate else (False, False)
        if improved:
            self._save(state, best=True)
        return stopped

    def _tell(self, event: str, **facts: Any) -> Any:
        """Call a hook, on the first process only."""
        return getattr(self.hook, event)(**facts) if self.world.is_first else None

    def _report(self, state: RunState) -> None:
        if self.checkpoints is not None:
            for saved, path in self.checkpoints.finished():
                self._tell("antmmf_checkpoint_saved", state=saved, path=path)
        if len(self.meter) == 0:
            return
        report, ranks = self.meter.report(lr=self.optimizer.param_groups[0]["lr"])
        if self.scaler is not None:
            self._scale = tell_overflow(self.scaler, before=self._scale)
        slow = slow_ranks(ranks, self._hosts) or ""
        who = slow.partition(" is ")[0]
        if slow and who == self._suspect != self._slow and self.world.is_first:  # once is chance
            log.warning(slow)
            self._slow = who
        self._suspect, self._slow = who, self._slow if slow else ""
        self._tell("antmmf_step_end", state=state, report=report)

    def _evaluate(self, state: RunState) -> tuple[bool, bool]:
        """Evaluate the validation split; is it the best so far, and should training stop?"""
        if self.evaluate_val is None:
            return False, False
        self._report(state)  # diverged weights are reported as such, not as a strange figure
        started = time.perf_counter()
        try:
            with self.ema.swapped() if self.ema is not None else nullcontext():
                figures = {f"val/{name}": figure for name, figure in self.evaluate_val().items()}
        except StoppedError:
            return False, False
        self.meter.total["evaluation"] += time.perf_counter() - started
        self._evaluated_at = state.step
        improved = self._improved(state, figures)
        self._tell("antmmf_eval_end", state=state, split="val", figures=figures)
        patience = self.settings.patience
        tired = bool(patience) and state.best_step is not None and state.step - state.best_step >= (patience or 0)
        asked = self._tell("antmmf_should_stop", state=state, figures=figures) is True
        if (tired or asked) and self.world.is_first and state.step < self.settings.max_steps:
            why = f"no better {self.settings.monitored_metric} for {patience} steps (patience)"
            log.info("training ends at step %d: %s", state.step, why if tired else "antmmf_should_stop says so")
        state.ended = self.world.broadcast(tired or asked)
        return improved, state.ended

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
        if self.checkpoints is None:
            return
        if self._saved_at == state.step:
            if best or state.ended:
                self.checkpoints.mark(state, best=best)
            return
        started = time.perf_counter()
        refuse_broken(self._parameters, step=state.step, world=self.world, newest=self.checkpoints.latest())
        self.checkpoints.save(
            state,
            model=self.task.state_dict(),
            optimizer={
                "optimizer": self.optimizer.state_dict(),
                "scaler": None if self.scaler is None else self.scaler.state_dict(),
            },
            ema=None if self.ema is None else self.ema.state_dict(),
            callbacks={
                name: callback.state_dict()
                for name, callback in self.callbacks.items()
                if hasattr(callback, "state_dict")
            },
            assets=self.assets(),
            files=self.files,
            best=best,
            in_background=self.settings.async_save,
        )
        self._saved_at = state.step
        self.meter.total["saving"] += time.perf_counter() - started

    def _finish(self, state: RunState) -> None:
        """Save before the last evaluation, which may fail."""
        self._save(state, best=False)
        if self._evaluated_at != state.step and self._evaluate(state)[0]:
            self._save(state, best=True)
        self._wait_for_saves(state)

    def _wait_for_saves(self, state: RunState) -> None:
        if self.checkpoints is not None:
            self.checkpoints.wait()
        self._report(state)


def _due(interval: int | None, state: RunState) -> bool:
    return bool(interval) and state.step % (interval or 1) == 0
