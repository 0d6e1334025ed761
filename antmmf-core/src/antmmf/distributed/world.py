"""The group of all processes, and what they tell each other; a run of one process has a world of one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from antmmf.distributed.environment import Ranks, count_restarts, prepare_environment, ranks, restarts
from antmmf.distributed.store import shared_store

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all: ``rank`` of ``size``, and ``local_rank`` of ``num_local`` on its host; collectives do
    nothing where it is alone.

    Values travel between CPUs (gloo) beside an accelerator's own backend, so that nothing waits for a stream.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    num_local: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def exchange(self, values: Sequence[float]) -> Tensor:
        """The ``values`` of every rank, (size, len(values)) float64."""
        table = torch.zeros(self.size, len(values), dtype=torch.float64)
        table[self.rank] = torch.tensor(values, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(table)
        return table

    def broadcast(self, value: T) -> T:
        """The ``value`` of rank 0, on every rank."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        received: T = box[0]
        return received

    def collect(self, value: T) -> list[T]:
        """The ``value`` of every rank, by rank."""
        if self.size == 1:
            return [value]
        table: list[Any] = [None] * self.size
        dist.all_gather_object(table, value)
        return table

    def wait(self) -> None:
        """Return when every rank has come here."""
        self.exchange([0.0])


@contextmanager
def joined_world(device: torch.device | str) -> Iterator[World]:
    """Join the process group that the launcher prepared, and leave it at the end; alone there is none.

    gloo carries CPU tensors, and ``device``'s own backend (nccl on CUDA) those of the accelerator.
    """
    own: Ranks = ranks()
    if own.size == 1:
        yield World()
        return
    prepare_environment()
    kind = torch.device(device).type
    backend = "cpu:gloo" if kind == "cpu" else f"cpu:gloo,{kind}:{dist.get_default_backend_for_device(kind)}"
    dist.init_process_group(backend, store=shared_store(), rank=own.rank, world_size=own.size)
    try:
        world = World(own.rank, own.size, own.local_rank, own.num_local)
        count_restarts(int(world.exchange([restarts()]).max()))  # agents of several machines count each for itself
        yield world
        world.wait()  # a process that leaves early takes the others' connections with it
    finally:
        # gloo's threads drop their last tensors, for which they need the interpreter's lock; torch 2.13 holds it while
        # it joins these threads, and would wait for ever.
        time.sleep(0.1)
        dist.destroy_process_group()
