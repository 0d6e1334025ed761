"""Which layer set each value of a resolved config, and what it shadowed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from antmmf.config.layers import Layers
from antmmf.config.reader import Path_, dotted


def explain(resolved: dict[str, Any], layers: Layers) -> Iterator[dict[str, Any]]:
    """A row for each value: ``key``, ``value``, ``where`` it comes from, and the settings that it ``shadowed``."""
    for path, value, owner in _leaves(resolved, (), ""):
        settings = layers.settings(path)
        yield {
            "key": dotted(path),
            "value": value,
            "where": settings[-1].where if settings else f"default{owner}",
            "shadowed": [{"value": setting.value, "where": setting.where} for setting in settings[:-1]],
        }


def _leaves(value: Any, path: Path_, owner: str) -> Iterator[tuple[Path_, Any, str]]:
    """(path, value, " of component") of everything that is no block and no section."""
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from _leaves(
                child, (*path, key), f" of {value['type']}" if key == "params" and "type" in value else owner
            )
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, child in enumerate(value):
            yield from _leaves(child, (*path, index), owner)
    else:
        yield path, value, owner
