"""One module, many processes: DDP or FSDP2, compiled or not, behind one function."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from antmmf.distributed.world import World
from antmmf.errors import ConfigError
from antmmf.recompute import recomputed
from antmmf.task import encoders_of

Mode = Literal["ddp", "fsdp2"]
_ENTRIES = ("encode", "relate", "loss", "evaluate_split")  # methods of a task that are called beside ``forward``


def blocks_of(task: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a task's encoders, each once."""
    found = {id(block): block for encoder in encoders_of(task) for block in getattr(encoder, "blocks", list)()}
    return list(found.values())


def prepare(
    task: nn.Module, *, compile: bool, activation_checkpointing: bool, channels_last: bool, sharded: bool
) -> None:
    """Change how ``task`` computes, in place; names of parameters stay.

    Compiles whole encoders, or under FSDP2 their blocks, between which it fetches weights.
    """
    if channels_last:
        for tensor in (*task.parameters(), *task.buffers()):
            if tensor.ndim == 4:  # Module.to would also try, and fail, with the 5 dimensions of a Conv3d
                tensor.data = tensor.data.to(memory_format=torch.channels_last)
    if activation_checkpointing:
        if not blocks_of(task):
            raise ConfigError("training_parameters.activation_checkpointing: no encoder of this task has blocks()")
        for block in blocks_of(task):
            block.forward = _recomputing(block, compiled=compile)
    if compile:
        for module in blocks_of(task) if sharded else encoders_of(task):
            module.compile()


def _recomputing(block: nn.Module, *, compiled: bool) -> Callable[..., Any]:
    """The forward pass of ``block``, computed again in the backward pass; a compiled one sees to buffers itself.

    A function, for torch.compile leaves out a ``functools.partial`` of ``checkpoint``.
    """
    forward = block.forward

    def again(*args: Any, **kwargs: Any) -> Any:
        if compiled:
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        return recomputed(block, partial(forward, **kwargs), *args, preserve_rng_state=True)

    return again


def shard(task: nn.Module, world: World, device: torch.device) -> None:
    """Shard the parameters over all processes (FSDP2): block by block, then what is left of the task.

    Never a whole encoder: ``fuse`` and tied word tables would meet parts of it.
    """
    from torch.distributed.device_mesh import init_device_mesh  # a second of imports, for those who need them
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (world.size,))
    for block in blocks_of(task):
        fully_shard(block, mesh=mesh)
    fully_shard(task, mesh=mesh)
    for name in _ENTRIES:
        if getattr(task, name, None) is not None:
            register_fsdp_forward_method(task, name)


def wrap(step: nn.Module, device: torch.device) -> nn.Module:
    """``step`` under DDP, which averages gradients over the processes while the backward pass runs.

    The graph is static: a task uses the same parameters at every step, though perhaps not all it has.
    """
    index = None if device.type in ("cpu", "mps") else [device.index or 0]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
        return DistributedDataParallel(
            step, device_ids=index, broadcast_buffers=False, gradient_as_bucket_view=True, static_graph=True
        )
