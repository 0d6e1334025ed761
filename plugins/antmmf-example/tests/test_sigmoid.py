"""The loss `sigmoid` is its formula, and the same on any number of processes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from antmmf.distributed.world import World
from antmmf.testing import check_loss
from antmmf_example import sigmoid
from antmmf_example.sigmoid import Sigmoid

sys.path.insert(0, str(Path(__file__).parent))
from sigmoid_ranks import one_step


def test_it_keeps_its_contract_in_20_lines() -> None:
    check_loss(Sigmoid())
    assert len(Path(sigmoid.__file__).read_text(encoding="utf-8").splitlines()) <= 20


def test_it_is_its_formula() -> None:
    draw = torch.Generator().manual_seed(0)
    video, text = torch.randn(3, 4, generator=draw), torch.randn(5, 4, generator=draw)
    owner = [0, 2, 2, 1, -1]
    term = Sigmoid(scale=0.5, bias=-1)(video, text, torch.tensor(owner))
    expected = 0.0
    for t in range(5):
        for v in range(3):
            logit = 0.5 * float(text[t] @ video[v]) - 1
            expected += math.log(1 + math.exp(-logit if owner[t] == v else logit))
    assert float(term.sum.detach()) == pytest.approx(expected, rel=1e-5)
    assert term.count == 3


def test_two_processes_give_the_loss_and_the_gradients_of_one(tmp_path: Path) -> None:
    out, script = tmp_path / "out.json", Path(__file__).with_name("sigmoid_ranks.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*launch, str(script), str(out)], capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    found, alone = json.loads(out.read_text(encoding="utf-8")), one_step(World())
    assert (
        found.keys()
        == alone.keys()
        == {"loss", "vision.weight", "vision.bias", "text.weight"}
        | {
            "contrast.scale",
            "contrast.bias",
        }
    )
    for name, values in alone.items():
        assert found[name] == pytest.approx(values, rel=1e-9, abs=1e-12), name
        assert any(values), name
