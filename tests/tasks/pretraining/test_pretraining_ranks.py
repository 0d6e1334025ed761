"""The whole losses and gradients of pre-training are the same on 1, 2 and 4 processes, accumulated or not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from antmmf.distributed.world import World
from antmmf_tasks.tasks.cnvid import Cnvid
from pretraining_ranks import ARMS, make_tasks, train, train_all

SCRIPT = Path(__file__).with_name("pretraining_ranks.py")


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return train_all("ddp", 1, World())


def compare(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for task, wanted in expected.items():
        assert found[task]["names"] == wanted["names"]
        for step, (one, other) in enumerate(zip(found[task]["values"], wanted["values"], strict=True)):
            for name, here, there in zip(wanted["names"], one, other, strict=True):
                assert here == pytest.approx(there, rel=1e-9, abs=1e-12), f"{task} step {step}: {name}"
        for name, (total, squares) in wanted["sums"].items():
            assert found[task]["sums"][name][1] == pytest.approx(squares, rel=1e-9, abs=1e-15), f"{task}: {name}"
            scale = max(abs(total), squares**0.5)
            assert found[task]["sums"][name][0] == pytest.approx(total, abs=1e-9 * scale + 1e-12), f"{task}: {name}"


def test_every_loss_takes_part(alone: dict[str, Any]) -> None:
    losses = {"contrast", "match", "gvtm", "mlm_text", "mlm", "lvwm", "clip_order"}
    assert losses <= set(alone["snps3"]["names"])
    values = torch.tensor(alone["snps3"]["values"])
    assert values.isfinite().all()
    assert (values[:, [alone["snps3"]["names"].index(name) for name in sorted(losses)]] > 0).all()


def test_cnvid_takes_a_step_with_hard_videos_and_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    hard: list[bool] = []
    usual = Cnvid.candidates

    def candidates(self: Cnvid, *arguments: Any) -> Any:
        found = usual(self, *arguments)
        hard.append(bool(found[2].all()))
        return found

    monkeypatch.setattr(Cnvid, "candidates", candidates)
    train(make_tasks()["cnvid"], "ddp", 1, World())
    assert set(hard) == {True, False}


def test_accumulation_changes_nothing(alone: dict[str, Any]) -> None:
    compare(train_all("ddp", 4, World()), alone)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_change_nothing(count: int, alone: dict[str, Any], tmp_path: Path) -> None:
    """DDP and FSDP2, accumulated or not."""
    out = tmp_path / "out.json"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    done = subprocess.run([*launch, str(SCRIPT), str(out)], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    assert len(found) == len(ARMS) == 4
    for arm in found.values():
        compare(arm, alone)
