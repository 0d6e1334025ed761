"""From a block ``{type, params}`` to a checked plan, and from a plan to the component.

The constructor's signature is the schema: parameter names, types and defaults are what the config may say. A parameter
annotated with one of our contracts (``FrameReader``, ``ContrastiveLoss``, ...) is a block of its own.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from antmmf import contracts
from antmmf.config.layers import Layers
from antmmf.config.reader import Path_, dotted
from antmmf.config.schema import Block
from antmmf.errors import AntmmfError, ComponentError, PluginError, Problem, did_you_mean
from antmmf.registry import Component, Registry, singular

PROVIDED = {"vision", "text", "fusion", "assets"}
"""Constructor parameters that the run fills; a config may not."""

NESTED: dict[type, str] = {
    contracts.FrameReader: "readers",
    contracts.Sampler: "samplers",
    contracts.Transform: "transforms",
    contracts.ContrastiveLoss: "losses",
    contracts.Metric: "metrics",
}


@dataclass(frozen=True)
class Plan:
    """A component with checked parameters; nothing is built yet. ``children`` are its nested blocks."""

    path: Path_
    component: Component | None
    full_name: str
    target: Callable[..., Any]
    params: Mapping[str, Any]
    saved: Mapping[str, Any]
    children: Mapping[str, Plan] = field(default_factory=dict)

    @property
    def takes(self) -> frozenset[str]:
        """Which of the ``PROVIDED`` parameters the constructor has."""
        return frozenset(PROVIDED & set(inspect.signature(self.target).parameters))

    def block(self) -> dict[str, Any]:
        """The block with every default filled in, as it is saved with the run."""
        nested = {name: child.block() for name, child in self.children.items()}
        return {"type": self.full_name, "params": {**self.saved, **nested}}

    def build(self, **provided: Any) -> Any:
        """Call the constructor; its own failures keep their traceback, errors raised on purpose get the config path."""
        nested = {name: child.build() for name, child in self.children.items()}
        wanted = {name: value for name, value in provided.items() if name in self.takes}
        try:
            return self.target(**self.params, **nested, **wanted)
        except AntmmfError as error:
            raise type(error)(f"{dotted(self.path)}: {error}") if self.path else error from error


class Planner:
    """Plans blocks one by one and collects every problem, so that all are reported at once."""

    def __init__(self, registry: Registry, layers: Layers, *, resolve: Callable[[str, str], Any] | None = None) -> None:
        self.registry = registry
        self.layers = layers
        self.resolve = resolve or (lambda kind, name: None)
        self.problems: list[Problem] = []

    def problem(self, path: Path_, message: str) -> None:
        """Note what is wrong at ``path``."""
        self.problems.append(Problem(dotted(path), self.layers.where(path), message))

    def plan(self, block: Block, kind: str, path: Path_) -> Plan | None:
        """The checked plan of a block, or None after noting its problems."""
        found = self._find(block.type, kind, path)
        if found is None:
            return None
        component, target, full_name = found
        try:
            model, nested = signature_model(target)
        except ComponentError as error:
            self.problem((*path, "type"), f"{full_name}: {error}")
            return None
        given = dict(block.params)
        children = self._children(given, nested, path)
        try:
            checked = model.__pydantic_validator__.validate_json(json.dumps(given), strict=True)
        except ValidationError as error:
            for entry in error.errors(include_url=False):
                self._explain(entry, (*path, "params"), full_name, [*model.model_fields, *nested])
            return None
        except (TypeError, ValueError) as error:
            self.problem((*path, "params"), f"must be plain YAML values: {error}")
            return None
        if children is None:
            return None
        params = {name: getattr(checked, name) for name in model.model_fields}
        return Plan(path, component, full_name, target, params, checked.model_dump(mode="json"), children)

    def _find(self, name: str, kind: str, path: Path_) -> tuple[Component | None, Callable[..., Any], str] | None:
        where = (*path, "type")
        try:
            component = self.registry.find(kind, name)
            if component is not None:
                return component, component.load(), component.full_name
            resolved = self.resolve(kind, name)
            if resolved is not None:
                return None, resolved, name
            self.problem(where, self.registry.missing(kind, name))
        except (ComponentError, PluginError) as error:
            self.problem(where, str(error))
        return None

    def _children(
        self, given: dict[str, Any], nested: Mapping[str, tuple[str, Any]], path: Path_
    ) -> dict[str, Plan] | None:
        children: dict[str, Plan] = {}
        whole = True
        for name, (kind, default) in nested.items():
            value = given.pop(name, default)
            where = (*path, "params", name)
            if value is None:
                continue
            if value is inspect.Parameter.empty:
                self.problem((*path, "params"), f"needs {name!r}, the name of a {singular(kind)}")
                whole = False
                continue
            try:
                block = Block.model_validate(value)
            except ValidationError:
                self.problem(where, f"must be the name of a {singular(kind)} or {{type, params}}, is {value!r}")
                whole = False
                continue
            child = self.plan(block, kind, where)
            whole = whole and child is not None
            if child is not None:
                children[name] = child
        return children if whole else None

    def _explain(self, entry: Any, at: Path_, name: str, known: list[str]) -> None:
        location = tuple(entry["loc"])
        if entry["type"] == "extra_forbidden" and len(location) == 1:
            key = str(location[0])
            if key in PROVIDED:
                self.problem((*at, key), f"is filled in from model_attributes and must not stand in params of {name}")
                return
            hint = did_you_mean(key, known) or (f"; it takes: {', '.join(known)}" if known else "; it takes none")
            self.problem((*at, key), f"is not a parameter of {name}{hint}")
        elif entry["type"] == "missing":
            self.problem(at, f"{name} needs the parameter {location[0]!r}")
        else:
            self.problem((*at, *location[:1]), explain(entry))


def explain(entry: Any) -> str:
    """A pydantic error in our words: what must hold, and what is there."""
    message = str(entry["msg"]).replace("Input should be", "must be").replace("Value error, ", "")
    message = message[:1].lower() + message[1:]
    return f"{message}, is {entry['input']!r}"


def signature_model(target: Callable[..., Any]) -> tuple[type[BaseModel], dict[str, tuple[str, Any]]]:
    """The pydantic model of a constructor's parameters, and its nested blocks: name -> (kind, default).

    Raises ``ComponentError`` for a constructor that cannot be a schema.
    """
    function = target.__init__ if isinstance(target, type) else target
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        raise ComponentError(f"its annotations cannot be read: {error}; import them at run time") from error
    fields: dict[str, Any] = {}
    nested: dict[str, tuple[str, Any]] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if name in PROVIDED:
            continue
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise ComponentError(f"its constructor's parameter {name!r} must be keyword-only")
        hint = hints.get(name, Any)
        kind = _nested_kind(hint)
        if kind is not None:
            nested[name] = (kind, parameter.default)
        else:
            required = parameter.default is inspect.Parameter.empty
            fields[name] = (hint, Field(...) if required else Field(default=parameter.default, validate_default=False))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
    try:
        return create_model(getattr(target, "__name__", "Params"), __config__=config, **fields), nested
    except Exception as error:
        raise ComponentError(f"its constructor cannot be a config schema: {error}") from error


def _nested_kind(hint: Any) -> str | None:
    if hint in NESTED:
        return NESTED[hint]
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next((NESTED[part] for part in typing.get_args(hint) if part in NESTED), None)
    return None
