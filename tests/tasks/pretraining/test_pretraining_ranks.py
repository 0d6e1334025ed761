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
from pretraining_ranks import train_all

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


def test_accumulation_changes_nothing(alone: dict[str, Any]) -> None:
    compare(train_all("ddp", 4, World()), alone)


@pytest.mark.parametrize(("count", "mode", "micro"), [(2, "ddp", 1), (4, "ddp", 4), (2, "fsdp2", 4), (4, "fsdp2", 1)])
def test_processes_change_nothing(count: int, mode: str, micro: int, alone: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    done = subprocess.run(
        [*launch, str(SCRIPT), mode, str(micro), str(out)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    compare(json.loads(out.read_text()), alone)
