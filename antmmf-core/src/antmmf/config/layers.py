"""Lay config sources over each other, and remember for every value which source set it and what it shadowed.

From low to high: defaults of plugins, included files (in their order), the file itself, command-line arguments (in
theirs). Mappings are merged, everything else is replaced; a block ``{type, params}`` whose ``type`` changes starts with
empty ``params``, since the old ones belong to another component.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from antmmf.config.reader import Path_, dotted, parse, read_file, scalar
from antmmf.errors import ConfigError, Problem, did_you_mean


@dataclass(frozen=True)
class Setting:
    """A value and where it was set: ``file:line``, ``argument 2 (a.b=c)``, or ``default of X``."""

    value: Any
    where: str


@dataclass
class Layers:
    """The merged ``tree`` and, for each leaf, its settings from the first to the one that won."""

    tree: dict[str, Any] = field(default_factory=dict)
    history: dict[Path_, list[Setting]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def where(self, path: Path_) -> str:
        """Where the value at ``path``, or the nearest one above it, was set; empty when it is a default."""
        while path:
            inside = [settings[-1].where for known, settings in self.history.items() if known[: len(path)] == path]
            if inside:
                return inside[0]
            path = path[:-1]
        return ""

    def merge(self, values: Mapping[str, Any], wheres: Mapping[Path_, str], *, at: Path_ = ()) -> None:
        """Lay a mapping over the tree; ``wheres`` has the place of every path of ``values``."""
        node = _descend(self.tree, at)
        _start_block_afresh(self, node, values, at)
        for key, value in values.items():
            path = (*at, key)
            if isinstance(value, Mapping) and value and isinstance(node.get(key), dict):
                self.merge(value, wheres, at=path)
            elif isinstance(value, Mapping) and value:
                if key in node:
                    self._forget(path)
                node[key] = {}
                self.merge(value, wheres, at=path)
            else:
                self.put(path, value, wheres.get(path, ""))

    def put(self, path: Path_, value: Any, where: str) -> None:
        """Set one leaf (its parent must be there)."""
        self._forget(path, keep=True)
        parent = _descend(self.tree, path[:-1])
        parent[path[-1]] = deepcopy(value)
        self.history.setdefault(path, []).append(Setting(value, where))

    def fill(self, path: Path_, value: Any, where: str) -> None:
        """Set a leaf that nobody has written; what somebody wrote is never changed."""
        node: Any = self.tree
        for part in path[:-1]:
            node = node.setdefault(part, {}) if isinstance(node, dict) else None
            if not isinstance(node, dict):
                return
        if path[-1] not in node:
            self.put(path, value, where)

    def _forget(self, path: Path_, *, keep: bool = False) -> None:
        for known in [known for known in self.history if known[: len(path)] == path and not (keep and known == path)]:
            del self.history[known]


def _descend(tree: Any, path: Path_) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _start_block_afresh(layers: Layers, node: Any, values: Mapping[str, Any], at: Path_) -> None:
    if (
        "type" in values
        and isinstance(node, dict)
        and node.get("type") not in (None, values["type"])
        and "params" in node
    ):
        layers._forget((*at, "params"))
        del node["params"]


def load(path: Path, *, layers: Layers | None = None, _parents: tuple[Path, ...] = ()) -> Layers:
    """Read a config file with its ``includes`` (relative to the including file); raises ``ConfigError``."""
    layers = Layers() if layers is None else layers
    path = path.resolve()
    if path in _parents:
        chain = " -> ".join(parent.name for parent in (*_parents, path))
        raise ConfigError(Problem("includes", f"{path}:1", f"must not include itself: {chain}"))
    document = read_file(path)
    name = _short(path)
    wheres = {place: f"{name}:{line}" for place, line in document.lines.items()}
    includes = document.values.pop("includes", [])
    if not isinstance(includes, list) or not all(isinstance(entry, str) for entry in includes):
        raise ConfigError(Problem("includes", wheres[("includes",)], f"must be a list of files, is {includes!r}"))
    for index, entry in enumerate(includes):
        included = path.parent / Path(entry).expanduser()
        if not included.is_file():
            raise ConfigError(Problem(f"includes.{index}", wheres[("includes", index)], f"there is no file {included}"))
        load(included, layers=layers, _parents=(*_parents, path))
    layers.merge(document.values, wheres)
    layers.files.append(path)
    return layers


def _short(path: Path) -> str:
    """The path as a person would write it: relative where it lies below the current folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def apply_arguments(layers: Layers, arguments: Sequence[str], *, known: Sequence[str] = ()) -> None:
    """Lay overrides over the tree: ``a.b.c=value`` or the pair ``a.b.c value``; the last one wins.

    ``known`` are the dotted keys of the schema, for "did you mean". Raises ``ConfigError`` with every problem.
    """
    problems: list[Problem] = []
    index = 0
    while index < len(arguments):
        number, argument = index + 1, arguments[index]
        key, equals, text = argument.partition("=")
        if equals:
            index += 1
        elif index + 1 < len(arguments):
            text, index = arguments[index + 1], index + 2
        else:
            what = (
                "is no option of this command"
                if argument.startswith("-")
                else "must be key=value, or a key and a value"
            )
            problems.append(Problem("", f"argument {number}", f"{argument!r} {what}"))
            break
        try:
            _override(layers, _split(key), _value(text, number), f"argument {number} ({key}={text})", known)
        except _OverrideError as error:
            problems.append(Problem(key, f"argument {number}", str(error)))
    if problems:
        raise ConfigError(problems)


class _OverrideError(Exception):
    pass


def _split(key: str) -> Path_:
    if key.startswith("-"):
        raise _OverrideError(f"must be a config key such as training_parameters.seed; no option is called {key}")
    parts = [part for part in re.sub(r"\.?\[(\d+)\]", r".\1", key).split(".")]
    if not all(parts):
        raise _OverrideError("must be names joined by dots")
    return tuple(int(part) if part.isdigit() else part for part in parts)


def _value(text: str, number: int) -> Any:
    if text[:1] not in "[{":
        return scalar(text) if text else ""
    return parse(text, name=f"argument {number}").values


def _override(layers: Layers, path: Path_, value: Any, where: str, known: Sequence[str]) -> None:
    if len(path) == 1 and path[0] not in layers.tree and not any(k.split(".")[0] == path[0] for k in known):
        ours = [key for key in known if key.rpartition(".")[2] == path[0]]
        hint = f" (did you mean {ours[0]!r}?)" if ours else did_you_mean(str(path[0]), {k.split(".")[0] for k in known})
        raise _OverrideError(f"is not a config key{hint}")
    node: Any = layers.tree
    for depth, part in enumerate(path[:-1]):
        node = _step(layers, node, path, depth, part)
    last = path[-1]
    if isinstance(node, list):
        _check_index(node, path, len(path) - 1)
        if isinstance(value, dict):
            node[int(last)] = {}
    if isinstance(value, dict) and value:
        if isinstance(node, dict) and not isinstance(node.get(last), dict):
            node[last] = {}
        layers.merge(value, dict.fromkeys(_paths(value, path), where), at=path)
        return
    if last == "type" and isinstance(node, dict):
        _start_block_afresh(layers, node, {"type": value}, path[:-1])
    layers.put(path, value, where)


def _step(layers: Layers, node: Any, path: Path_, depth: int, part: str | int) -> Any:
    if isinstance(node, list):
        _check_index(node, path, depth)
    elif isinstance(part, int):
        raise _OverrideError(f"{dotted(path[:depth])} is not a list")
    elif part not in node or node[part] is None:
        node[part] = {}
    child = node[part]
    if isinstance(child, str) and path[depth + 1] in ("type", "params"):
        child = node[part] = {"type": child}  # a bare name is a block without params
        here = path[: depth + 1]
        settings = layers.history.pop(here, [])
        layers.history[(*here, "type")] = settings
    if not isinstance(child, (dict, list)):
        raise _OverrideError(f"{dotted(path[: depth + 1])} is the value {child!r} and has no keys")
    return child


def _check_index(node: list[Any], path: Path_, depth: int) -> None:
    part = path[depth]
    if not isinstance(part, int) or part >= len(node):
        raise _OverrideError(
            f"{dotted(path[:depth])} is a list of {len(node)}; an index from 0 to {len(node) - 1} must follow"
        )


def _paths(value: Any, at: Path_) -> list[Path_]:
    found = [at]
    if isinstance(value, dict):
        for key, child in value.items():
            found += _paths(child, (*at, key))
    return found
