"""Parameters by shell patterns of their names."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

from antmmf.errors import ConfigError, did_you_mean


def fitting(pattern: str, names: Collection[str], *, key: str) -> list[str]:
    """Those ``names`` that fit the shell pattern; raises ``ConfigError`` about the config's ``key`` when none does."""
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        parts = {f"{name[:end]}.*": None for name in names for end, letter in enumerate(name) if letter == "."}
        outer = ", ".join(part for part in parts if part.count(".") == 1)
        hint = did_you_mean(pattern, [*parts, *names]) or f"; there are {outer}"
        raise ConfigError(f"{key}: must fit a parameter's name, {pattern!r} fits none{hint}")
    return found
