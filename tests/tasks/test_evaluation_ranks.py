"""Figures and predictions do not depend on processes, batch size or the order of the data, in any of the tasks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from antmmf.distributed.world import World
from evaluation_ranks import SPLITS, evaluated, make_tasks

SCRIPT = Path(__file__).with_name("evaluation_ranks.py")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return evaluated(tmp_path_factory.mktemp("index"), World())


def figures(found: dict[str, Any]) -> dict[str, Any]:
    return {name: each["figures"] for name, each in found.items()}


def lines(found: dict[str, Any]) -> list[Any]:
    """What is predicted, without the last bits of scores and the order of what has the same."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(part) for name, part in value.items()}
        if isinstance(value, (list, tuple)):
            parts = [plain(part) for part in value]
            return sorted(parts, key=repr) if parts and isinstance(parts[0], dict) else parts
        return round(value, 9) if isinstance(value, float) else value

    return [plain(line) for line in found["lines"]]


@pytest.mark.parametrize("count", [2, 3])
def test_evaluation_on_several_processes_equals_that_on_one(count: int, alone: dict[str, Any], tmp_path: Path) -> None:
    """Their shares are uneven, the bad clip is in one of them, and of the few clips the third process has none."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command = [*launch, str(SCRIPT), str(tmp_path), str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    every = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert len(every) == count
    assert all(found == every[0] for found in every)
    assert figures(every[0]) == figures(alone)
    assert {name: lines(each) for name, each in every[0].items()} == {n: lines(each) for n, each in alone.items()}


def test_every_task_is_measured_on_every_split(alone: dict[str, Any]) -> None:
    assert set(alone) == {f"{task}, {split}" for task in make_tasks() for split in SPLITS}
    named = {task: set(alone[f"{task}, many"]["figures"]) for task in make_tasks()}
    assert {"t2v/R1", "v2t/MdR", "dsl/t2v/R1"} <= named["l1"]
    assert {"l2/t2v/R1", "l1+l2/v2t/MnR"} <= named["l2"]
    assert {"l2@3/t2v/R1", "l1+l2@3/v2t/MnR"} <= named["rerank"]
    assert named["mcqa"] >= {"accuracy", "accuracy/what"} <= named["vqa"]
    assert alone["vqa, many"]["figures"]["accuracy"]["n"] == SPLITS["many"] - 1  # one is broken


@pytest.mark.parametrize("batch_size", [1, 4, 17])
def test_evaluation_in_other_batches_and_the_other_order_gives_the_same_figures(
    batch_size: int, alone: dict[str, Any], tmp_path: Path
) -> None:
    assert figures(evaluated(tmp_path, World(), batch_size=batch_size)) == figures(alone)
    assert figures(evaluated(tmp_path, World(), batch_size=batch_size, backwards=True)) == figures(alone)
