"""Pydantic's errors in our words: where, what must hold, and what is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from antmmf.config.reader import Path_

_WORDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be a path",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "dict_type": "must be a mapping of keys",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "finite_number": "must be finite",
}


@dataclass(frozen=True)
class Fault:
    """``path`` in what was given, pydantic's ``kind`` of error, and the message."""

    path: Path_
    kind: str
    message: str


def faults(error: ValidationError, given: Any) -> Iterator[Fault]:
    """Every fault once: pydantic reports each branch of a union, and "too few" where an item is wrong."""
    found: dict[Path_, list[Any]] = {}
    for entry in error.errors(include_url=False):
        found.setdefault(_path(entry, given), []).append(entry)
    for path, entries in found.items():
        if not any(len(other) > len(path) and other[: len(path)] == path for other in found):
            reasons = " or ".join(dict.fromkeys(_reason(entry) for entry in entries)).replace(" or must be", " or")
            yield Fault(path, _kind(entries[0]), f"{reasons}, {_given(entries[0])}")


def explain(entry: Any) -> str:
    """What must hold and what is there, of one of pydantic's errors."""
    return f"{_reason(entry)}, {_given(entry)}"


def shown(value: Any) -> str:
    """A value as it stands in a message, cut to a length that a line can bear."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _path(entry: Any, given: Any) -> Path_:
    """Where it is in ``given``; pydantic also names the branches of a union."""
    path: Path_ = ()
    for part in entry["loc"]:
        known = range(len(given)) if isinstance(given, list) else given if isinstance(given, dict) else ()
        if part not in known:
            return (*path, part) if entry["type"] == "missing" and isinstance(part, str) else path
        given, path = given[part], (*path, part)
    return path


def _kind(entry: Any) -> str:
    """Pydantic's type of error; a tuple that lacks an item is too short, while a mapping may lack a key."""
    return "too_short" if entry["type"] == "missing" and isinstance(entry["loc"][-1], int) else str(entry["type"])


def _given(entry: Any) -> str:
    if _kind(entry) in ("too_short", "too_long"):
        return f"has {len(entry['input'])}"
    return f"is {shown(entry['input'])}"


def _reason(entry: Any) -> str:
    context, kind = entry.get("ctx", {}), _kind(entry)
    if kind == "too_long":
        return f"must have at most {_items(context['max_length'])}"
    if kind == "too_short":
        return f"must have at least {_items(context.get('min_length') or entry['loc'][-1] + 1)}"
    message = str(entry["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    return _WORDS.get(kind, message[:1].lower() + message[1:])


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"
