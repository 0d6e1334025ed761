"""Saves in the background: when they are whole, and who hears of a failure."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
import torch
from antmmf.checkpoint import Checkpoints, load_checkpoint
from antmmf.contracts import RunState
from antmmf.errors import CheckpointError
from engine_toys import ToyTask
from safetensors.torch import load_file


def save(folder: Path, step: int, *, keep: int | None = None, best: bool = False) -> Path:
    return Checkpoints(folder, max_ckpt_num=keep).save(RunState(step=step), model=ToyTask().state_dict(), best=best)


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """No folder is renamed until it is set."""
    event, rename = threading.Event(), os.rename

    def wait(source: Path, target: Path) -> None:
        assert event.wait(60)
        rename(source, target)

    monkeypatch.setattr(os, "rename", wait)
    return event


def test_a_save_in_the_background_returns_before_it_is_whole(tmp_path: Path, gate: threading.Event) -> None:
    checkpoints, model, state = Checkpoints(tmp_path), {"x": torch.zeros(3)}, RunState(step=1)
    path = checkpoints.save(state, model=model, in_background=True)
    assert checkpoints.finished() == []
    assert checkpoints.latest() is None
    model["x"].fill_(7)
    state.step = 2  # the run goes on meanwhile
    gate.set()
    checkpoints.wait()
    assert checkpoints.finished() == [(RunState(step=1), path)]
    assert checkpoints.finished() == []
    assert torch.equal(load_checkpoint(path).model["x"], torch.zeros(3))


def test_a_save_waits_for_the_one_before_it(tmp_path: Path, gate: threading.Event) -> None:
    checkpoints, model = Checkpoints(tmp_path, max_ckpt_num=2), {"x": torch.zeros(1000), "y": torch.zeros(2)}
    threading.Timer(0.05, gate.set).start()
    for step in range(1, 6):
        model["x"].fill_(step)
        checkpoints.save(RunState(step=step), model={**model, "z": torch.zeros(step)}, in_background=step != 3)
    checkpoints.wait()
    assert [state.step for state, _ in checkpoints.finished()] == [1, 2, 3, 4, 5]
    assert steps(tmp_path) == ["latest", "step_000004", "step_000005"]
    for step in (4, 5):
        loaded = load_checkpoint(tmp_path / f"step_{step:06d}").model
        assert torch.equal(loaded["x"], torch.full((1000,), float(step)))
        assert loaded["z"].shape == (step,)


def test_tied_weights_stay_tied_in_the_background(tmp_path: Path) -> None:
    checkpoints, task = Checkpoints(tmp_path), ToyTask()
    path = checkpoints.save(RunState(), model=task.state_dict(), in_background=True)
    checkpoints.wait()
    assert "head.weight" not in load_file(path / "model.safetensors")
    assert torch.equal(load_checkpoint(path).model["head.weight"], task.head.weight)


def test_the_longest_stall_is_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.longest_stall == 0
    checkpoints.save(RunState(step=1), model={"x": torch.zeros(1)})
    longest = checkpoints.longest_stall
    assert longest > 0
    checkpoints.longest_stall = 1e9
    checkpoints.save(RunState(step=2), model={"x": torch.zeros(1)})
    assert checkpoints.longest_stall == 1e9


@pytest.mark.parametrize("ask", ["wait", "finished", "save"])
def test_a_failure_in_the_background_is_raised_once_by_whatever_asks_next(tmp_path: Path, ask: str) -> None:
    place = tmp_path / "c"
    checkpoints, model = Checkpoints(place), {"x": torch.zeros(1)}
    checkpoints.save(RunState(step=1), model=model)
    shutil.rmtree(place)
    place.write_text("in the way")
    checkpoints.save(RunState(step=2), model=model, in_background=True)
    while not checkpoints._pending[1].done():  # type: ignore[index]
        pass
    asks = {"save": lambda: checkpoints.save(RunState(step=3), model=model)}
    with pytest.raises(CheckpointError, match=r"c/step_000002 could not be written: File exists; it needs"):
        asks.get(ask, getattr(checkpoints, ask))()
    place.unlink()
    checkpoints.wait()
    path = checkpoints.save(RunState(step=3), model=model)
    assert [saved for _, saved in checkpoints.finished()] == [place / "step_000001", path]
