"""How many micro-batches a step needs to fit into an accelerator's memory, found by trying."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from antmmf.batch import Batch
from antmmf.checkpoint.shards import is_sharded
from antmmf.contracts import RunState
from antmmf.errors import AntmmfError
from antmmf.recompute import undone
from antmmf.step import Step, total

if TYPE_CHECKING:
    from antmmf.trainer import Trainer

log = logging.getLogger("antmmf")

_STATES = 3  # tensors of a parameter's size that a later step holds beside it: two of Adam's, one bucket of DDP's


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on an accelerator or the CPU, for which torch has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def explained(error: Exception, *, device: torch.device | str, batches: Sequence[Batch]) -> AntmmfError | None:
    """What a user can do about an error of a step; None for one that nobody knows."""
    if is_out_of_memory(error):
        return out_of_memory(device, batches)
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        said = " ".join(str(error).split())[:300]
        return AntmmfError(
            f"training_parameters.compile: torch cannot compile this model here ({type(error).__name__}: {said}); "
            "set compile false, or give torch what it asks for, such as a C++ compiler"
        )
    return None


def out_of_memory(device: torch.device | str, batches: Sequence[Batch]) -> AntmmfError:
    """The error to raise when a step does not fit."""
    return AntmmfError(
        f"out of memory on {device} with micro-batches of {max(map(len, batches))} samples: lower "
        "training_parameters.micro_batch_size (auto finds the largest that fits), or set "
        "training_parameters.activation_checkpointing true, or training_parameters.enable_amp true; or the tile of a "
        "contrastive loss, where the whole batch's similarities are what does not fit"
    )


def find_micro_batches(trainer: Trainer, state: RunState) -> int:
    """The smallest power of two of micro-batches whose step fits on every process; weights stay as they are.

    A run that goes on keeps what it found before: its random draws depend on it.
    """
    if state.micro_batches is not None:
        return state.micro_batches
    assert not any(map(is_sharded, trainer.task.parameters())), "processes that share weights cannot try alone"
    number = 1
    while True:
        trainer.loader.micro_batches = number
        batches = list(next(iter(trainer.loader.epoch(state.epoch, start=state.position))).batches)
        has_failed = not _fits(trainer, [trainer.move(batch) for batch in batches]) if batches else False
        if not trainer.world.exchange([has_failed]).any():
            if trainer.world.is_first:
                size = -(-trainer.loader.batch_size // (trainer.world.size * number))
                log.info("micro_batch_size auto: %d samples, %d micro-batches a step", size, number)
            return number
        if max(map(len, batches), default=1) == 1:
            raise out_of_memory(trainer.settings.device, batches)
        number *= 2


def _fits(trainer: Trainer, batches: list[Batch]) -> bool:
    """Whether a step of this process alone fits, with room for what later steps hold."""
    task, settings = trainer.task, trainer.settings
    size = trainer.world.size
    step = Step(task, seed=settings.seed, device=settings.device, amp=settings.amp, rehearsed=size)
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    try:
        room = [torch.empty_like(parameter) for parameter in trained for _ in range(_STATES)]
        with undone(task):
            total(step(batches, 0)).backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        if is_out_of_memory(error):
            return False
        raise
    else:
        del room
        return True
    finally:
        task.zero_grad(set_to_none=True)
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
