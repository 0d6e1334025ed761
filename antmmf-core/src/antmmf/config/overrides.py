"""Command-line arguments laid over a config: ``a.b.c=value``, or AntMMF's pair ``a.b.c value``; the last one wins."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from antmmf.config.layers import Layers
from antmmf.config.reader import Path_, dotted, expand, parse, scalar
from antmmf.errors import ConfigError, Problem, did_you_mean


def apply_arguments(layers: Layers, arguments: Sequence[str], *, known: Sequence[str]) -> None:
    """Lay the arguments over the tree, in their order; raises ``ConfigError`` with every problem.

    ``known`` are the dotted keys of the schema, for "did you mean".
    """
    problems: list[Problem] = []
    sections = {key.partition(".")[0] for key in known}
    index = 0
    while index < len(arguments):
        number, argument = index + 1, arguments[index]
        key, equals, text = argument.partition("=")
        try:
            if not equals:
                text = _value_of_pair(arguments, index, sections)
                index += 1
            index += 1
            path = _split(key)
            if path[0] not in sections:
                raise _OverrideError(f"is not a config key{_hint(str(path[0]), known)}")
            _override(layers, path, _value(text), f"argument {number} ({key}={text})")
        except _OverrideError as error:
            problems.append(Problem(key, f"argument {number}", str(error)))
            index = max(index, number)
        except ConfigError as error:
            problems += [replace(problem, path=key, where=f"argument {number}") for problem in error.problems]
    if problems:
        raise ConfigError([*layers.problems, *problems])


class _OverrideError(Exception):
    """What is wrong with one argument."""


def _value_of_pair(arguments: Sequence[str], index: int, sections: set[str]) -> str:
    """The argument after a key; not one that is itself ``key=value``, since then a value was forgotten."""
    following = arguments[index + 1] if index + 1 < len(arguments) else None
    if following is not None and not ("=" in following and re.split(r"[.\[=]", following)[0] in sections):
        return following
    if arguments[index].startswith("-"):
        raise _OverrideError("is no option of this command")
    raise _OverrideError("needs a value: key=value, or a key and a value")


def _split(key: str) -> Path_:
    if key.startswith("-"):
        raise _OverrideError("is no option of this command, nor a config key such as training_parameters.seed")
    parts = re.sub(r"\.?\[([0-9]+)\]", r".\1", key).split(".")
    if not all(parts):
        raise _OverrideError("must be names joined by dots")
    return tuple(int(part) if re.fullmatch("[0-9]+", part) else part for part in parts)


def _hint(key: str, known: Sequence[str]) -> str:
    inside = [name for name in known if name.rpartition(".")[2] == key]
    return f" (did you mean {inside[0]!r}?)" if inside else did_you_mean(key, {k.partition(".")[0] for k in known})


def _value(text: str) -> Any:
    """Lists, mappings and quoted text are YAML, the rest is one plain word, however many spaces it has."""
    if text[:1] in ("[", "{") or (len(text) > 1 and text[0] == text[-1] and text[0] in "'\""):
        document = parse(text, name="")
        if document.problems:
            raise ConfigError(document.problems)
        return document.values
    problems: list[Problem] = []
    text = expand(text, os.environ, complain=lambda message: problems.append(Problem("", "", message)))
    if problems:
        raise ConfigError(problems)
    return scalar(text) if text else ""


def _override(layers: Layers, path: Path_, value: Any, where: str) -> None:
    for end in range(1, len(path)):
        _make_way(layers, path[:end], path[end], where)
    _check_part(layers, path)
    if path[-1] == "type":  # another type starts afresh, so it is laid over the whole block
        path, value = path[:-1], {"type": value}
    layers.lay(path, value, {path: where})


def _make_way(layers: Layers, path: Path_, following: str | int, where: str) -> None:
    """See to it that ``path`` is a mapping or a list, so that ``following`` can be set in it."""
    _check_part(layers, path)
    parent = layers.at(path[:-1])
    child = parent.get(path[-1]) if isinstance(parent, dict) else parent[path[-1]]
    if child is None and isinstance(following, str):
        layers.lay(path, {}, {path: where})
    elif isinstance(child, str) and following in ("type", "params"):
        layers.unfold(path)
    elif not isinstance(child, (dict, list)):
        what = "is not set in the config" if child is None else f"is the value {child!r}"
        raise _OverrideError(f"{dotted(path)} {what}, so there is no {following!r} in it")


def _check_part(layers: Layers, path: Path_) -> None:
    """A list wants an index that it has, a mapping a key."""
    parent, part = layers.at(path[:-1]), path[-1]
    if isinstance(parent, list) and (not isinstance(part, int) or part >= len(parent)):
        indices = f"an index from 0 to {len(parent) - 1} must follow" if parent else "give the whole list"
        raise _OverrideError(f"{dotted(path[:-1])} is a list of {len(parent)}; {indices}")
    if isinstance(parent, dict) and isinstance(part, int):
        raise _OverrideError(f"{dotted(path[:-1])} is not a list, so there is no {part} in it")
