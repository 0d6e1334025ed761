"""What changed between two locks is told in one line each."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from antmmf.plugin_lock import lock_changes

LOCK: dict[str, Any] = {
    "antmmf-tasks": {
        "version": "0.1.0",
        "source": "aa",
        "components": {"losses/infonce": "antmmf_tasks.losses:InfoNce", "tasks/retrieval": "antmmf_tasks.tasks:Old"},
        "uses": {"readers/auto": "pyav 18.1.0"},
    },
    "mine": {"version": "file", "source": "bb", "components": {}},
    "resolved by hooks": ["timm/vit_small"],
}


def changed(**entries: Any) -> dict[str, Any]:
    """``LOCK`` with fields of the entry antmmf-tasks replaced."""
    lock = copy.deepcopy(LOCK)
    lock["antmmf-tasks"] |= entries
    return lock


def test_equal_locks_have_no_changes() -> None:
    assert lock_changes(LOCK, copy.deepcopy(LOCK)) == []


@pytest.mark.parametrize(
    ("current", "line"),
    [
        (changed(version="0.2.0", source="cc"), "antmmf-tasks 0.1.0 -> 0.2.0"),
        (changed(source="cc"), "antmmf-tasks 0.1.0: its source changed"),
        (
            changed(uses={"readers/auto": "pyav 19.0.0"}),
            "antmmf-tasks: readers/auto used pyav 18.1.0, uses pyav 19.0.0 now",
        ),
        ({name: entry for name, entry in LOCK.items() if name != "mine"}, "mine file no longer takes part"),
        ({**LOCK, "new": {"version": "3", "source": "", "components": {}}}, "new 3 takes part now"),
        ({**LOCK, "resolved by hooks": []}, "timm/vit_small is no longer resolved by a hook"),
        ({**LOCK, "resolved by hooks": ["hf/x", "timm/vit_small"]}, "hf/x is resolved by a hook now"),
    ],
)
def test_a_change_is_one_line(current: dict[str, Any], line: str) -> None:
    assert lock_changes(LOCK, current) == [line]


def test_of_two_runs_what_only_one_of_them_uses_is_no_change() -> None:
    components = {"tasks/retrieval": "antmmf_tasks.tasks:New", "metrics/recall": "antmmf_tasks.metrics:Recall"}
    current = {"antmmf-tasks": changed(version="0.2.0", components=components)["antmmf-tasks"]}
    assert lock_changes(LOCK, current, same_run=False) == [
        "antmmf-tasks 0.1.0 -> 0.2.0",
        "antmmf-tasks: tasks/retrieval moved from antmmf_tasks.tasks:Old to antmmf_tasks.tasks:New",
    ]


def test_components_are_told_one_by_one() -> None:
    components = {"tasks/retrieval": "antmmf_tasks.tasks:New", "metrics/recall": "antmmf_tasks.metrics:Recall"}
    assert lock_changes(LOCK, changed(components=components)) == [
        "antmmf-tasks: losses/infonce removed",
        "antmmf-tasks: metrics/recall added",
        "antmmf-tasks: tasks/retrieval moved from antmmf_tasks.tasks:Old to antmmf_tasks.tasks:New",
    ]


def test_a_lock_without_hooks_is_compared_with_one_that_has_them() -> None:
    without = {name: entry for name, entry in LOCK.items() if name != "resolved by hooks"}
    assert lock_changes(without, LOCK) == ["timm/vit_small is resolved by a hook now"]
    assert lock_changes({}, {}) == []
