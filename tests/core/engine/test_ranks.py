"""The same losses on 1, 2 and 3 processes, for any number of micro-batches, contrastive ones included."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from antmmf.distributed.world import World
from antmmf.step import Step, total
from ranks_toys import STEPS, RelatedPairs, make_batch, train

TOYS = Path(__file__).with_name("ranks_toys.py")


@pytest.fixture(scope="module")
def alone() -> list[list[float]]:
    torch.set_default_dtype(torch.float64)
    try:
        return train("ddp", 1, False, 32, World())
    finally:
        torch.set_default_dtype(torch.float32)


def on_ranks(count: int, mode: str, micro_batches: int, checkpointing: str, size: int, out: Path) -> list[list[float]]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    arguments = [str(TOYS), mode, str(micro_batches), checkpointing, str(size), str(out)]
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    values: list[list[float]] = json.loads(out.read_text())
    return values


@pytest.mark.parametrize(
    ("count", "mode", "micro_batches", "checkpointing"),
    [(2, "ddp", 1, "no"), (3, "ddp", 2, "yes"), (2, "fsdp2", 1, "no"), (3, "fsdp2", 2, "yes")],
)
def test_losses_do_not_depend_on_processes(
    count: int, mode: str, micro_batches: int, checkpointing: str, alone: list[list[float]], tmp_path: Path
) -> None:
    values = on_ranks(count, mode, micro_batches, checkpointing, 32, tmp_path / "out.json")
    assert len(values) == STEPS
    torch.testing.assert_close(torch.tensor(values), torch.tensor(alone), rtol=1e-9, atol=0)


def test_a_process_without_rows_takes_part_as_a_ghost(tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        whole = train("ddp", 1, False, 2, World())
    finally:
        torch.set_default_dtype(torch.float32)
    values = on_ranks(3, "ddp", 1, "no", 2, tmp_path / "out.json")
    torch.testing.assert_close(torch.tensor(values), torch.tensor(whole), rtol=1e-9, atol=0)


@pytest.mark.parametrize("micro_batches", [2, 5])
def test_micro_batches_give_the_gradient_of_the_whole_batch(micro_batches: int) -> None:
    torch.default_generator.manual_seed(0)
    task = RelatedPairs().double()
    step = Step(task, seed=1)
    total(step([make_batch(list(range(10)), 0)], 0)).backward()
    whole = [parameter.grad.clone() for parameter in task.parameters()]
    task.zero_grad()
    parts = [part.tolist() for part in torch.arange(10).tensor_split(micro_batches)]
    total(step([make_batch(part, 0) for part in parts], 0)).backward()
    torch.testing.assert_close([parameter.grad for parameter in task.parameters()], whole, rtol=1e-9, atol=1e-15)


def test_micro_batches_with_dropout_repeat_their_draws() -> None:
    """The gradient is that of what the forward pass computed: by recomputation as by keeping everything."""
    torch.default_generator.manual_seed(0)
    task = RelatedPairs(dropout=0.3).double().train()
    step = Step(task, seed=1)
    batches = [make_batch([0, 1, 2], 0), make_batch([3, 4, 5], 0)]
    total(step(batches, 7)).backward()
    found = [parameter.grad.clone() for parameter in task.parameters()]
    task.zero_grad()
    kept = [step._compute(batch, 7, micro) for micro, batch in enumerate(batches)]
    video = torch.cat([part.video for part in kept])
    owner = torch.cat([kept[0].owner, torch.where(kept[1].owner >= 0, kept[1].owner + 3, -1)])
    whole = type(kept[0])(video, torch.cat([part.text for part in kept]), owner)
    whole, related = step._related(replace(whole, step=7))
    terms = [*related.values(), *(term for name, term in task.loss(whole).items() if name != "step")]
    said = [part.terms["said"] for part in kept]
    loss = sum(term.sum / term.count for term in terms) + 0.5 * (said[0].sum + said[1].sum) / (
        said[0].count + said[1].count
    )
    loss.backward()
    torch.testing.assert_close(found, [parameter.grad for parameter in task.parameters()], rtol=1e-9, atol=1e-15)
