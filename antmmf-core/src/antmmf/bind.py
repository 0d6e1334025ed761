"""From a block ``{type, params}`` to a checked plan, and from a plan to the component.

The constructor's signature is the schema: parameter names, types and defaults are what the config may say. A parameter
annotated with one of our contracts (``FrameReader``, ``ContrastiveLoss``, ...) is a block of its own.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from antmmf import contracts
from antmmf.config.faults import Fault, faults, shown
from antmmf.config.faults import explain as explain
from antmmf.config.layers import Layers
from antmmf.config.reader import Path_, dotted
from antmmf.config.schema import Block
from antmmf.errors import AntmmfError, ComponentError, ConfigError, Problem, did_you_mean
from antmmf.registry import Component, Registry, singular

PROVIDED = {"vision", "text", "fusion", "assets"}
"""Constructor parameters that the run fills, of tasks (all of them) and encoders (``assets``); a config may not."""

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
    where: str
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
        with self.blamed():
            return self.target(**self.params, **nested, **wanted)

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Say where the component stands in the config, of errors raised on purpose."""
        try:
            yield
        except AntmmfError as error:
            problem = Problem(dotted(self.path), self.where, str(error))
            raise (ConfigError(problem) if isinstance(error, ConfigError) else type(error)(str(problem))) from error


class Planner:
    """Plans blocks one by one and collects every problem, so that all are reported at once."""

    def __init__(self, registry: Registry, layers: Layers, *, resolve: Callable[[str, str], Any] | None = None) -> None:
        self.registry = registry
        self.layers = layers
        self.resolve = resolve or (lambda _kind, _name: None)
        self.problems: list[Problem] = list(layers.problems)
        self.shared: dict[str, dict[str, Any]] = {}  # section -> parameters that its blocks have in common

    def problem(self, path: Path_, message: str) -> None:
        """Note what is wrong at ``path``; a problem known there, or above it, is the cause of this one."""
        causes = {dotted(path[:end]) for end in range(1, len(path) + 1)}
        if not any(known.path in causes for known in self.problems):
            self.problems.append(Problem(dotted(path), self.layers.where(path), message))

    def plan(self, block: Block, kind: str, path: Path_) -> Plan | None:
        """The checked plan of a block, or None after noting its problems."""
        found = self._find(block.type, kind, path)
        if found is None:
            return None
        component, target, full_name = found
        try:
            model, nested = signature_model(target)
            _check_provided(target, kind)
        except ComponentError as error:
            self.problem((*path, "type"), f"{full_name}: {error}")
            return None
        shared = self.shared.get(str(path[0]), {})
        given = {**{name: value for name, value in shared.items() if name in model.model_fields}, **block.params}
        children = self._children(given, nested, path, full_name)
        try:
            checked = model.__pydantic_validator__.validate_json(json.dumps(given), strict=True)
        except ValidationError as error:
            for fault in faults(error, given):
                self._note(fault, (*path, "params"), full_name, _keys(model, fault.path[:-1], nested))
            return None
        if children is None:
            return None
        params = {name: getattr(checked, name) for name in model.model_fields}
        saved = checked.model_dump(mode="json", warnings=False)
        return Plan(path, self.layers.where((*path, "type")), component, full_name, target, params, saved, children)

    def _find(self, name: str, kind: str, path: Path_) -> tuple[Component | None, Callable[..., Any], str] | None:
        where = (*path, "type")
        try:
            component = self.registry.find(kind, name)
            if component is not None:
                return component, component.load(), component.full_name
            resolved = self.resolve(kind, name)
            if callable(resolved):
                return None, resolved, name
            hook = f"; a hook answers with {shown(resolved)}, which cannot be called" if resolved is not None else ""
            self.problem(where, self.registry.missing(kind, name) + hook)
        except AntmmfError as error:
            self.problem(where, str(error))
        return None

    def _children(
        self, given: dict[str, Any], nested: Mapping[str, tuple[str, Any]], path: Path_, owner: str
    ) -> dict[str, Plan] | None:
        """Take the nested blocks out of ``given`` and plan them; None after noting problems."""
        children: dict[str, Plan | None] = {}
        for name, (kind, default) in nested.items():
            value = given.pop(name, default)
            where = (*path, "params", name)
            if value is inspect.Parameter.empty:
                self.problem(where, f"must be given: {owner} needs the name of a {singular(kind)}")
                children[name] = None
            elif value is not None:
                children[name] = self._child(value, kind, where)
        whole = {name: child for name, child in children.items() if child is not None}
        return whole if len(whole) == len(children) else None

    def _child(self, value: Any, kind: str, path: Path_) -> Plan | None:
        try:
            return self.plan(Block.model_validate(value), kind, path)
        except ValidationError:
            wanted = f"the name of a {singular(kind)}, or a mapping of type and params"
            self.problem(path, f"must be {wanted}, is {shown(value)}")
            return None

    def _note(self, fault: Fault, at: Path_, name: str, known: list[str] | None) -> None:
        path = (*at, *fault.path)
        if fault.kind == "extra_forbidden" and known is not None:
            key = str(fault.path[-1])
            hint = did_you_mean(key, known) or (f"; it takes: {', '.join(known)}" if known else "; it takes none")
            if key in PROVIDED and len(fault.path) == 1:
                hint = ": the run fills it from model_attributes" if key != "assets" else ": the run fills it"
            self.problem(path, f"is not a parameter of {name}{hint}")
        elif fault.kind == "missing" and len(fault.path) == 1:
            self.problem(path, f"must be given: {name} needs it")
        else:
            self.problem(path, fault.message)


def _keys(model: type[BaseModel], path: Path_, blocks: Iterable[str]) -> list[str] | None:
    """The keys that a component takes at ``path`` of its params; None where no group of settings stands."""
    for part in path:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field is not None else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        model = annotation
    return [*model.model_fields, *(() if path else blocks)]


def _check_provided(target: Callable[..., Any], kind: str) -> None:
    """Only a task may have a parameter ``vision``: the run would fill nobody else's."""
    filled = PROVIDED if kind == "tasks" else {"assets"} if kind.endswith("_encoders") else set()
    for name in inspect.signature(target).parameters:
        if name in PROVIDED - filled:
            raise ComponentError(
                f"its constructor's parameter {name!r} must be called otherwise: a run fills it for tasks"
            )


def signature_model(target: Callable[..., Any]) -> tuple[type[BaseModel], dict[str, tuple[str, Any]]]:
    """The pydantic model of a constructor's parameters, and its nested blocks: name -> (kind, default).

    Raises ``ComponentError`` for a constructor that cannot be a schema.
    """
    try:
        parameters = inspect.signature(target).parameters
        constructor = getattr(target, "__init__") if isinstance(target, type) else target  # noqa: B009
        hints = typing.get_type_hints(constructor, include_extras=True)
    except Exception as error:
        raise ComponentError(f"its annotations cannot be read: {error}; import them at run time") from error
    fields: dict[str, Any] = {}
    nested: dict[str, tuple[str, Any]] = {}
    for name, parameter in parameters.items():
        if name in PROVIDED:
            continue
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise ComponentError(f"its constructor's parameter {name!r} must be keyword-only")
        if name not in hints:
            raise ComponentError(f"its constructor's parameter {name!r} must have a type")
        kind = _nested_kind(hints[name])
        if kind is not None:
            nested[name] = (kind, parameter.default)
        else:
            _check_readable(name, hints[name])
            required = parameter.default is inspect.Parameter.empty
            fields[name] = (hints[name], Field() if required else Field(default=parameter.default))
    config = ConfigDict(extra="forbid", protected_namespaces=())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a parameter may be called like a method of BaseModel
            return create_model(getattr(target, "__name__", "Params"), __config__=config, **fields), nested
    except Exception as error:
        text = " ".join(str(error).split())
        raise ComponentError(f"its constructor cannot be a config schema: {text}") from error


def _check_readable(name: str, hint: Any) -> None:
    try:
        TypeAdapter(hint)
    except Exception as error:
        message = f"its constructor's parameter {name!r} must have a type that YAML can give, is {hint!r}"
        raise ComponentError(message) from error


def _nested_kind(hint: Any) -> str | None:
    """The kind of component that ``hint`` asks for, also as ``Contract | str`` or ``Contract | None``."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) in (typing.Union, typing.Annotated):
        return next(filter(None, map(_nested_kind, typing.get_args(hint))), None)
    return next((kind for contract, kind in NESTED.items() if hint is contract), None)
