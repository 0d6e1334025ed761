"""Trainings on two processes, one after the other in one launch, run by test_ranks_train.py: python ... FOLDER.

Each scene trains the toy task and writes its last weights; some start from a checkpoint of another scene.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from antmmf.checkpoint import Checkpoints, load_checkpoint
from antmmf.contracts import RunState
from antmmf.distributed import parallel
from antmmf.distributed.world import World, joined_world
from antmmf.evaluate import measure, split_rows
from antmmf.optim import AdamW, Cosine, build_optimizer
from antmmf.plugins import new_manager
from antmmf.step import Step
from antmmf.trainer import Trainer, TrainSettings
from engine_toys import ToyMetric, ToyTask, toy_loader
from safetensors.torch import save_file

STEPS, SAVED = 8, 5


def trained(
    folder: Path, name: str, *, world: World, mode: str = "ddp", start: Path | None = None, dropout: float = 0.0,
    **loading: Any,
) -> Trainer:  # fmt: skip
    """Train to the end, from ``start`` where given; checkpoints lie in ``folder/name``, weights beside."""
    torch.default_generator.manual_seed(3)
    task, device = ToyTask(dropout=dropout), torch.device("cpu")
    if mode == "fsdp2":
        parallel.shard(task, world, device)
    step = Step(task, world=world, seed=1)
    loader = toy_loader(folder / "data", num=30, batch_size=7, rank=world.rank, num_ranks=world.size, **loading)
    val = toy_loader(folder / "val", num=9, train=False, rank=world.rank, num_ranks=world.size, batch_size=2)
    trainer = Trainer(
        task,
        model=parallel.wrap(step, device) if world.size > 1 and mode == "ddp" else step,
        world=world,
        optimizer=build_optimizer(AdamW(lr=1e-2), task),
        schedule=Cosine(warmup_iterations=3),
        loader=loader,
        settings=TrainSettings(
            max_steps=STEPS, seed=1, log_interval=2, snapshot_interval=SAVED, evaluation_interval=3,
            monitored_metric="mean", max_grad_l2_norm=1.0,
        ),
        hook=new_manager().hook,
        checkpoints=Checkpoints(folder / name, world=world),
        evaluate_val=lambda: measure([ToyMetric()], split_rows(task, val, device="cpu", world=world), world),
    )  # fmt: skip
    trainer.fit(trainer.restore(load_checkpoint(start)) if start else RunState())
    loader.close()
    weights = {key: tensor.full_tensor() if mode == "fsdp2" else tensor for key, tensor in task.state_dict().items()}
    weights.pop("head.weight")  # tied
    if world.is_first:
        save_file(weights, str(folder / f"{name}.safetensors"))
    return trainer


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    at = f"step_{SAVED:06d}"
    with joined_world("cpu") as world:
        trained(folder, "ddp", world=world)
        trained(folder, "fsdp2", world=world, mode="fsdp2")
        trained(folder, "ddp from one", world=world, start=folder / "one" / at)
        trained(folder, "fsdp2 from ddp", world=world, mode="fsdp2", start=folder / "ddp" / at, micro_batches=2)
        trained(folder, "dropout", world=world, dropout=0.2, micro_batches=3)
        again = folder / "dropout" / at
        trained(folder, "dropout again", world=world, dropout=0.2, micro_batches=3, start=again, num_workers=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
