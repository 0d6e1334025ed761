"""The trainer on two processes: the same weights as on one, saved here and resumed there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from antmmf.checkpoint import load_checkpoint
from antmmf.distributed.world import World
from ranks_train import SAVED, trained
from safetensors.torch import load_file

SCENES = Path(__file__).with_name("ranks_train.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    one_process(folder, "one")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*launch, str(SCENES), str(folder)], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    one_process(folder, "one from ddp", start=folder / "ddp" / f"step_{SAVED:06d}")
    one_process(folder, "one from fsdp2", start=folder / "fsdp2" / f"step_{SAVED:06d}")
    return folder


def one_process(folder: Path, name: str, start: Path | None = None) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        trained(folder, name, world=World(), start=start)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "ddp from one", "fsdp2 from ddp", "one from ddp", "one from fsdp2"])
def test_the_weights_are_those_of_one_process(folder: Path, name: str) -> None:
    torch.testing.assert_close(
        load_file(folder / f"{name}.safetensors"), load_file(folder / "one.safetensors"), rtol=1e-9, atol=1e-12
    )


def test_the_best_value_is_that_of_one_process(folder: Path) -> None:
    states = [load_checkpoint(folder / name / "step_000008").state for name in ("one", "ddp", "fsdp2")]
    assert [state.best_step for state in states] == [states[0].best_step] * 3
    assert [state.best_value for state in states] == pytest.approx([states[0].best_value] * 3)


def test_a_resumed_run_on_two_processes_is_bit_for_bit_the_run_that_never_stopped(folder: Path) -> None:
    weights = [load_file(folder / f"{name}.safetensors") for name in ("dropout", "dropout again")]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)
