"""The data of a planned run: indexes of its splits, and the loaders that read them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from antmmf.cache import cache_folder
from antmmf.data.index import Index, open_index
from antmmf.data.loader import Loader
from antmmf.data.media import SampleReader
from antmmf.data.quarantine import Quarantine
from antmmf.distributed.world import World
from antmmf.errors import ConfigError, Problem
from antmmf.plan import RunPlan
from antmmf.registry import prepare_process
from antmmf.run_folder import source_hash
from antmmf.task import Task


def open_indexes(plan: RunPlan) -> tuple[dict[str, Index], dict[str, list[tuple[str, ...]]]]:
    """The index of each split that the run reads; data sets that split by themselves also give their table."""
    is_training = "train" in plan.config.training_parameters.run_type.split("+")
    wanted = ["train", "val", "test"] if is_training else ["val", "test"]
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


def training_texts(plan: RunPlan, indexes: Mapping[str, Index]) -> Callable[[], Iterator[str]]:
    """All texts of the training split, which assets are made from; raises ``ConfigError`` where there is none."""

    def texts() -> Iterator[str]:
        if "train" not in indexes:
            path = ("training_parameters", "resume_file")
            message = "its checkpoint lacks something that the model is made from, such as a vocabulary; retrain it"
            raise ConfigError(Problem(".".join(path), plan.layers.where(path), message))
        return indexes["train"].texts()

    return texts


def open_quarantine(plan: RunPlan, folder: Path, world: World) -> Quarantine:
    """The bad samples of this process, in a file of its own."""
    inputs = plan.config.input_attributes
    path = folder / f"quarantine.rank{world.rank}.jsonl"
    return Quarantine(path, policy=inputs.on_bad_sample, max_bad_rate=inputs.max_bad_rate)


def build_loader(
    plan: RunPlan, split: str, index: Index, task: Task, quarantine: Quarantine, device: torch.device, world: World
) -> Loader:
    """The loader of one split, for this process of ``world``."""
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
        micro_batches=_micro_batches(plan, world) if is_train else 1,
        rank=world.rank,
        num_ranks=world.size,
        num_workers=train.num_workers,
        device=device,
        multiprocessing_context=train.worker_start_method,
        worker_setup=functools.partial(prepare_process, [str(module.__file__) for module in plan.registry.files]),
    )


def _micro_batches(plan: RunPlan, world: World) -> int:
    train = plan.config.training_parameters
    if isinstance(train.micro_batch_size, int):
        return -(-train.batch_size // (world.size * train.micro_batch_size))
    return train.gradient_accumulation_steps


def lengths(plan: RunPlan, loaders: Mapping[str, Loader]) -> Iterator[str]:
    """What an epoch is, and how large the other splits are, a line each."""
    batch = plan.config.training_parameters.batch_size
    for split, loader in loaders.items():
        if split == "train":
            steps = f"{loader.num_samples:,} samples in batches of {batch} = {loader.steps_per_epoch:,} steps"
            yield f"train: 1 epoch = {steps}"
        else:
            yield f"{split}: {loader.num_samples:,} samples"
