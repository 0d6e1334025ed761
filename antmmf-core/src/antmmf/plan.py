"""From a config file and arguments to a checked plan of the whole run; nothing is built, no torch is needed.

Every problem is collected: one ``ConfigError`` carries all of them.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy
from pydantic import BaseModel, ValidationError

from antmmf.bind import Plan, Planner
from antmmf.config.faults import Fault, faults
from antmmf.config.layers import Layers, load
from antmmf.config.overrides import apply_arguments
from antmmf.config.reader import Path_, dotted
from antmmf.config.schema import BLOCKS, Block, RunConfig, TrainBlock, known_keys, section_of
from antmmf.errors import ConfigError, PluginError, Problem, did_you_mean
from antmmf.plugins import Broken, apply_defaults, load_plugins
from antmmf.recipes import find_config
from antmmf.registry import Component, Registry

SPLITS = ("train", "val", "test")
NO_FP16 = "must not be fp16 with distributed fsdp2: loss scaling needs whole gradients; use bf16, or ddp"


@dataclass(frozen=True)
class DataPlan:
    """Data that can be read: the data sets of the splits and what turns their files into frames."""

    name: str
    config: RunConfig
    layers: Layers
    datasets: dict[str, Plan]
    inputs: dict[str, Plan]
    registry: Registry

    def parts(self, split: str) -> list[str]:
        """What the data sets of a split are called in ``datasets``: of several, ``train``, ``train.1`` and so on."""
        return [name for name in self.datasets if name.partition(".")[0] == split]

    def train_block(self, name: str) -> TrainBlock:
        """What the config says of a data set to train on beside its parameters."""
        return self.config.dataset_attributes.train[int(name.partition(".")[2] or 0)]


@dataclass(frozen=True)
class RunPlan(DataPlan):
    """A run that can be built: the checked config, a plan for every component, and where each value came from."""

    resolved: dict[str, Any]
    task: Plan
    encoders: dict[str, Plan]
    optimizer: Plan
    schedule: Plan
    metrics: tuple[Plan, ...]
    callbacks: tuple[Plan, ...]
    hooks: pluggy.PluginManager
    broken: tuple[Broken, ...]

    def components(self) -> list[Plan]:
        """Every plan of the run, nested ones too."""
        top = [self.task, *self.encoders.values(), *self.datasets.values(), *self.inputs.values(), self.optimizer]
        todo, found = [*top, self.schedule, *self.metrics, *self.callbacks], []
        while todo:
            plan = todo.pop(0)
            found.append(plan)
            todo += plan.children.values()
        return found


def plan_run(source: str, arguments: Sequence[str] = (), *, registry: Registry, data: Path | None = None) -> RunPlan:
    """Plan a run; ``data`` replaces the data sets by the captioned videos of a folder. Raises ``ConfigError``."""
    name, path = find_config(source, registry)
    layers = load(path)
    if data is not None:
        _use_folder(layers, data)
    try:
        apply_arguments(layers, arguments, known=list(known_keys()))
    except ConfigError as error:  # the sound arguments are laid over the tree all the same
        layers.problems[:] = error.problems
    hooks, broken = _load_plugins(layers, registry)
    planner = Planner(registry, layers, resolve=lambda kind, wanted: hooks.hook.antmmf_resolve(kind=kind, name=wanted))
    _fill_types(layers)
    config, is_sound = _validate(layers, planner)
    plans = _plan_blocks(config, planner) if config else {}
    if config and is_sound:
        _cross_check(config, plans, planner)
    if planner.problems or config is None:
        raise ConfigError(planner.problems)
    return RunPlan(
        **_data_plans(plans),
        name=name,
        config=config,
        resolved=resolve(config, plans),
        layers=layers,
        task=plans["task_attributes"],
        encoders={k: plans[f"model_attributes.{k}"] for k in ENCODERS.values() if f"model_attributes.{k}" in plans},
        optimizer=plans["optimizer_attributes"],
        schedule=plans["training_parameters.lr_scheduler"],
        metrics=tuple(plan for key, plan in plans.items() if key.startswith("metrics.")),
        callbacks=tuple(plan for key, plan in plans.items() if key.startswith("callbacks.")),
        registry=registry,
        hooks=hooks,
        broken=tuple(broken),
    )


def plan_data(source: str, arguments: Sequence[str] = (), *, registry: Registry) -> DataPlan:
    """Plan the data of a run; ``source`` may also be a data set's name, whose parameters the arguments then set.

    All splits that its constructor knows are planned, unless the arguments name one. Raises ``ConfigError``.
    """
    component = registry.find("datasets", source)
    if component is None or Path(source).is_file():
        return plan_run(source, arguments, registry=registry)
    sections = tuple(f"{name}." for name in RunConfig.model_fields)
    own = [text for text in arguments if "=" in text and not text.startswith(sections)]
    datasets = {
        split: [{"type": source, "params": {"split": split} if is_said else {}}]
        for split, is_said in _known_splits(component, own).items()
    }
    layers = Layers(tree={"dataset_attributes": datasets, "task_attributes": "none"})
    given = [f"dataset_attributes.{split}.0.params.{text}" for split in datasets for text in own]
    apply_arguments(layers, [text for text in arguments if text not in own] + given, known=list(known_keys()))
    hooks, _ = _load_plugins(layers, registry)
    planner = Planner(registry, layers, resolve=lambda kind, wanted: hooks.hook.antmmf_resolve(kind=kind, name=wanted))
    _fill_types(layers)
    config, _ = _validate(layers, planner)
    plans = _plan_blocks(config, planner, only=("dataset_attributes", "input_attributes")) if config else {}
    if planner.problems or config is None:
        said = {problem.message: problem for problem in reversed(planner.problems)}  # not again for each split
        raise ConfigError(list(reversed(said.values())))
    return DataPlan(**_data_plans(plans), name=source, config=config, layers=layers, registry=registry)


def _known_splits(component: Component, arguments: Sequence[str]) -> dict[str, bool]:
    """The splits of a data set, each with whether its constructor must be told; one that has none counts as test."""
    for text in arguments:
        if text.startswith("split="):
            split = text.removeprefix("split=")
            return {split if split in SPLITS else "test": False}
    try:
        constructor = component.load()
        parameter = inspect.signature(constructor).parameters.get("split")
        hints = typing.get_type_hints(getattr(constructor, "__init__", constructor))
    except Exception:  # planning it says what is wrong
        return {"test": False}
    known = [split for split in SPLITS if split in typing.get_args(hints.get("split"))]
    is_needed = parameter is not None and parameter.default is inspect.Parameter.empty
    return dict.fromkeys(known, True) if known and is_needed else {"test": False}


def _data_plans(plans: dict[str, Plan]) -> dict[str, Any]:
    inputs = "input_attributes."
    return {
        "datasets": {name: plans[key] for key, name in _dataset_names(plans)},
        "inputs": {key.removeprefix(inputs): plan for key, plan in plans.items() if key.startswith(inputs)}
        | {
            f"sampler.{name}": plans[f"{key}.sampler"]
            for key, name in _dataset_names(plans)
            if f"{key}.sampler" in plans
        },
    }


def _dataset_names(plans: dict[str, Plan]) -> Iterator[tuple[str, str]]:
    """Key of each planned data set and what it is called: its split; of several, from the second on with a number."""
    for split in SPLITS:
        for number in range(sum(key.startswith(f"dataset_attributes.{split}.") for key in plans)):
            key = f"dataset_attributes.{split}.{number}"
            if key in plans:
                yield key, f"{split}.{number}" if number else split


SHARED = {"model_attributes": "weights_dir", "dataset_attributes": "data_root_dir"}
"""Section -> a key of it that stands for the same parameter in all its blocks."""

ENCODERS = {"vision": "vision_encoder", "text": "text_encoder", "fusion": "fusion_encoder"}
"""Constructor parameter of a task -> its block in ``model_attributes``."""


def _use_folder(layers: Layers, folder: Path) -> None:
    """Replace the data sets by ``captions`` on a user's own folder."""
    if not folder.is_dir():
        raise ConfigError(
            f"--data {folder}: must be a folder of videos with captions.jsonl, .csv or .tsv; there is none"
        )
    params = {"data_root_dir": str(folder.resolve())}
    captions = {s: [{"type": "antmmf-tasks:captions", "params": {**params, "split": s}}] for s in SPLITS}
    path = ("dataset_attributes",)
    layers.lay(path, captions, {path: f"--data {folder}"})


def _load_plugins(layers: Layers, registry: Registry) -> tuple[pluggy.PluginManager, list[Broken]]:
    """The hooks of this run, whose defaults then fill what nobody wrote."""
    path = ("plugins", "required")
    given = layers.tree.get("plugins")
    names = given.get("required") if isinstance(given, dict) else None
    names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    try:
        hooks, broken = load_plugins(registry, required=names)
    except PluginError as error:
        key, _, reason = str(error).partition(": ")
        if key != dotted(path):
            raise
        layers.problems.append(Problem(key, layers.where(path), reason))
        hooks, broken = load_plugins(registry)
    for plugin, key, value in apply_defaults(hooks, deepcopy(layers.tree)):
        if not _is_plain(value):
            raise PluginError(f"{plugin}: antmmf_config_defaults must give plain values, {key} is {value!r}")
        layers.fill(tuple(key.split(".")), value, f"default of plugin {plugin}")
    return hooks, broken


def _is_plain(value: object) -> bool:
    """Whether a value could have come from YAML."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(child) for key, child in value.items())
    if isinstance(value, list):
        return all(_is_plain(child) for child in value)
    return value is None or isinstance(value, (str, int, float))


def _fill_types(layers: Layers) -> None:
    """A block that has only ``params`` means the component that is the default there."""
    for key in BLOCKS:
        *section, name = key.split(".")
        default = _model_at(tuple(section)).model_fields[name].default
        parent = layers.tree if not section else layers.tree.get(section[0])
        if isinstance(default, Block) and isinstance(parent, dict) and isinstance(parent.get(name), dict):
            layers.fill((*section, name, "type"), default.type, "default")


def _validate(layers: Layers, planner: Planner) -> tuple[RunConfig | None, bool]:
    """The config as pydantic models, and whether it was sound; what is not is noted and left out."""
    tree = deepcopy(layers.tree)
    try:
        return RunConfig.model_validate_json(json.dumps(tree), strict=True), True
    except ValidationError as error:
        found = list(faults(error, tree))
    for fault in found:
        _note(fault, planner)
    for fault in found:
        _leave_out(tree, fault)
    tree.setdefault("task_attributes", "not given")  # so that the rest can be looked at
    try:
        return RunConfig.model_validate_json(json.dumps(tree), strict=True), False
    except ValidationError:
        return None, False


def _leave_out(tree: dict[str, Any], fault: Fault) -> None:
    """Remove what is at fault; of a list all, of a block that lacks something the block."""
    path = fault.path[:-1] if fault.kind == "missing" else fault.path
    path = path[: next((index for index, part in enumerate(path) if isinstance(part, int)), len(path))]
    for part in path[:-1]:
        tree = tree.get(str(part), {})
    tree.pop(str(path[-1]) if path else "", None)


def _note(fault: Fault, planner: Planner) -> None:
    path, message = fault.path, fault.message
    if fault.kind == "extra_forbidden":
        siblings = list(_model_at(path[:-1]).model_fields)
        everywhere = [key for key in known_keys() if key.rpartition(".")[2] == path[-1]]
        hint = did_you_mean(str(path[-1]), siblings)
        if not hint and everywhere:
            hint = f" (did you mean {everywhere[0]!r}?)"
        message = f"is not a key{hint or '; there are: ' + ', '.join(siblings)}"
    elif fault.kind == "missing":
        message = f"must be given: {_model_at(path[:-1]).model_fields[str(path[-1])].description}"
    elif fault.kind == "model_type" and _model_at(path) is Block:
        message = message.replace("a mapping of keys", "a component's name, or a mapping of type and params")
    planner.problem(path, message)


def _model_at(path: Path_) -> type[BaseModel]:
    """The section or block that ``path`` leads to."""
    model: type[BaseModel] = RunConfig
    for part in path:
        if isinstance(part, str):
            model = section_of(model.model_fields[part].annotation) or Block
    return model


def _plan_blocks(config: RunConfig, planner: Planner, *, only: tuple[str, ...] = ("",)) -> dict[str, Plan]:
    """Dotted path -> plan, for every block that could be planned, of those whose path begins with one of ``only``."""
    plans: dict[str, Plan] = {}
    for section, name in SHARED.items():
        common = getattr(getattr(config, section), name)
        planner.shared[section] = {} if common is None else {name: common}
    for key, kind in BLOCKS.items():
        if not key.startswith(only):
            continue
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        blocks = {f"{key}.{i}": block for i, block in enumerate(value)} if isinstance(value, list) else {key: value}
        for path, block in blocks.items():
            parts = tuple(int(part) if part.isdigit() else part for part in path.split("."))
            plan = planner.plan(block, kind, parts) if block is not None else None
            if plan is not None:
                plans[path] = plan
            sampler = block.sampler if isinstance(block, TrainBlock) else None
            picks = planner.plan(sampler, "samplers", (*parts, "sampler")) if sampler is not None else None
            if picks is not None:
                plans[f"{path}.sampler"] = picks
    for section, name in SHARED.items():
        taken = any(name in plan.params for key, plan in plans.items() if key.startswith(section))
        if planner.shared[section] and not taken and not planner.problems and section.startswith(only):
            planner.problem((section, name), f"is of no use: nothing in {section} has a {name}")
    return plans


def _cross_check(config: RunConfig, plans: dict[str, Plan], planner: Planner) -> None:
    """What no single value can tell: things that must fit together."""
    train = config.training_parameters
    at = ("training_parameters",)
    if train.gradient_accumulation_steps > train.batch_size:
        message = f"must be at most batch_size {train.batch_size}, is {train.gradient_accumulation_steps}"
        planner.problem((*at, "gradient_accumulation_steps"), message)
    if train.micro_batch_size is not None and train.gradient_accumulation_steps > 1:
        message = "and gradient_accumulation_steps say the same; give one of them"
        planner.problem((*at, "micro_batch_size"), message)
    if train.distributed == "fsdp2" and train.micro_batch_size == "auto":
        message = "must be a number with distributed fsdp2, is auto; processes that share weights cannot try alone"
        planner.problem((*at, "micro_batch_size"), message)
    if train.distributed == "fsdp2" and train.enable_amp == "fp16":
        planner.problem((*at, "enable_amp"), NO_FP16)
    if "train" in train.run_type.split("+"):
        if not config.dataset_attributes.train:
            planner.problem(("dataset_attributes", "train"), f"must name a data set for run_type {train.run_type!r}")
        weights = [block.weight for block in config.dataset_attributes.train]
        if None in weights and any(weights):
            message = "must be given for all data sets to train on, or for none: some have one and some do not"
            planner.problem(("dataset_attributes", "train", weights.index(None), "weight"), message)
        if train.max_iterations is None and train.max_epochs is None:
            planner.problem((*at, "max_iterations"), "must be given, or max_epochs: they say how long to train")
        if train.monitored_metric and not config.dataset_attributes.val:
            planner.problem((*at, "monitored_metric"), "needs dataset_attributes.val, which is empty")
    else:
        if not (config.dataset_attributes.val or config.dataset_attributes.test):
            message = f"run_type {train.run_type!r} needs a val or test data set; both are empty"
            planner.problem(("dataset_attributes",), message)
        encoders = [plans[f"model_attributes.{key}"] for key in ENCODERS.values() if f"model_attributes.{key}" in plans]
        are_pretrained = bool(encoders) and all(plan.params.get("pretrained") for plan in encoders)
        if not train.resume_file and not are_pretrained:  # of the rest of the model: origin.check_weights
            message = f"{train.run_type!r} needs weights: set training_parameters.resume_file"
            planner.problem((*at, "run_type"), message)
    for needed in ("monitored_metric", "evaluation_interval") if train.patience else ():
        if getattr(train, needed) is None:
            planner.problem((*at, "patience"), f"needs {needed}, which is not given")
    if (config.dataset_attributes.val or config.dataset_attributes.test) and not config.metrics:
        planner.problem(("metrics",), "must name what to measure on val and test, is empty")
    task = plans.get("task_attributes")
    if task is not None:
        _check_encoders(config, task, planner)


def _check_encoders(config: RunConfig, task: Plan, planner: Planner) -> None:
    """The task must get every encoder it needs, and may not leave one unused."""
    parameters = inspect.signature(task.target).parameters
    for parameter, key in ENCODERS.items():
        given = getattr(config.model_attributes, key) is not None
        wanted = parameters.get(parameter)
        if wanted is None and given:
            planner.problem(("model_attributes", key), f"is not used by task {task.full_name!r}; remove it")
        elif wanted is not None and wanted.default is inspect.Parameter.empty and not given:
            planner.problem(("model_attributes", key), f"must be given: task {task.full_name!r} needs it")


def resolve(config: RunConfig, plans: dict[str, Plan]) -> dict[str, Any]:
    """The config with every default filled in and every component as ``distribution:name``."""
    values: dict[str, Any] = config.model_dump(mode="json")
    for path, plan in plans.items():
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        node: Any = values
        for part in parents:
            node = node[part]
        node[last] = {**(node[last] or {}), **plan.block()}
    return values
