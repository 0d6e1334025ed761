"""Processes that save and load together; ``python sharded_ranks.py FOLDER`` leaves checkpoints for the tests to read.

Each rank is a fork of this process, so that torch is imported once.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # sharded modules import it late: a second in every fork
import torch.distributed as dist
from antmmf.checkpoint import Checkpoints, load_checkpoint, load_model, load_optimizer
from antmmf.contracts import RunState
from antmmf.distributed.world import World
from antmmf.errors import CheckpointError
from engine_toys import ToyTask
from safetensors.torch import save, save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


class SmallTask(ToyTask):
    """Tied weights, a tensor of two rows (fewer than there are ranks), and statistics that are not sharded."""

    def __init__(self) -> None:
        super().__init__()
        self.few = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(8, dtype=torch.float64)


def seeded_task(seed: int) -> SmallTask:
    torch.manual_seed(seed)
    return SmallTask()


def build(world: World, *, sharded: bool, seed: int) -> tuple[SmallTask, torch.optim.Optimizer]:
    task = seeded_task(seed)
    if sharded:
        mesh = init_device_mesh("cpu", (world.size,))
        fully_shard(task.vision, mesh=mesh)
        fully_shard(task, mesh=mesh)
    return task, torch.optim.AdamW(task.parameters(), lr=0.1, weight_decay=0.1)


def step(task: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One update whose gradient is the weight itself: the same for any number of processes."""
    for parameter in task.parameters():
        parameter.grad = parameter.detach().clone()
    optimizer.step()


def whole(tensor: Tensor) -> Tensor:
    """All rows of a tensor that may be sharded."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def dump(file: Path, task: nn.Module, optimizer: torch.optim.Optimizer, world: World) -> None:
    """What is in memory, written by safetensors itself; every rank must help to put it together."""
    tensors = {f"model.{name}": whole(tensor).clone() for name, tensor in task.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"{index}.{name}": whole(tensor).clone() for name, tensor in values.items()}
    if world.is_first:
        save_file(tensors, str(file))


def save_sharded(world: World, folder: Path) -> None:
    """Two checkpoints, the first in the background while training goes on."""
    task, optimizer = build(world, sharded=True, seed=1)
    step(task, optimizer)
    step(task, optimizer)
    dump(folder / "2.safetensors", task, optimizer, world)
    checkpoints = Checkpoints(folder, world=world)
    model, states = task.state_dict(), optimizer.state_dict()
    checkpoints.save(RunState(step=2), model=model, optimizer=states, ema=model, in_background=True)
    step(task, optimizer)
    dump(folder / "3.safetensors", task, optimizer, world)
    checkpoints.save(RunState(step=3), model=task.state_dict(), optimizer=optimizer.state_dict(), best=True)
    report = [[state.step, path.name] for state, path in checkpoints.finished()]
    (folder / f"finished.{world.rank}.json").write_text(json.dumps(report))


def resume(world: World, folder: Path, *, source: Path, sharded: bool) -> None:
    """Go on from ``source`` for one step; also save at once what was read."""
    task, optimizer = build(world, sharded=sharded, seed=2)
    checkpoints = Checkpoints(folder, world=world)
    loaded = load_checkpoint(source)
    load_model(task, loaded.model)
    load_optimizer(optimizer, loaded.optimizer or {})
    checkpoints.save(loaded.state, model=task.state_dict(), optimizer=optimizer.state_dict(), ema=loaded.ema)
    step(task, optimizer)
    dump(folder / "3.safetensors", task, optimizer, world)


def save_replicated(world: World, folder: Path) -> None:
    """All ranks of a model under DDP save; each notes which files it opened to write. Then so by upstream's rule."""
    task = seeded_task(1)
    task.norm.running_mean += world.rank  # statistics are each rank's own
    model = nn.parallel.DistributedDataParallel(task, broadcast_buffers=False)
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" and args[2] & 1 else None)

    def upstream_finalize() -> None:
        tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        (folder / "_final.pth").write_bytes(save(tensors))

    checkpoints = Checkpoints(folder, world=world)
    checkpoints.save(RunState(step=1), model=model.module.state_dict())
    ours = [name for name in opened if name.startswith(str(folder))]
    opened.clear()
    upstream_finalize()
    notes = {"ours": ours, "upstream": [name for name in opened if name.startswith(str(folder))]}
    refused = False
    try:
        checkpoints.save(RunState(step=2), model=model.state_dict())
    except AssertionError:
        refused = True
    (folder / f"opened.{world.rank}.json").write_text(json.dumps({**notes, "refused": refused}))


def fail(world: World, folder: Path) -> None:
    """The last rank cannot write its file: all ranks must hear of it, and be able to go on."""
    task, _ = build(world, sharded=True, seed=1)
    checkpoints = Checkpoints(folder, world=world)
    checkpoints.save(RunState(step=1), model=task.state_dict())
    blocked = world.rank == world.size - 1

    def block(event: str, arguments: tuple[object, ...]) -> None:
        if blocked and event == "open" and "model.0" in str(arguments[0]):
            raise OSError(28, "No space left on device")

    sys.addaudithook(block)
    heard = []
    for in_background in (False, True):
        try:
            checkpoints.save(RunState(step=2), model=task.state_dict(), in_background=in_background)
            checkpoints.wait()
        except CheckpointError as error:
            heard.append(str(error))
    heard.append(str(checkpoints.newest_whole()))
    blocked = False
    checkpoints.save(RunState(step=3), model=task.state_dict())
    (folder / f"heard.{world.rank}.json").write_text(json.dumps(heard))


def together(size: int, act: Callable[..., None], folder: Path, **options: object) -> None:
    """Call ``act`` in ``size`` processes that form a world."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
                act(World(rank, size, rank), folder, **options)
                dist.destroy_process_group()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert not any(codes), f"{act.__name__}: {codes}"


def main(folder: Path) -> None:
    """Every scene in a folder of its own."""
    torch.set_num_threads(1)
    for size in (2, 3):
        together(size, save_sharded, folder / f"from{size}")
    one = seeded_task(1)
    optimizer = torch.optim.AdamW(one.parameters(), lr=0.1, weight_decay=0.1)
    step(one, optimizer)
    step(one, optimizer)
    Checkpoints(folder / "from1").save(RunState(step=2), model=one.state_dict(), optimizer=optimizer.state_dict())
    for before, after in ((1, 2), (2, 2), (2, 3), (3, 2)):
        source = folder / f"from{before}" / "step_000002"
        together(after, resume, folder / f"from{before}to{after}", source=source, sharded=True)
    together(2, resume, folder / "from3toddp", source=folder / "from3/step_000002", sharded=False)
    together(2, save_replicated, folder / "ddp")
    together(2, fail, folder / "full")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
