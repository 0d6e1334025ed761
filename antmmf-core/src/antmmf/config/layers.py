"""Lay config sources over each other, and remember for every value which source set it and what it shadowed.

From low to high: defaults of plugins, included files (in their order), the file itself, command-line arguments (in
theirs). Mappings are merged, everything else is replaced. A component's bare name is the block ``{type: name}``; a
block whose ``type`` changes starts with empty ``params``, since the old ones belong to another component.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from antmmf.config.reader import Path_, read_file
from antmmf.errors import ConfigError, Problem


@dataclass(frozen=True)
class Setting:
    """A value and where it was set: ``file:line``, ``argument 2 (a.b=c)``, or ``default of plugin X``."""

    value: Any
    where: str


@dataclass
class Layers:
    """The merged ``tree``, the place of every path in it, and all settings of each leaf, the one that won last.

    A list is one leaf; what an argument sets inside of it is a leaf of its own. ``problems`` are mistakes that do not
    keep the rest from being read.
    """

    tree: dict[str, Any] = field(default_factory=dict)
    places: dict[Path_, str] = field(default_factory=dict)
    history: dict[Path_, list[Setting]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def where(self, path: Path_) -> str:
        """Where the value at ``path``, or the nearest one above it, was set."""
        return _nearest(self.places, path)

    def at(self, path: Path_) -> Any:
        """The value at ``path``; raises ``LookupError`` or ``TypeError`` where there is none."""
        value: Any = self.tree
        for part in path:
            value = value[part]
        return value

    def settings(self, path: Path_) -> list[Setting]:
        """Every setting of a value, the winner last; empty for what nobody set."""
        try:
            if path[-1] == "type" and isinstance(self.at(path[:-1]), str):
                path = path[:-1]
            value = self.at(path)
        except (LookupError, TypeError):
            return []
        inside = [known for known in self.history if known[: len(path)] == path and known != path]
        later = [Setting(value, self.history[known][-1].where) for known in inside]
        return self.history.get(path, [Setting(value, self.where(path))]) + later

    def merge(self, values: Mapping[str, Any], places: Mapping[Path_, str]) -> None:
        """Lay a mapping over the tree; ``places`` says where its paths, or those above them, were written."""
        if () in places:
            self.places[()] = places[()]
        for key, value in values.items():
            self.lay((key,), value, places)

    def lay(self, path: Path_, value: Any, places: Mapping[Path_, str]) -> None:
        """Lay one value over what is at ``path``, whose parent must be there."""
        parent, last = self.at(path[:-1]), path[-1]
        old = parent.get(last) if isinstance(parent, dict) else parent[last]
        if isinstance(value, str) and isinstance(old, dict) and "type" in old:
            value = {"type": value}
        if isinstance(value, Mapping) and isinstance(old, str) and value.keys() <= {"type", "params"}:
            self.unfold(path)
            old = self.at(path)
        if not isinstance(value, Mapping) or not (value or (isinstance(old, dict) and old)):
            self._put(path, value, places)
            return
        if not isinstance(old, dict):
            self._forget(path)
            parent[last] = {}
        elif _is_another(old, value):
            self._forget((*path, "params"))
            old.pop("params", None)
        self.places[path] = _nearest(places, path)
        for key, child in value.items():
            self.lay((*path, key), child, places)

    def unfold(self, path: Path_) -> None:
        """Turn a bare name into the block that it stands for."""
        parent, name = self.at(path[:-1]), (*path, "type")
        parent[path[-1]] = {"type": parent[path[-1]]}
        self.places[name] = self.where(path)
        if path in self.history:
            self.history[name] = self.history.pop(path)

    def fill(self, path: Path_, value: Any, where: str) -> None:
        """Set a leaf that nobody has written; what somebody wrote is never changed."""
        for end in range(1, len(path)):
            parent = self.at(path[: end - 1])
            child = parent.setdefault(path[end - 1], {})
            if isinstance(child, str) and path[end] == "params":
                self.unfold(path[:end])
            elif not isinstance(child, dict):
                return
        if path[-1] not in self.at(path[:-1]):
            self.lay(path, value, {path: where})

    def _put(self, path: Path_, value: Any, places: Mapping[Path_, str]) -> None:
        parent, last = self.at(path[:-1]), path[-1]
        settings = self.history.get(path, [])
        if not settings and (last in parent if isinstance(parent, dict) else True):
            settings = [Setting(parent[last], self.where(path))]
        self._forget(path)
        for end in range(len(path)):  # a mapping that gets its first key was a leaf, and is none any more
            if isinstance(self.at(path[:end]), dict):
                self.history.pop(path[:end], None)
        parent[last] = deepcopy(value)
        self.places |= {inner: _nearest(places, inner) for inner in _paths(value, path)}
        self.history[path] = [*settings, Setting(value, self.places[path])]

    def _forget(self, path: Path_) -> None:
        for table in (self.history, self.places):
            for known in [known for known in table if known[: len(path)] == path]:
                del table[known]


def load(path: Path) -> Layers:
    """Read a config file with its ``includes`` (relative to the including file); raises ``ConfigError``."""
    layers, fatal = Layers(), list[Problem]()
    _load(path.resolve(), layers, fatal, ())
    if fatal:
        raise ConfigError([*layers.problems, *fatal])
    return layers


def _load(path: Path, layers: Layers, fatal: list[Problem], parents: tuple[Path, ...]) -> None:
    name = _short(path)
    try:
        document = read_file(path, name=name)
    except ConfigError as error:
        fatal += error.problems
        return
    layers.problems += document.problems
    places = {place: f"{name}:{line}" for place, line in document.lines.items()}
    includes = document.values.pop("includes", [])
    if not isinstance(includes, list) or not all(isinstance(entry, str) for entry in includes):
        fatal.append(Problem("includes", places[("includes",)], f"must be a list of files, is {includes!r}"))
        includes = []
    for index, entry in enumerate(includes):
        included = (path.parent / Path(entry).expanduser()).resolve()
        chain = (*parents, path)
        if included in chain:
            names = " -> ".join(parent.name for parent in (*chain, included))
            message = f"a file must not include itself: {names}"
        else:
            message = "" if included.is_file() else f"there is no file {included}"
        if message:
            fatal.append(Problem(f"includes.{index}", places[("includes", index)], message))
        else:
            _load(included, layers, fatal, chain)
    layers.merge(document.values, places)
    layers.files.append(path)


def _short(path: Path) -> str:
    """The path as a person would write it: relative where it lies below the current folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _nearest(places: Mapping[Path_, str], path: Path_) -> str:
    return next((places[path[:end]] for end in range(len(path), -1, -1) if path[:end] in places), "")


def _is_another(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether ``new`` names another component than the block ``old``; a bare name may mean ``distribution:name``."""
    if "type" not in old or "type" not in new:
        return False
    before, after = str(old["type"]), str(new["type"])
    may_be_equal = ":" not in before or ":" not in after
    return before != after and not (may_be_equal and before.rpartition(":")[2] == after.rpartition(":")[2])


def _paths(value: Any, at: Path_) -> list[Path_]:
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, child in inner for path in _paths(child, (*at, key)))]
