"""Strict YAML: every value keeps its file and line, equal keys are an error, ``5e-5`` is a number and ``no`` a word."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from antmmf.errors import ConfigError, Problem

Path_ = tuple["str | int", ...]

_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9_]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?", re.ASCII)
_NO_NUMBERS = re.compile(r"[-+]?\.?(inf|nan)", re.IGNORECASE)
_WORDS: dict[str, Any] = {"null": None, "none": None, "~": None, "": None, "true": True, "false": False}
_VARIABLE = re.compile(r"\$\$\{|\$\{(?:(\w+)(?::([^}]*))?\})?", re.ASCII)
_RESOLVER: Any = yaml.resolver.Resolver()


def dotted(path: Path_) -> str:
    """``('a', 0, 'b')`` -> ``a.0.b``."""
    return ".".join(str(part) for part in path)


@dataclass(frozen=True)
class Document:
    """A parsed file: its values, the line of every path (that of its key, or of the list's item), what is wrong."""

    values: Any
    lines: Mapping[Path_, int]
    problems: tuple[Problem, ...]


def scalar(text: str) -> Any:
    """A plain word as a value: null/None, true/false (any case), integers, floats (``5e-5``, ``inf``), else a string.

    ``007`` is a word: a number would lose its zeros.
    """
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    return float(text.replace(".", "")) if _NO_NUMBERS.fullmatch(text) else text


def expand(text: str, environment: Mapping[str, str], *, complain: Callable[[str], None]) -> str:
    """``text`` with ``${NAME}`` and ``${NAME:default}`` replaced; ``$${`` stands for ``${``.

    What cannot be replaced stays as it is, and ``complain`` is told why.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        if match.group() == "$${":
            return "${"
        if name is None:
            complain("must be ${NAME} or ${NAME:default}; $${ stands for ${ itself")
        elif name not in environment and default is None:
            complain(f"environment variable {name} must be set, or write ${{{name}:default}}")
        else:
            return environment.get(name, default or "")
        return match.group()

    return _VARIABLE.sub(value, text)


def parse(text: str, *, name: str, environment: Mapping[str, str] | None = None) -> Document:
    """Parse YAML ``text`` from the file called ``name``; raises ``ConfigError`` when it is not YAML at all."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        began = error.context is not None and ("flow" in error.context or "quoted" in error.context)
        mark = error.context_mark if began else error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        reason = ", ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(Problem("", where, f"not valid YAML: {reason}")) from error
    except yaml.YAMLError as error:
        raise ConfigError(Problem("", name, f"not valid YAML: {' '.join(str(error).split())}")) from error
    reader = _Reader(name, os.environ if environment is None else environment)
    values = reader.value(node, ()) if node is not None else {}
    return Document(values, reader.lines, tuple(reader.problems))


def read_file(path: Path, *, name: str) -> Document:
    """Parse a YAML file whose top must be a mapping; ``name`` is what messages call it. Raises ``ConfigError``."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(Problem("", name, f"cannot be read: {error.strerror}")) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(Problem("", f"{name}:{line}", "must be UTF-8 text")) from error
    document = parse(text, name=name)
    if not isinstance(document.values, dict):
        raise ConfigError(Problem("", f"{name}:1", f"must be a mapping of keys, is a {type(document.values).__name__}"))
    return document


def write(values: Any) -> str:
    """``values`` as YAML that this module reads back to the same values, in the same order."""
    return yaml.dump(_escaped(values), Dumper=_Writer, sort_keys=False, allow_unicode=True)


def _escaped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _escaped(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_escaped(child) for child in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


class _Writer(yaml.SafeDumper):
    """Quotes what PyYAML takes for a word and we do not, such as ``5e-5`` and ``none``; writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        node = super().represent_str(data)
        if not data.isprintable():
            node.style = '"'  # in the other styles PyYAML loses some kinds of line breaks
        elif not isinstance(scalar(data), str):
            node.style = "'"
        return node


_Writer.add_representer(str, _Writer.represent_str)


class _Reader:
    """Turns YAML nodes into values and remembers lines; collects problems."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.environment = environment
        self.lines: dict[Path_, int] = {(): 1}
        self.problems: list[Problem] = []
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: Path_) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        if node.tag != _RESOLVER.resolve(type(node), node.value, (getattr(node, "style", None) is None, True)):
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            self._problem(path, line, f"tags are not allowed, is {tag}; write the plain value")
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
                seen[key], inner = line, (*path, key)
                self.lines[inner] = line
                result[key] = self.value(child, inner)
        return result

    def _pairs(self, node: yaml.MappingNode) -> Iterator[tuple[Any, yaml.Node]]:
        own = {key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)}
        for key, child in node.value:
            if key.tag == "tag:yaml.org,2002:merge" and isinstance(child, yaml.MappingNode):
                yield from ((k, c) for k, c in child.value if k.value not in own)  # the merge key of YAML 1.1
            else:
                yield key, child

    def _scalar(self, node: yaml.ScalarNode, path: Path_, line: int) -> Any:
        text = expand(node.value, self.environment, complain=lambda message: self._problem(path, line, message))
        return text if node.style in ("'", '"', "|", ">") else scalar(text)

    def _problem(self, path: Path_, line: int, message: str) -> None:
        self.problems.append(Problem(dotted(path), f"{self.name}:{line}", message))
