"""From a config file and arguments to a checked plan of the whole run; nothing is built, no torch is needed.

Every problem is collected: one ``ConfigError`` carries all of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy
from pydantic import ValidationError

from antmmf.bind import Plan, Planner, explain
from antmmf.config.layers import Layers, apply_arguments, load
from antmmf.config.reader import Path_
from antmmf.config.schema import BLOCKS, Block, RunConfig, Section, known_keys
from antmmf.errors import ComponentError, ConfigError, PluginError, did_you_mean
from antmmf.plugins import Broken, apply_defaults, load_plugins
from antmmf.recipes import find_config
from antmmf.registry import Registry, singular

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class RunPlan:
    """A run that can be built: the checked config, a plan for every component, and where each value came from."""

    name: str
    config: RunConfig
    resolved: dict[str, Any]
    layers: Layers
    task: Plan
    encoders: dict[str, Plan]
    datasets: dict[str, Plan]
    inputs: dict[str, Plan]
    optimizer: Plan
    schedule: Plan
    metrics: tuple[Plan, ...]
    callbacks: tuple[Plan, ...]
    registry: Registry
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


def load_layers(source: str, arguments: Sequence[str], registry: Registry) -> tuple[str, Layers]:
    """The config's name and its layers, with the arguments laid over it; raises ``ConfigError``."""
    name, path = find_config(source, registry)
    layers = load(path)
    apply_arguments(layers, arguments, known=list(known_keys()))
    return name, layers


def plan_run(source: str, arguments: Sequence[str] = (), *, registry: Registry, data: Path | None = None) -> RunPlan:
    """Plan a run; ``data`` replaces the data sets by the captioned videos of a folder. Raises ``ConfigError``."""
    name, path = find_config(source, registry)
    layers = load(path)
    if data is not None:
        _use_folder(layers, data)
    apply_arguments(layers, arguments, known=list(known_keys()))
    required = (layers.tree.get("plugins") or {}).get("required") or []
    hooks, broken = load_plugins(registry, required=required if isinstance(required, list) else [])
    for plugin, key, value in apply_defaults(hooks, layers.tree):
        layers.fill(tuple(key.split(".")), value, f"default of plugin {plugin}")
    planner = Planner(registry, layers, resolve=lambda kind, wanted: hooks.hook.antmmf_resolve(kind=kind, name=wanted))
    config = _validate(layers, planner)
    plans = _plan_blocks(config, planner) if config else {}
    if config:
        _cross_check(config, plans, planner)
    if planner.problems or config is None:
        raise ConfigError(planner.problems)
    inputs = "input_attributes."
    return RunPlan(
        name=name,
        config=config,
        resolved=resolve(config, plans),
        layers=layers,
        task=plans["task_attributes"],
        encoders={k: plans[f"model_attributes.{k}"] for k in ENCODERS.values() if f"model_attributes.{k}" in plans},
        datasets={s: plans[f"dataset_attributes.{s}.0"] for s in SPLITS if f"dataset_attributes.{s}.0" in plans},
        inputs={key.removeprefix(inputs): plan for key, plan in plans.items() if key.startswith(inputs)},
        optimizer=plans["optimizer_attributes"],
        schedule=plans["training_parameters.lr_scheduler"],
        metrics=tuple(plan for key, plan in plans.items() if key.startswith("metrics.")),
        callbacks=tuple(plan for key, plan in plans.items() if key.startswith("callbacks.")),
        registry=registry,
        hooks=hooks,
        broken=tuple(broken),
    )


ENCODERS = {"vision": "vision_encoder", "text": "text_encoder", "fusion": "fusion_encoder"}
"""Constructor parameter of a task -> its block in ``model_attributes``."""


def _use_folder(layers: Layers, folder: Path) -> None:
    """Replace the data sets by ``captions`` on a user's own folder."""
    if not folder.is_dir():
        raise ConfigError(
            f"--data {folder}: must be a folder of videos with captions.jsonl, .csv or .tsv; there is none"
        )
    for split in SPLITS:
        params = {"data_root_dir": str(folder.resolve()), "split": split}
        layers.merge(
            {"dataset_attributes": {split: [{"type": "antmmf-tasks:captions", "params": params}]}},
            {("dataset_attributes", split): f"--data {folder}"},
        )


def _validate(layers: Layers, planner: Planner) -> RunConfig | None:
    """The config as pydantic models; notes every problem."""
    try:
        return RunConfig.model_validate_json(json.dumps(layers.tree), strict=True)
    except ValidationError as error:
        for entry in error.errors(include_url=False):
            _note(entry, planner)
        return None


def _note(entry: Any, planner: Planner) -> None:
    path: Path_ = tuple(entry["loc"])
    if entry["type"] == "extra_forbidden":
        siblings = _fields_at(path[:-1])
        everywhere = [key for key in known_keys() if key.rpartition(".")[2] == path[-1]]
        hint = did_you_mean(str(path[-1]), siblings)
        if not hint and everywhere:
            hint = f" (did you mean {everywhere[0]!r}?)"
        planner.problem(path, f"is not a key{hint}" if hint else f"is not a key; there are: {', '.join(siblings)}")
    elif entry["type"] == "missing":
        planner.problem(
            path, "is missing" if len(path) > 1 else f"must be given: {RunConfig.model_fields[path[0]].description}"
        )
    elif entry["type"] in ("model_type", "model_attributes_type", "dict_type"):
        planner.problem(path, f"must be a mapping of keys, is {entry['input']!r}")
    else:
        planner.problem(path, explain(entry))


def _fields_at(path: Path_) -> list[str]:
    model: Any = RunConfig
    for part in path:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        inner = [
            a
            for a in (annotation, *getattr(annotation, "__args__", ()))
            if isinstance(a, type) and issubclass(a, Section)
        ]
        model = inner[0] if inner else Block
    return list(model.model_fields)


def _plan_blocks(config: RunConfig, planner: Planner) -> dict[str, Plan]:
    """Dotted path -> plan, for every block that could be planned."""
    plans: dict[str, Plan] = {}
    for key, kind in BLOCKS.items():
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        blocks = {f"{key}.{i}": block for i, block in enumerate(value)} if isinstance(value, list) else {key: value}
        for path, block in blocks.items():
            parts = tuple(int(part) if part.isdigit() else part for part in path.split("."))
            plan = planner.plan(block, kind, parts) if block is not None else None
            if plan is not None:
                plans[path] = plan
    return plans


def _cross_check(config: RunConfig, plans: dict[str, Plan], planner: Planner) -> None:
    """What no single value can tell: things that must fit together."""
    train = config.training_parameters
    at = ("training_parameters",)
    if train.batch_size % train.gradient_accumulation_steps:
        message = f"must divide batch_size {train.batch_size}, is {train.gradient_accumulation_steps}"
        planner.problem((*at, "gradient_accumulation_steps"), message)
    if "train" in train.run_type:
        if not config.dataset_attributes.train:
            planner.problem(("dataset_attributes", "train"), f"must name a data set for run_type {train.run_type!r}")
        if train.max_iterations is None and train.max_epochs is None:
            planner.problem((*at, "max_iterations"), "or max_epochs must say how long to train")
        if train.monitored_metric and not config.dataset_attributes.val:
            planner.problem((*at, "monitored_metric"), "needs dataset_attributes.val, which is empty")
    else:
        if not (config.dataset_attributes.val or config.dataset_attributes.test):
            planner.problem(("dataset_attributes",), "run_type 'val' needs a val or test data set; both are empty")
        if not train.resume_file:
            planner.problem((*at, "run_type"), "'val' needs weights: set training_parameters.resume_file")
    if train.restart and not train.resume_file:
        planner.problem((*at, "restart"), "needs resume_file, whose weights it takes; resume_file is empty")
    if train.patience and not train.monitored_metric:
        planner.problem((*at, "patience"), "needs monitored_metric; it is empty")
    if (config.dataset_attributes.val or config.dataset_attributes.test) and not config.metrics:
        planner.problem(("metrics",), "must name what to measure on val and test, is empty")
    task = plans.get("task_attributes")
    if task is not None:
        _check_encoders(config, task, planner)


def _check_encoders(config: RunConfig, task: Plan, planner: Planner) -> None:
    """The task must get every encoder it needs, and may not leave one unused."""
    import inspect

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
        node[last] = plan.block()
    return values


def show_component(registry: Registry, kind: str, name: str) -> Plan:
    """A plan with defaults only, for ``antmmf show``; raises ``ComponentError``."""
    from antmmf.bind import signature_model

    component = registry.find(kind, name)
    if component is None:
        raise ComponentError(registry.missing(kind, name))
    target = component.load()
    try:
        signature_model(target)
    except ComponentError as error:
        raise PluginError(f"{component}: {singular(kind)} breaks its contract: {error}") from error
    return Plan((), component, component.full_name, target, {}, {})
