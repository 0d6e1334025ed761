"""The data of a planned run: indexes of its splits, and the loaders that read them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import torch

from antmmf.assets import RunAssets
from antmmf.cache import cache_folder
from antmmf.config.reader import dotted
from antmmf.config.schema import TrainBlock
from antmmf.contracts import Json
from antmmf.data.index import Index, open_index
from antmmf.data.loader import Loader
from antmmf.data.media import SampleReader
from antmmf.data.mixing import Mixed
from antmmf.data.quarantine import Quarantine
from antmmf.data.reader_process import protected
from antmmf.data.sources import Sources
from antmmf.device import num_cores
from antmmf.distributed.world import World
from antmmf.errors import ConfigError, Problem
from antmmf.inference.features import StoredFeatures
from antmmf.plan import SPLITS, DataPlan, RunPlan
from antmmf.registry import prepare_process
from antmmf.run_folder import source_hash
from antmmf.task import Task

_MOST_WORKERS = 16


def datasets_of(plan: RunPlan) -> list[str]:
    """What the data sets that the run reads are called in ``plan.datasets``."""
    is_training = "train" in plan.config.training_parameters.run_type.split("+")
    return [name for split in (SPLITS if is_training else SPLITS[1:]) for name in plan.parts(split)]


def open_indexes(plan: DataPlan, names: Iterable[str]) -> tuple[dict[str, Index], dict[str, list[tuple[str, ...]]]]:
    """The index of each of the data sets; those that split by themselves also give their table."""
    indexes: dict[str, Index] = {}
    tables: dict[str, list[tuple[str, ...]]] = {}
    for name in names:
        dataset_plan = plan.datasets[name]
        dataset = dataset_plan.build()
        component = dataset_plan.component
        version = f"{component.version} {source_hash(component)}" if component else ""
        with dataset_plan.blamed():
            indexes[name] = open_index(
                dataset,
                name=dataset_plan.full_name,
                version=version,
                parameters=dict(dataset_plan.saved),
                folder=cache_folder() / "index",
            )
            if hasattr(dataset, "split_table"):
                tables[name] = dataset.split_table()
    return indexes, tables


def run_assets(
    plan: RunPlan,
    indexes: Mapping[str, Index],
    saved: Mapping[str, Json] | None,
    made: Mapping[str, Json] | None = None,
) -> RunAssets:
    """The ``saved`` assets and those ``made`` already; others are made from the training split, or raise
    ``ConfigError`` where there is none."""

    def all_of(read: Callable[[Index], Iterator[str]]) -> Iterator[str]:
        if "train" not in indexes:
            path = ("training_parameters", "resume_file")
            brings = "" if saved is None else f"; this one brings {', '.join(saved) or 'nothing'}"
            message = f"must name a checkpoint of {plan.task.full_name}, for the vocabulary or answers in it{brings}"
            raise ConfigError(Problem(".".join(path), plan.layers.where(path), message))
        yield from chain.from_iterable(read(indexes[name]) for name in plan.parts("train"))

    return RunAssets(saved, texts=lambda: all_of(Index.texts), answers=lambda: all_of(Index.answers), made=made)


def open_quarantine(plan: RunPlan, folder: Path, world: World) -> Quarantine:
    """The bad samples of the run; each process writes a file of its own."""
    inputs = plan.config.input_attributes
    return Quarantine(folder, rank=world.rank, policy=inputs.on_bad_sample, max_bad_rate=inputs.max_bad_rate)


def open_sources(plan: DataPlan, *, train: bool) -> Sources:
    """What finds media, and fetches remote ones: whole shards, unless training jumps from one to another."""
    inputs = plan.config.input_attributes
    whole = not train or inputs.shuffle == "blocks"
    return Sources(cache_folder() / "remote", max_gb=inputs.remote_cache_gb, whole=whole)


def sample_reader(
    plan: DataPlan, name: str, index: Index, *, train: bool, sources: Sources | None = None
) -> SampleReader:
    """What reads the samples of a data set, as in training or as in evaluation."""
    block = plan.train_block(name) if train and name in plan.parts("train") else TrainBlock(type=name)
    transform = plan.inputs.get("train_transform" if train else "eval_transform")
    reader, inputs = plan.inputs["reader"], plan.config.input_attributes
    own = StoredFeatures(Path(inputs.features).expanduser()) if inputs.features else reader.build()
    return SampleReader(
        index,
        dataset=plan.datasets[name].build() if train else None,
        reader=protected(own, timeout=inputs.read_timeout, setup=worker_setup(plan)),
        reader_name=reader.full_name,
        sampler=plan.inputs.get(f"sampler.{name}", plan.inputs["sampler"]).build(),
        transform=transform.build() if transform else None,
        seed=plan.config.training_parameters.seed,
        train=train,
        num_texts=block.texts_per_video,
        by_caption=block.epoch_of == "captions",
        sources=sources or open_sources(plan, train=train),
    )


def build_loader(
    plan: RunPlan,
    split: str,
    indexes: Mapping[str, Index],
    task: Task,
    quarantine: Quarantine,
    device: torch.device,
    world: World,
) -> Loader:
    """The loader of one split, for this process of ``world``."""
    train = plan.config.training_parameters
    is_train = split == "train"
    sources = open_sources(plan, train=is_train)
    names = plan.parts(split)
    parts = [sample_reader(plan, name, indexes[name], train=is_train, sources=sources) for name in names]
    if len(parts) > 1:
        _check_sizes(plan, dict(zip(names, parts, strict=True)))
    weights = [plan.train_block(name).weight for name in names] if is_train else []
    return Loader(
        Mixed(parts) if len(parts) > 1 else parts[0],
        task.collator(is_train),
        batch_size=train.batch_size if is_train else train.test_batch_size or train.batch_size,
        train=is_train,
        seed=train.seed,
        quarantine=quarantine,
        micro_batches=_micro_batches(plan, world) if is_train else 1,
        rank=world.rank,
        num_ranks=world.size,
        num_workers=num_workers(plan, device, world),
        device=device,
        multiprocessing_context=train.worker_start_method,
        shuffle=plan.config.input_attributes.shuffle,
        prefetch=sources.prefetch if is_train else None,
        weights=[weight for weight in weights if weight] or None,
        worker_setup=worker_setup(plan),
    )


def _check_sizes(plan: RunPlan, parts: Mapping[str, SampleReader]) -> None:
    """A step takes its batch from one data set, which must have so many samples. Raises ``ConfigError``."""
    batch = plan.config.training_parameters.batch_size
    for name, part in parts.items():
        if len(part) < batch:
            message = f"must have at least batch_size {batch} samples to be mixed with others, has {len(part)}"
            where = plan.datasets[name]
            raise ConfigError(Problem(dotted(where.path), where.where, message))


def num_workers(plan: RunPlan, device: torch.device, world: World) -> int:
    """Loader processes of each process; ``auto``: one for each core that it has beside its own, where an accelerator
    computes, and none where the steps themselves need the cores."""
    wanted = plan.config.training_parameters.num_workers
    if wanted != "auto":
        return wanted
    return 0 if device.type == "cpu" else min(_MOST_WORKERS, max(1, num_cores() // world.num_local - 1))


def worker_setup(plan: DataPlan) -> Callable[[], None]:
    """What a loader's worker does before anything is unpickled there."""
    return functools.partial(prepare_process, [str(module.__file__) for module in plan.registry.files])


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
            shares = loader.shares
            for name, part, steps in zip(plan.parts("train"), loader.parts, shares, strict=True):
                begin = f"{plan.datasets[name].full_name}:" if len(shares) > 1 else "1 epoch ="
                yield f"train: {begin} {_unit(part)} in batches of {batch} = {steps:,} steps"
            if len(shares) > 1:
                yield f"train: 1 epoch = {loader.steps_per_epoch:,} steps, each from one of {len(shares)} data sets"
        else:
            yield f"{split}: {loader.num_samples:,} samples"


def _unit(part: SampleReader) -> str:
    """What an epoch of a data set is: so many videos with so many of their texts, or so many captions."""
    num_texts = part.index.num_texts
    if part.by_caption:
        return f"{len(part):,} captions of {len(part.index):,} videos"
    if num_texts <= len(part.index):
        return f"{len(part):,} samples"
    mean = num_texts / len(part.index)
    return f"{len(part):,} videos x {part.num_texts} of {mean:.3g} captions"
