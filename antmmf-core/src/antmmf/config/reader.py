"""Strict YAML: every value keeps its file and line, equal keys are an error, ``5e-5`` is a number and ``no`` a word."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from antmmf.errors import ConfigError, Problem

Path_ = tuple["str | int", ...]

_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)$")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$")
_WORDS: dict[str, Any] = {"null": None, "none": None, "~": None, "": None, "true": True, "false": False}
_VARIABLE = re.compile(r"\$\{(\w+)(?::([^}]*))?\}")


def dotted(path: Path_) -> str:
    """``('a', 0, 'b')`` -> ``a.0.b``."""
    return ".".join(str(part) for part in path)


@dataclass(frozen=True)
class Document:
    """A parsed file: its values, and the line of every path (a mapping's line is its first key's)."""

    values: Any
    lines: Mapping[Path_, int]


def scalar(text: str) -> Any:
    """A plain word as a value: null/None, true/false (any case), integers, floats (``5e-5``, ``inf``), else a string."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INT.match(text):
        return int(text.replace("_", ""))
    if _FLOAT.match(text) or text.lower().lstrip("+-") in ("inf", ".inf", "nan", ".nan"):
        return float(text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    return text


def parse(text: str, *, name: str, environment: Mapping[str, str] | None = None) -> Document:
    """Parse YAML ``text`` from the file called ``name``; raises ``ConfigError`` with every problem found."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError(Problem("", where, f"not valid YAML: {error.problem or error.context}")) from error
    except yaml.YAMLError as error:
        raise ConfigError(Problem("", name, f"not valid YAML: {' '.join(str(error).split())}")) from error
    reader = _Reader(name, os.environ if environment is None else environment)
    values = reader.value(node, ()) if node is not None else {}
    if reader.problems:
        raise ConfigError(reader.problems)
    return Document(values, reader.lines)


def read_file(path: Path) -> Document:
    """Parse a YAML file whose top must be a mapping; raises ``ConfigError``."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(Problem("", str(path), f"cannot be read: {error.strerror}")) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(Problem("", f"{path}:{line}", "must be UTF-8 text")) from error
    document = parse(text, name=str(path))
    if not isinstance(document.values, dict):
        raise ConfigError(Problem("", f"{path}:1", f"must be a mapping of keys, is a {type(document.values).__name__}"))
    return document


class _Reader:
    """Turns YAML nodes into values and remembers lines; collects problems."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.environment = environment
        self.lines: dict[Path_, int] = {}
        self.problems: list[Problem] = []
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: Path_) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, line)
        if id(node) in self._open:
            self._problem(path, line, "an alias must not contain itself")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
            assert isinstance(node, yaml.MappingNode)
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for key_node, child in self._pairs(node):
            key, line = key_node.value, key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(path, line, "a key must be a plain word")
            elif key in seen:
                self._problem((*path, key), line, f"is given twice; first in line {seen[key]}")
            else:
                seen[key] = line
                self.lines[(*path, key)] = line
                result[key] = self.value(child, (*path, key))
        return result

    def _pairs(self, node: yaml.MappingNode) -> Iterator[tuple[Any, yaml.Node]]:
        own = {key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)}
        for key, child in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == "<<" and isinstance(child, yaml.MappingNode):
                yield from ((k, c) for k, c in child.value if k.value not in own)  # the merge key of YAML 1.1
            else:
                yield key, child

    def _scalar(self, node: yaml.ScalarNode, path: Path_, line: int) -> Any:
        def expand(match: re.Match[str]) -> str:
            name, default = match.group(1), match.group(2)
            if name in self.environment:
                return self.environment[name]
            if default is None:
                self._problem(path, line, f"environment variable {name} must be set, or write ${{{name}:default}}")
            return default or ""

        text = _VARIABLE.sub(expand, node.value)
        if node.tag not in ("tag:yaml.org,2002:str", "!") and node.tag.startswith("!"):
            self._problem(path, line, f"tags are not allowed, is {node.tag}")
        return text if node.style in ("'", '"', "|", ">") else scalar(text)

    def _problem(self, path: Path_, line: int, message: str) -> None:
        self.problems.append(Problem(dotted(path), f"{self.name}:{line}", message))
