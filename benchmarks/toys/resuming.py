"""What the runs of ``resume.py`` share: sizes, a network with dropout, a diary of the order, the kill; and our run."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from antmmf.batch import Batch
from antmmf.callbacks.jsonl import JsonLines
from antmmf.checkpoint import Checkpoints, load_checkpoint
from antmmf.contracts import RunInfo, RunState, Sample, Term
from antmmf.data.loader import LoadedStep, Loader
from antmmf.distributed import parallel
from antmmf.distributed.world import World, joined_world
from antmmf.hookspecs import hookimpl
from antmmf.optim import AdamW, Cosine, build_optimizer
from antmmf.plugins import new_manager, register
from antmmf.step import Step
from antmmf.task import Task, TaskOutput
from antmmf.trainer import Trainer, TrainSettings
from safetensors.torch import save_file
from torch import Tensor, nn

from toys.data import ToyCollator, toy_index, toy_reader

EPOCHS, STEPS_AN_EPOCH, BATCH, KILLED_AT, SEED = 3, 20, 16, 30, 7
NUM_STEPS, NUM_SAMPLES = EPOCHS * STEPS_AN_EPOCH, STEPS_AN_EPOCH * BATCH
FRAME_SIZE, WIDTH, NUM_CLASSES = 2, 32, 10
NUM_IN = 3 * FRAME_SIZE**2


class Net(nn.Sequential):
    """Two matrices and dropout; the same weights at every start."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(NUM_IN, WIDTH), nn.ReLU(), nn.Dropout(0.2), nn.Linear(WIDTH, NUM_CLASSES))
        draw = torch.Generator().manual_seed(SEED)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.1, generator=draw)


class Diary:
    """The samples of every step, one line a step, on disk when the step begins."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a", encoding="utf-8")

    def note(self, ids: Iterable[int] | Tensor) -> None:
        self._file.write(json.dumps(ids.tolist() if isinstance(ids, Tensor) else list(ids)) + "\n")
        self._file.flush()


def die() -> None:
    """SIGKILL for this run and its loader's processes, as when the machine goes away."""
    os.killpg(0, signal.SIGKILL)


def write_weights(net: nn.Module, file: Path) -> None:
    """The weights at the end of a run."""
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, str(file))


# --- ours -------------------------------------------------------------------------------------------------------------


class NetTask(Task):
    """``Net`` on the pixels of one frame; a clip's class is a function of its id."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def collator(self, train: bool) -> Callable[[Sequence[Sample]], Batch]:  # noqa: ARG002
        return ToyCollator()

    def forward(self, batch: Batch) -> TaskOutput:
        scores = self.net(batch.frames.flatten(1).float() / 255)  # (B, NUM_CLASSES)
        loss = nn.functional.cross_entropy(scores, batch.ids % NUM_CLASSES, reduction="sum")
        return TaskOutput(terms={"loss": Term(loss, float(len(batch)))})


class NotedLoader(Loader):
    """Our loader; the samples of each step go into a diary when the trainer takes it."""

    diary: Diary

    def stream(self, epoch: int, *, start: int = 0) -> Iterator[LoadedStep]:
        for step in super().stream(epoch, start=start):
            self.diary.note([int(id) for batch in step.batches for id in batch.ids])
            yield step


class Killer:
    """Ends the process as soon as a checkpoint is there."""

    @hookimpl
    def antmmf_checkpoint_saved(self) -> None:
        die()


def train(folder: Path, *, kill: bool, resume: bool, workers: int, accumulation: int = 1) -> None:
    """Our run in ``folder``, from the start or from its newest checkpoint; one of the processes of a run or alone."""
    with joined_world("cpu") as world:
        loader = _loader(folder, workers=workers, accumulation=accumulation, world=world)
        loader.diary = Diary(folder / f"{'resumed' if resume else 'started'}.{world.rank}.jsonl")
        manager = new_manager()
        for name, callback in {"jsonl": JsonLines(), **({"killer": Killer()} if kill else {})}.items():
            register(manager, callback, name=name)
        task = NetTask()
        step = Step(task, world=world, seed=SEED)
        checkpoints = Checkpoints(folder / "checkpoints", world=world)
        trainer = Trainer(
            task,
            model=parallel.wrap(step, torch.device("cpu")) if world.size > 1 else step,
            world=world,
            optimizer=build_optimizer(AdamW(lr=1e-2), task),
            schedule=Cosine(),
            loader=loader,
            settings=TrainSettings(max_steps=NUM_STEPS, seed=SEED, snapshot_interval=KILLED_AT),
            hook=manager.hook,
            checkpoints=checkpoints,
        )
        newest = checkpoints.latest() if resume else None
        state = trainer.restore(load_checkpoint(newest)) if newest else RunState()
        info = RunInfo("toy", folder, NUM_STEPS, STEPS_AN_EPOCH, BATCH, "cpu", (), {})
        if world.is_first:
            manager.hook.antmmf_run_start(info=info, state=state)
        trainer.fit(state)
        loader.close()
        if world.is_first:
            manager.hook.antmmf_run_end(info=info, state=state, error=None)
            write_weights(task.net, folder / "weights.safetensors")


def _loader(folder: Path, *, workers: int, accumulation: int, world: World) -> NotedLoader:
    return NotedLoader(
        toy_reader(toy_index(folder.parent, NUM_SAMPLES), size=FRAME_SIZE, noise=True, seed=SEED),
        ToyCollator(),
        batch_size=BATCH,
        train=True,
        seed=SEED,
        micro_batches=accumulation,
        num_workers=workers,
        rank=world.rank,
        num_ranks=world.size,
    )
