"""Assemble a planned run and carry it out: the only place where config values become parts."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from antmmf.assets import ANSWERS, RunAssets
from antmmf.autopsy import Autopsy
from antmmf.cases import Cases, write_cases
from antmmf.checkpoint import Checkpoint, Checkpoints, load_checkpoint, load_model, take_weights
from antmmf.contracts import Figure, Metric, RunInfo, RunState
from antmmf.data.index import Index
from antmmf.data.loader import Loader
from antmmf.data.quarantine import Quarantine
from antmmf.device import amp_type, choose_device, num_cores
from antmmf.distributed.parallel import prepare, shard, wrap
from antmmf.distributed.world import World
from antmmf.ema import Ema
from antmmf.errors import AntmmfError, ConfigError, Problem
from antmmf.evaluate import measure, metrics_faults, split_rows
from antmmf.freeze import freeze
from antmmf.inference.features import use_features
from antmmf.memory import is_out_of_memory
from antmmf.optim import build_optimizer, configured_groups
from antmmf.origin import Origin, check_weights, find_origin
from antmmf.plan import ENCODERS, NO_FP16, SPLITS, RunPlan
from antmmf.plugins import register
from antmmf.predict import write_predictions
from antmmf.run_data import build_loader, datasets_of, lengths, num_workers, open_indexes, open_quarantine, run_assets
from antmmf.run_folder import carried_files, choose_folder, write_results, write_start
from antmmf.step import Step
from antmmf.task import Task
from antmmf.trainer import Trainer, TrainSettings

log = logging.getLogger("antmmf")


@dataclass
class Run:
    """A run whose parts are built; ``execute`` carries it out. Every process of ``world`` has one."""

    plan: RunPlan
    world: World
    folder: Path
    device: torch.device
    state: RunState
    task: Task
    indexes: Mapping[str, Index]
    loaders: Mapping[str, Loader]
    metrics: list[Metric]
    trainer: Trainer | None
    checkpoints: Checkpoints
    info: RunInfo
    quarantine: Quarantine
    amp: torch.dtype | None
    val_figures: dict[int, dict[str, Figure]] = field(default_factory=dict)
    cases: dict[tuple[str, int], list[Cases]] = field(default_factory=dict)  # of a split, evaluated after a step

    def execute(self) -> dict[str, Figure]:
        """Train, evaluate and predict as ``run_type`` says; returns the figures of the end, writes ``results.json``."""
        try:
            figures = self._carry_out()
        except BaseException as problem:
            try:
                self._end(f"{type(problem).__name__}: {problem}")
            except Exception as second:
                log.warning("and at the end: %s", second)
            raise
        self._end(None)
        return figures

    def _carry_out(self) -> dict[str, Figure]:
        started = time.monotonic()
        self._tell("antmmf_run_start", info=self.info, state=self.state)
        if self.trainer is not None:
            self.trainer.fit(self.state)
        figures = self._evaluate_at_the_end()
        autopsy = self._autopsy() if self.trainer is not None else None
        if self.world.is_first:
            write_results(self.folder, figures, self.state, time.monotonic() - started, autopsy)
        return figures

    def _tell(self, event: str, **facts: Any) -> None:
        """Call a hook, on the first process only."""
        if self.world.is_first:
            getattr(self.plan.hooks.hook, event)(**facts)

    def _end(self, error: str | None) -> None:
        for loader in self.loaders.values():
            loader.close()
        bad = self.quarantine.summary()
        if bad:
            log.warning(bad)
        self._tell("antmmf_run_end", info=self.info, state=self.state, error=error)

    def _autopsy(self) -> dict[str, float]:
        """Say where the time of training went; its shares by part."""
        assert self.trainer is not None
        meter = self.trainer.meter
        autopsy = Autopsy(
            num_workers=num_workers(self.plan, self.device, self.world),
            cores=max(1, num_cores() // self.world.num_local),
            threads=torch.get_num_threads() if self.device.type == "cpu" else 1,
            is_cached=self.plan.inputs["reader"].full_name == "antmmf-vision:cached",
            steps=meter.num_steps,
            seconds=meter.total,
        )
        verdict = autopsy.verdict()
        if verdict and self.world.is_first:
            log.info("%s\n%s", autopsy.numbers(), verdict)
        return autopsy.shares()

    def evaluate_split(self, split: str, *, predict: bool = False) -> dict[str, Figure]:
        """The figures of one split, as the metrics name them; ``predict`` also writes what the task predicts."""
        loader = self.loaders[split]
        if self.plan.config.training_parameters.test_batch_size is None and "train" in self.loaders:
            loader.batch_size = self.loaders["train"].micro_batch_size  # what fits in training fits here
        try:
            stop = self.trainer.is_told_to_stop if self.trainer is not None else bool
            rows = split_rows(self.task, loader, device=self.device, world=self.world, stop=stop)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise AntmmfError(
                f"out of memory on {self.device} while evaluating {split} in batches of {loader.batch_size}: lower "
                "training_parameters.test_batch_size"
            ) from error
        if predict and self.world.is_first:
            write_predictions(self.task, rows, self.indexes[split], self.folder / "predictions" / f"{split}.jsonl")
        self.cases[split, self.state.step] = cases = list[Cases]()
        figures = measure(self.metrics, rows, self.world, cases=cases)
        if split == "val":
            self.val_figures[self.state.step] = figures
        return figures

    def _evaluate_at_the_end(self) -> dict[str, Figure]:
        """Val and test with the best weights: the only time that test data is read. Predictions are of test, or val."""
        kinds = self.plan.config.training_parameters.run_type.split("+")
        there = [split for split in ("val", "test") if split in self.loaders]
        predicted = there[-1] if "predict" in kinds else None
        splits = there if "val" in kinds else [predicted] if predicted else []
        figures: dict[str, Figure] = {}
        with self._final_weights() if splits else nullcontext(0) as step:
            for split in splits:
                found = self.val_figures.get(step) if split == "val" and split != predicted else None
                if found is None:
                    found = self.evaluate_split(split, predict=split == predicted)
                    named = {f"{split}/{name}": figure for name, figure in found.items()}
                    self._tell("antmmf_eval_end", state=self.state, split=split, figures=named)
                    self.cases[split, step] = self.cases[split, self.state.step]
                if self.world.is_first and self.cases[split, step]:
                    write_cases(self.cases[split, step], self.indexes[split], self.folder / f"cases/{split}.parquet")
                figures |= {f"{split}/{name}": figure for name, figure in found.items()}
        return figures

    @contextmanager
    def _final_weights(self) -> Iterator[int]:
        """Evaluate with the best checkpoint's weights, else the last, averaged if there is an average; gives their
        step."""
        step = self.state.step
        best = self.world.broadcast(self.checkpoints.best()) if self.trainer is not None else None
        if best is not None and self.state.best_step not in (None, step):
            load_model(self.task, weights_of(load_checkpoint(best, verify=False)))
            log.info("with the best checkpoint, %s:", best)
            yield self.state.best_step or step
            return
        ema = self.trainer.ema if self.trainer is not None else None
        with ema.swapped() if ema is not None else nullcontext():
            yield step


def assemble(
    plan: RunPlan, *, world: World | None = None, folder: Path | None = None, limit_steps: int | None = None
) -> Run:
    """Build every part of a planned run. ``limit_steps`` trains that many steps only. Raises ``AntmmfError``."""
    world = world or World()
    train = plan.config.training_parameters
    device = device_of(plan, world)
    if train.num_threads:
        torch.set_num_threads(train.num_threads)
    folder = folder or world.broadcast(choose_folder(plan) if world.is_first else Path())
    checkpoints = Checkpoints(folder / "checkpoints", max_ckpt_num=train.max_ckpt_num, world=world)
    files = carried_files(plan)
    origin = find_origin(plan, checkpoints, files["plugins.lock.json"])
    indexes, tables = open_indexes(plan, datasets_of(plan))
    task, assets = _task_and_assets(plan, origin, indexes, world)
    task.to(device)
    frozen = freeze(task, train.freeze)
    notes, left = list(origin.notes), tuple(task.state_dict())
    if origin.checkpoint and not origin.exact:
        tensors = task.fitting(weights_of(origin.checkpoint), origin.checkpoint.assets)
        transfer = take_weights(task, tensors, source=str(origin.checkpoint.path), min_coverage=train.min_coverage)
        task.after_load(transfer.taken)
        notes += transfer.lines()
        left = (*transfer.missing, *(name for name, *_ in transfer.reshaped))
    if left and "train" not in train.run_type.split("+"):
        check_weights(plan, task, build_task(plan, assets, seed=train.seed + 1), left)
    notes += use_features(plan, task, origin)
    amp = amp_type(train.enable_amp, device)
    model = _parallel(plan, task, world, device, amp)
    quarantine = open_quarantine(plan, folder, world)
    loaders = {
        split: build_loader(plan, split, indexes, task, quarantine, device, world)
        for split in SPLITS
        if split in indexes
    }
    metrics = _metrics(plan, task)
    notes += [f"frozen: {len(frozen)} parameters"] if frozen else []
    processes = f"{world.size} x {device.type}" if world.size > 1 else str(device)
    info = _info(plan, folder, loaders, limit_steps, processes, notes)
    start = RunState()
    run = Run(
        plan, world, folder, device, start, task, indexes, loaders, metrics, None, checkpoints, info, quarantine, amp
    )
    callbacks = _register_callbacks(plan) if world.is_first else {}
    if "train" in loaders:
        run.trainer = _trainer(run, model, files, assets, callbacks)
        if origin.checkpoint and origin.exact:
            run.state = _restored(run.trainer, origin.checkpoint, origin, checkpoints.folder)
    if world.is_first:
        write_start(folder, plan, files, split_tables=tables)
    world.wait()  # the folder is there
    return run


def _restored(trainer: Trainer, checkpoint: Checkpoint, origin: Origin, folder: Path) -> RunState:
    """The state to go on from, without what does not hold for this run."""
    state = trainer.restore(checkpoint)
    if checkpoint.path.parent.resolve() != folder.resolve() or origin.measures_otherwise:
        state.best_value = state.best_step = None
    state.ended = state.ended and not origin.changed
    return state


def device_of(plan: RunPlan, world: World | None = None) -> torch.device:
    """The device of this process: with several, each has an accelerator of its own."""
    name = plan.config.training_parameters.device
    where = plan.layers.where(("training_parameters", "device"))
    return choose_device(name, where=where, local_rank=world.local_rank if world and world.size > 1 else None)


def weights_of(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The model's tensors, averaged where the checkpoint has an average."""
    return {**checkpoint.model, **(checkpoint.ema or {})}


def _task_and_assets(
    plan: RunPlan, origin: Origin, indexes: Mapping[str, Index], world: World
) -> tuple[Task, RunAssets]:
    """The task; assets are made by the first process, for all."""
    saved = origin.checkpoint.assets if origin.checkpoint else None
    if saved and "train" in indexes and not origin.exact:  # whoever learns other questions needs their answers
        saved = {name: value for name, value in saved.items() if name != ANSWERS}
    assets = run_assets(plan, indexes, saved)
    task = build_task(plan, assets) if world.is_first else None
    assets = run_assets(plan, indexes, saved, world.broadcast(dict(assets.values()))) if world.size > 1 else assets
    return task or build_task(plan, assets), assets


def _parallel(
    plan: RunPlan, task: Task, world: World, device: torch.device, amp: torch.dtype | None
) -> torch.nn.Module:
    """The step of ``task``, as the processes share it; under FSDP2 the task's parameters become shards."""
    train = plan.config.training_parameters
    path = ("training_parameters", "distributed")
    if train.distributed is False and world.size > 1:
        message = f"must not be false when the run is started on {world.size} processes"
        raise ConfigError(Problem(".".join(path), plan.layers.where(path), message))
    sharded = train.distributed == "fsdp2" and world.size > 1
    if sharded and amp == torch.float16:
        raise ConfigError(Problem("training_parameters.enable_amp", plan.layers.where(path), NO_FP16))
    if train.compile:
        log.info("compile: the first steps wait for the compiler, perhaps for minutes")
    prepare(
        task,
        compile=train.compile,
        activation_checkpointing=train.activation_checkpointing,
        channels_last=train.channels_last,
        sharded=sharded,
    )
    if sharded:
        shard(task, world, device)
    step = Step(task, world=world, seed=train.seed, device=device, amp=amp)
    is_trained = "train" in train.run_type.split("+")
    return wrap(step, device) if world.size > 1 and not sharded and is_trained else step


def _metrics(plan: RunPlan, task: Task) -> list[Metric]:
    metrics: list[Metric] = [metric.build() for metric in plan.metrics]
    faults = list(metrics_faults(metrics, plan.config.training_parameters.monitored_metric, task.row_names))
    if faults:
        raise ConfigError([Problem(key, plan.layers.where(tuple(key.split("."))), fault) for key, fault in faults])
    return metrics


def build_task(plan: RunPlan, assets: RunAssets, *, seed: int | None = None) -> Task:
    """The task with its encoders, initialised from the run's seed, or another one."""
    torch.manual_seed(plan.config.training_parameters.seed if seed is None else seed)
    encoders = {
        parameter: plan.encoders[key].build(assets=assets)
        for parameter, key in ENCODERS.items()
        if key in plan.encoders
    }
    task = plan.task.build(assets=assets, **encoders)
    assert isinstance(task, Task), f"{plan.task.full_name} must be a subclass of antmmf.Task"
    return task


def _info(
    plan: RunPlan,
    folder: Path,
    loaders: Mapping[str, Loader],
    limit_steps: int | None,
    processes: str,
    notes: list[str],
) -> RunInfo:
    steps_per_epoch = loaders["train"].steps_per_epoch if "train" in loaders else 0
    return RunInfo(
        recipe=plan.name,
        save_dir=folder,
        max_steps=(limit_steps or _max_steps(plan, steps_per_epoch)) if "train" in loaders else 0,
        steps_per_epoch=steps_per_epoch,
        batch_size=plan.config.training_parameters.batch_size,
        device=processes,
        notes=(*lengths(plan, loaders), *notes),
        config=plan.resolved,
    )


def _max_steps(plan: RunPlan, steps_per_epoch: int) -> int:
    train = plan.config.training_parameters
    limits = [train.max_iterations, train.max_epochs * steps_per_epoch if train.max_epochs else None]
    return min((limit for limit in limits if limit is not None), default=0)


def _register_callbacks(plan: RunPlan) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for number, callback_plan in enumerate(plan.callbacks):
        name = f"callbacks.{number} ({callback_plan.full_name})"
        built[name] = callback_plan.build()
        register(plan.hooks, built[name], name=name)
    return built


def _trainer(
    run: Run,
    model: torch.nn.Module,
    files: Mapping[str, str],
    assets: RunAssets,
    callbacks: Mapping[str, object],
) -> Trainer:
    train = run.plan.config.training_parameters
    settings = TrainSettings(
        max_steps=run.info.max_steps,
        seed=train.seed,
        device=str(run.device),
        amp=run.amp,
        max_grad_l2_norm=train.max_grad_l2_norm,
        log_interval=train.log_interval,
        evaluation_interval=train.evaluation_interval,
        snapshot_interval=train.snapshot_interval,
        monitored_metric=train.monitored_metric,
        metric_minimize=train.metric_minimize,
        patience=train.patience,
        auto_micro_batches=train.micro_batch_size == "auto",
        async_save=train.async_save,
        signals=[getattr(signal, f"SIG{train.preemption_signal}")] if train.preemption_signal else (),
    )
    return Trainer(
        run.task,
        model=model,
        world=run.world,
        ema=Ema(run.task, decay=train.ema_decay) if train.ema_decay else None,
        optimizer=build_optimizer(run.plan.optimizer.build(), configured_groups(run.task, train)),
        schedule=run.plan.schedule.build(),
        loader=run.loaders["train"],
        settings=settings,
        hook=run.plan.hooks.hook,
        evaluate_val=partial(run.evaluate_split, "val") if "val" in run.loaders else None,
        checkpoints=run.checkpoints,
        assets=assets.values,
        files=files,
        callbacks=callbacks,
    )
