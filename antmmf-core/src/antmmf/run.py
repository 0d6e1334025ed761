"""Assemble a planned run and carry it out: the only place where config values become parts."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from antmmf.assets import RunAssets
from antmmf.cache import cache_folder
from antmmf.checkpoint import Checkpoint, Checkpoints, find_checkpoint, load_checkpoint, take_weights
from antmmf.config.reader import parse
from antmmf.contracts import Figure, Metric, RunInfo, RunState
from antmmf.data.index import Index, open_index
from antmmf.data.loader import Loader
from antmmf.data.media import SampleReader
from antmmf.data.quarantine import Quarantine
from antmmf.device import choose_device
from antmmf.errors import ConfigError, Problem
from antmmf.evaluate import evaluate, monitored_fault
from antmmf.optim import build_optimizer
from antmmf.plan import ENCODERS, RunPlan
from antmmf.plugins import register
from antmmf.registry import prepare_process
from antmmf.run_folder import carried_files, choose_folder, flat, source_hash, write_results, write_start
from antmmf.task import Task
from antmmf.trainer import Trainer, TrainSettings

log = logging.getLogger("antmmf")


@dataclass
class Run:
    """A run whose parts are built; ``execute`` carries it out."""

    plan: RunPlan
    folder: Path
    device: torch.device
    state: RunState
    task: Task
    loaders: Mapping[str, Loader]
    metrics: list[Metric]
    trainer: Trainer | None
    checkpoints: Checkpoints
    info: RunInfo
    quarantine: Quarantine
    amp: torch.dtype | None
    val_figures: dict[int, dict[str, Figure]] = field(default_factory=dict)

    def execute(self) -> dict[str, Figure]:
        """Train and evaluate as ``run_type`` says; returns the figures of the end and writes ``results.json``."""
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
        self.plan.hooks.hook.antmmf_run_start(info=self.info, state=self.state)
        if self.trainer is not None:
            self.trainer.fit(self.state)
        figures = self._evaluate_at_the_end()
        write_results(self.folder, figures, self.state, time.monotonic() - started)
        return figures

    def _end(self, error: str | None) -> None:
        for loader in self.loaders.values():
            loader.close()
        bad = self.quarantine.summary()
        if bad:
            log.warning(bad)
        self.plan.hooks.hook.antmmf_run_end(info=self.info, state=self.state, error=error)

    def evaluate_split(self, split: str) -> dict[str, Figure]:
        """The figures of one split, as the metrics name them."""
        figures = evaluate(self.task, self.loaders[split], self.metrics, device=self.device, amp=self.amp)
        if split == "val":
            self.val_figures[self.state.step] = figures
        return figures

    def _evaluate_at_the_end(self) -> dict[str, Figure]:
        """Val and test with the best weights: the only time that test data is read."""
        figures: dict[str, Figure] = {}
        if self.plan.config.training_parameters.run_type == "train":
            return {}
        step = self.state.step
        best = self.checkpoints.best() if self.trainer is not None else None
        if best is not None and self.state.best_step not in (None, step):
            step = self.state.best_step or step
            take_weights(self.task, load_checkpoint(best).model, source=str(best))
            log.info("test: with the best checkpoint, %s", best)
        for split in (split for split in ("val", "test") if split in self.loaders):
            known = self.val_figures.get(step) if split == "val" and self.trainer is not None else None
            found = {f"{split}/{name}": figure for name, figure in (known or self.evaluate_split(split)).items()}
            if known is None:
                self.plan.hooks.hook.antmmf_eval_end(state=self.state, split=split, figures=found)
            figures |= found
        return figures


def assemble(plan: RunPlan, *, folder: Path | None = None, limit_steps: int | None = None) -> Run:
    """Build every part of a planned run. ``limit_steps`` trains that many steps only. Raises ``AntmmfError``."""
    train = plan.config.training_parameters
    device = choose_device(train.device, where=plan.layers.where(("training_parameters", "device")))
    if train.num_threads:
        torch.set_num_threads(train.num_threads)
    folder = folder or choose_folder(plan)
    checkpoints = Checkpoints(folder / "checkpoints", max_ckpt_num=train.max_ckpt_num)
    origin = _origin(plan, checkpoints)
    indexes, tables = _open_indexes(plan)
    assets = RunAssets(origin.checkpoint.assets if origin.checkpoint else None, texts=_training_texts(plan, indexes))
    task = build_task(plan, assets).to(device)
    files = carried_files(plan)
    quarantine = Quarantine(
        folder / "quarantine.rank0.jsonl",
        policy=plan.config.input_attributes.on_bad_sample,
        max_bad_rate=plan.config.input_attributes.max_bad_rate,
    )
    loaders = {split: _loader(plan, split, index, task, quarantine, device) for split, index in indexes.items()}
    amp = torch.bfloat16 if train.enable_amp else None
    metrics: list[Metric] = [metric.build() for metric in plan.metrics]
    fault = monitored_fault(train.monitored_metric, metrics)
    if fault:
        path = ("training_parameters", "monitored_metric")
        raise ConfigError(Problem(".".join(path), plan.layers.where(path), fault))
    state, notes = RunState(), [origin.note, *_changes(plan, origin)]
    if origin.checkpoint and not origin.exact:
        notes.append(str(take_weights(task, origin.checkpoint.model, source=str(origin.checkpoint.path))))
    steps_per_epoch = loaders["train"].steps_per_epoch if "train" in loaders else 0
    max_steps = limit_steps or _max_steps(plan, steps_per_epoch)
    info = RunInfo(
        recipe=plan.name,
        save_dir=folder,
        max_steps=max_steps,
        steps_per_epoch=steps_per_epoch,
        batch_size=train.batch_size,
        device=str(device),
        notes=(*_lengths(plan, loaders), *notes),
        config=plan.resolved,
    )
    run = Run(plan, folder, device, state, task, loaders, metrics, None, checkpoints, info, quarantine, amp)
    if "train" in loaders:
        run.trainer = _trainer(run, files, assets, _register_callbacks(plan), max_steps)
        if origin.checkpoint and origin.exact:
            run.state = run.trainer.restore(origin.checkpoint)
            if origin.checkpoint.path.parent.resolve() != checkpoints.folder.resolve():
                run.state.best_value = run.state.best_step = None  # that checkpoint is not in this run's folder
    else:
        _register_callbacks(plan)
    write_start(folder, plan, files, split_tables=tables)
    return run


@dataclass(frozen=True)
class Origin:
    """Where a run starts: fresh, from the weights of a checkpoint, or exactly where one stopped."""

    checkpoint: Checkpoint | None
    exact: bool
    note: str


def _origin(plan: RunPlan, checkpoints: Checkpoints) -> Origin:
    train = plan.config.training_parameters
    newest = checkpoints.latest() if train.resume and train.run_type != "val" else None
    if newest is not None:
        checkpoint = load_checkpoint(newest)
        return Origin(checkpoint, True, f"going on from {newest}, step {checkpoint.state.step}")
    if train.resume_file is None:
        return Origin(None, False, f"starting fresh with seed {train.seed}")
    weights_only = train.restart or train.run_type == "val"
    path = find_checkpoint(Path(train.resume_file).expanduser(), prefer="best" if weights_only else "latest")
    checkpoint = load_checkpoint(path)
    if weights_only:
        return Origin(checkpoint, False, f"weights from {path}, counting from 0")
    return Origin(checkpoint, True, f"going on from {path}, counting from {checkpoint.state.step}")


def _changes(plan: RunPlan, origin: Origin) -> Iterator[str]:
    """What a run that goes on is told differently from the run that stopped."""
    text = origin.checkpoint.files.get("config.yml") if origin.checkpoint and origin.exact else None
    before = flat(parse(text, name="config.yml").values) if text else {}
    after = flat(plan.resolved) if text else {}
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old != new and key.rpartition(".")[2] not in ("resume", "resume_file", "save_dir"):
            yield f"changed since that checkpoint: {key} was {old!r}, is {new!r}"


def _open_indexes(plan: RunPlan) -> tuple[dict[str, Index], dict[str, list[tuple[str, ...]]]]:
    """The index of each split that the run reads; data sets that split by themselves also give their table."""
    wanted = ["val", "test"] if plan.config.training_parameters.run_type == "val" else ["train", "val", "test"]
    indexes: dict[str, Index] = {}
    tables: dict[str, list[tuple[str, ...]]] = {}
    for split in (split for split in wanted if split in plan.datasets):
        dataset_plan = plan.datasets[split]
        dataset = dataset_plan.build()
        component = dataset_plan.component
        version = f"{component.version} {source_hash(component)}" if component else ""
        with dataset_plan.blamed():
            indexes[split] = open_index(
                dataset,
                name=dataset_plan.full_name,
                version=version,
                parameters=dict(dataset_plan.saved),
                folder=cache_folder() / "index",
            )
            if hasattr(dataset, "split_table"):
                tables[split] = dataset.split_table()
    return indexes, tables


def _training_texts(plan: RunPlan, indexes: Mapping[str, Index]) -> Callable[[], Iterator[str]]:
    def texts() -> Iterator[str]:
        if "train" not in indexes:
            path = ("training_parameters", "resume_file")
            message = "its checkpoint lacks something that the model is made from, such as a vocabulary; retrain it"
            raise ConfigError(Problem(".".join(path), plan.layers.where(path), message))
        return indexes["train"].texts()

    return texts


def build_task(plan: RunPlan, assets: RunAssets) -> Task:
    """The task with its encoders, initialised from the run's seed."""
    torch.manual_seed(plan.config.training_parameters.seed)
    encoders = {
        parameter: plan.encoders[key].build(assets=assets)
        for parameter, key in ENCODERS.items()
        if key in plan.encoders
    }
    task = plan.task.build(assets=assets, **encoders)
    assert isinstance(task, Task), f"{plan.task.full_name} must be a subclass of antmmf.Task"
    return task


def _loader(
    plan: RunPlan, split: str, index: Index, task: Task, quarantine: Quarantine, device: torch.device
) -> Loader:
    train = plan.config.training_parameters
    is_train = split == "train"
    transform = plan.inputs.get("train_transform" if is_train else "eval_transform")
    reader = SampleReader(
        index,
        dataset=plan.datasets[split].build(),
        reader=plan.inputs["reader"].build(),
        reader_name=plan.inputs["reader"].full_name,
        sampler=plan.inputs["sampler"].build(),
        transform=transform.build() if transform else None,
        seed=train.seed,
        train=is_train,
    )
    return Loader(
        reader,
        task.collator(is_train),
        batch_size=train.batch_size if is_train else train.test_batch_size or train.batch_size,
        train=is_train,
        seed=train.seed,
        quarantine=quarantine,
        micro_batches=train.gradient_accumulation_steps if is_train else 1,
        num_workers=train.num_workers,
        device=device,
        multiprocessing_context=train.worker_start_method,
        worker_setup=functools.partial(prepare_process, [str(module.__file__) for module in plan.registry.files]),
    )


def _max_steps(plan: RunPlan, steps_per_epoch: int) -> int:
    train = plan.config.training_parameters
    limits = [train.max_iterations, train.max_epochs * steps_per_epoch if train.max_epochs else None]
    return min((limit for limit in limits if limit is not None), default=0)


def _lengths(plan: RunPlan, loaders: Mapping[str, Loader]) -> Iterator[str]:
    batch = plan.config.training_parameters.batch_size
    for split, loader in loaders.items():
        if split == "train":
            steps = f"{loader.num_samples:,} samples in batches of {batch} = {loader.steps_per_epoch:,} steps"
            yield f"train: 1 epoch = {steps}"
        else:
            yield f"{split}: {loader.num_samples:,} samples"


def _register_callbacks(plan: RunPlan) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for number, callback_plan in enumerate(plan.callbacks):
        name = f"callbacks.{number} ({callback_plan.full_name})"
        built[name] = callback_plan.build()
        register(plan.hooks, built[name], name=name)
    return built


def _trainer(
    run: Run, files: Mapping[str, str], assets: RunAssets, callbacks: Mapping[str, object], max_steps: int
) -> Trainer:
    train = run.plan.config.training_parameters
    settings = TrainSettings(
        max_steps=max_steps,
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
    )
    return Trainer(
        run.task,
        optimizer=build_optimizer(run.plan.optimizer.build(), run.task),
        schedule=run.plan.schedule.build(),
        loader=run.loaders["train"],
        settings=settings,
        hook=run.plan.hooks.hook,
        evaluate_val=functools.partial(run.evaluate_split, "val") if "val" in run.loaders else None,
        checkpoints=run.checkpoints,
        assets=assets.values,
        files=files,
        callbacks=callbacks,
    )


def with_settings(plan: RunPlan, **changes: Any) -> RunPlan:
    """The same plan with some ``training_parameters`` changed; for ``--smoke``."""
    train = plan.config.training_parameters.model_copy(update=changes)
    return replace(plan, config=plan.config.model_copy(update={"training_parameters": train}))
