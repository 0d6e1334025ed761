"""Recompute chosen stages of a library's network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import MethodType
from typing import Any

import torch
from antmmf.errors import ComponentError
from antmmf.recompute import recomputed
from torch import nn
from torch.utils.checkpoint import checkpoint

Checkpointing = bool | list[bool]
"""Of all stages alike, or of each."""


def recompute_stages(stages: Sequence[Sequence[nn.Module]], wanted: Checkpointing) -> None:
    """Let the blocks of the wanted stages keep nothing for the backward pass but their results.

    ``training_parameters.activation_checkpointing`` does the same for all blocks; both together only waste time.
    Raises ``ComponentError`` when there are not as many flags as stages, or nothing to compute again.
    """
    if wanted and not any(stages):
        raise ComponentError("gradient_checkpointing: must be false, no blocks are found in this network")
    flags = [wanted] * len(stages) if isinstance(wanted, bool) else wanted
    if len(flags) != len(stages):
        raise ComponentError(f"gradient_checkpointing: must have {len(stages)} values, one a stage, has {len(flags)}")
    for stage, flag in zip(stages, flags, strict=True):
        for block in stage if flag else ():
            block.forward = MethodType(_forward_again, block)  # bound, so that a deep copy computes with its own


def _forward_again(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = partial(type(block).forward, block)
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    if torch.compiler.is_compiling():  # the compiler sees to buffers itself
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    return recomputed(block, partial(forward, **kwargs), *args, preserve_rng_state=True)
