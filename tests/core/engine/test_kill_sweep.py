"""Killed at any moment, also inside of a save: a whole checkpoint is there, and the run ends with the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from antmmf.checkpoint import Checkpoints, load_checkpoint
from antmmf.contracts import RunState
from kill_sweep import kill_at, live


def save_again(folder: Path) -> None:
    """A second, better checkpoint of step 2, which supersedes the first and lets step 1 be removed."""
    Checkpoints(folder, max_ckpt_num=1).save(RunState(step=2, best_step=2), model={"x": torch.ones(9)}, best=True)


def test_a_kill_at_any_operation_of_a_save_leaves_that_step_whole(tmp_path: Path) -> None:
    number, ended, seen = 0, False, set()
    while not ended:
        number += 1
        folder = tmp_path / str(number)
        for step in (1, 2):
            Checkpoints(folder).save(RunState(step=step, best_step=1), model={"x": torch.zeros(9)}, best=step == 1)
        ended = live(lambda folder=folder, number=number: (kill_at(number, folder), save_again(folder)))
        whole = Checkpoints(folder).newest_whole()
        assert whole is not None
        loaded, best = load_checkpoint(whole), Checkpoints(folder).best()
        assert loaded.state.step == 2
        assert torch.equal(loaded.model["x"], torch.full((9,), float(whole.name == "step_000002-2")))
        assert best is not None
        seen.add((whole.name, best.name))
        for path in folder.glob("step_*"):
            load_checkpoint(path)  # what has a checkpoint's name is whole
        save_again(folder)  # removes what the killed one left behind
        last = Checkpoints(folder).latest()
        assert last is not None
        assert sorted(path.name for path in folder.iterdir()) == ["best", "latest", last.name]
    assert number > 15
    assert seen == {
        ("step_000002", "step_000001"),  # before the pointers
        ("step_000002", "step_000002-2"),  # between them
        ("step_000002-2", "step_000002-2"),
    }


def sweep(folder: Path, *, kills: int, seed: int) -> dict[str, int]:
    script = Path(__file__).with_name("kill_sweep.py")
    command = [sys.executable, str(script), str(folder), str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, int] = json.loads(done.stdout)
    return report


def test_a_run_killed_five_times_ends_with_the_same_bits(tmp_path: Path) -> None:
    report = sweep(tmp_path, kills=5, seed=1)
    assert report["kills"] == 5
    assert report["runs"] == report["equal"] > 0


@pytest.mark.soak
def test_a_run_killed_a_hundred_times_ends_with_the_same_bits(tmp_path: Path) -> None:
    report = sweep(tmp_path, kills=100, seed=2)
    assert report["kills"] == 100
    assert report["inside"] > 20
    assert report["runs"] == report["equal"] > 0
