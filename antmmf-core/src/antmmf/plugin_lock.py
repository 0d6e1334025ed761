"""What changed between two ``plugins.lock.json``: versions, sources and components of everything that takes part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from antmmf.contracts import Json

_RESOLVED = "resolved by hooks"  # a list of names beside the distributions


def lock_changes(saved: Mapping[str, Json], current: Mapping[str, Json], *, same_run: bool = True) -> list[str]:
    """One line for each change from ``saved`` to ``current``; empty where both are the same.

    Without ``same_run`` they are those of two runs, say of pre-training and of a task that starts from it: what only
    one of them uses is the choice of their configs, and no change.
    """
    before, after = ({name: entry for name, entry in lock.items() if name != _RESOLVED} for lock in (saved, current))
    if not same_run:
        return sorted(line for name in before if name in after for line in _of_both(name, before[name], after[name]))
    lines = [f"{name} {before[name]['version']} no longer takes part" for name in before if name not in after]
    lines += [f"{name} {after[name]['version']} takes part now" for name in after if name not in before]
    lines += [line for name in before if name in after for line in _changes(name, before[name], after[name])]
    was, now = set(saved.get(_RESOLVED, ())), set(current.get(_RESOLVED, ()))
    lines += [f"{name} is no longer resolved by a hook" for name in was - now]
    lines += [f"{name} is resolved by a hook now" for name in now - was]
    return sorted(lines)


def _changes(name: str, before: Json, after: Json) -> Iterator[str]:
    old, new = before["components"], after["components"]
    yield from (f"{name}: {component} removed" for component in old if component not in new)
    yield from (f"{name}: {component} added" for component in new if component not in old)
    yield from _of_both(name, before, after)


def _of_both(name: str, before: Json, after: Json) -> Iterator[str]:
    """Changes of the distribution, and of components that both locks have."""
    if before["version"] != after["version"]:
        yield f"{name} {before['version']} -> {after['version']}"
    elif before["source"] != after["source"]:
        yield f"{name} {after['version']}: its source changed"
    old, new = before["components"], after["components"]
    for component in old:
        if component in new and old[component] != new[component]:
            yield f"{name}: {component} moved from {old[component]} to {new[component]}"
    old, new = before.get("uses", {}), after.get("uses", {})
    for component in old:
        if component in new and old[component] != new[component]:
            yield f"{name}: {component} used {old[component]}, uses {new[component]} now"
