"""What needs an accelerator: run by nox -s gpu, never by the suite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from antmmf.checkpoint import Checkpoints, load_checkpoint
from antmmf.contracts import RunState
from antmmf.distributed import parallel
from antmmf.optim import AdamW, Cosine, build_optimizer
from antmmf.plugins import new_manager
from antmmf.step import Step
from antmmf.trainer import Trainer, TrainSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "core" / "engine"))
from engine_toys import ToyTask, toy_loader

pytestmark = pytest.mark.gpu
TOYS = Path(__file__).parents[1] / "core" / "engine" / "ranks_train.py"


@pytest.fixture(scope="module")
def device() -> torch.device:
    if not torch.accelerator.is_available():
        pytest.skip("no accelerator is here")
    current = torch.accelerator.current_accelerator()
    assert current is not None
    return torch.device(current.type, 0)


def trainer(folder: Path, device: torch.device, *, steps: int, compile: bool = False, **settings: object) -> Trainer:
    torch.manual_seed(0)
    task = ToyTask().to(device)
    amp = settings.pop("amp", None)
    parallel.prepare(task, compile=compile, activation_checkpointing=False, channels_last=False, sharded=False)
    return Trainer(
        task,
        model=Step(task, seed=1, device=device, amp=amp),  # type: ignore[arg-type]
        optimizer=build_optimizer(AdamW(lr=1e-2), task),
        schedule=Cosine(),
        loader=toy_loader(folder / "data", num=40, batch_size=8, device=device, micro_batches=2, num_workers=1),
        settings=TrainSettings(max_steps=steps, seed=1, device=device, amp=amp, log_interval=5, **settings),  # type: ignore[arg-type]
        hook=new_manager().hook,
        checkpoints=Checkpoints(folder / "c"),
    )


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("amp", [None, torch.bfloat16, torch.float16])
def test_training_goes_on_bit_for_bit(tmp_path: Path, device: torch.device, amp: torch.dtype, compile: bool) -> None:
    whole = trainer(tmp_path, device, steps=20, amp=amp, compile=compile, snapshot_interval=10, async_save=True)
    whole.fit(RunState())
    again = trainer(tmp_path, device, steps=20, amp=amp, compile=compile)
    again.checkpoints = None
    again.fit(again.restore(load_checkpoint(tmp_path / "c" / "step_000010")))
    torch.testing.assert_close(dict(again.task.state_dict()), dict(whole.task.state_dict()), rtol=0, atol=0)
    seconds = whole.meter.total
    assert seconds["forward"] > 0
    assert seconds["backward"] > 0


def test_the_largest_micro_batch_that_fits_is_found(tmp_path: Path, device: torch.device) -> None:
    """A task that asks for a third of the memory for each sample fits two at most."""
    third = torch.accelerator.get_memory_info(device.index)[1] // 3

    class Greedy(ToyTask):
        def forward(self, batch):  # type: ignore[no-untyped-def]
            held = [torch.empty(third, dtype=torch.uint8, device=device) for _ in range(len(batch))]
            output = super().forward(batch)
            del held
            return output

    run = trainer(tmp_path, device, steps=2, auto_micro_batches=True)
    run.task.__class__ = Greedy
    state = RunState()
    run.fit(state)
    assert state.micro_batches == 4


@pytest.mark.parametrize("mode", ["ddp", "fsdp2"])
@pytest.mark.usefixtures("device")
def test_two_accelerators_take_steps_together(mode: str, tmp_path: Path) -> None:
    if torch.accelerator.device_count() < 2:
        pytest.skip("one accelerator is here")
    command = [
        sys.executable, "-m", "antmmf", "run", "quickstart", "--smoke", "--nproc-per-node", "2",
        f"training_parameters.distributed={mode}", "training_parameters.enable_amp=true",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "resumed at step 3" in done.stdout
