"""Compute a forward pass again in the backward pass instead of keeping what it made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_Buffers: TypeAlias = "list[tuple[dict[str, Tensor | None], dict[str, Tensor | None]]]"


def recomputed(module: nn.Module, function: Callable[..., Any], *args: Any, preserve_rng_state: bool) -> Any:
    """``function(*args)``, which keeps nothing for the backward pass but its results.

    What it writes into the buffers of ``module`` (batch statistics, queues) it writes once: the second pass sees the
    buffers that the first one saw, and leaves no trace.
    """
    return checkpoint(
        function,
        *args,
        use_reentrant=False,
        preserve_rng_state=preserve_rng_state,
        context_fn=partial(_passes, module),
    )


@contextmanager
def undone(module: nn.Module) -> Iterator[None]:
    """What is written into the buffers of ``module`` inside is gone afterwards."""
    before = _buffers(module)
    _copy(before)
    try:
        yield
    finally:
        _put(before)


def _passes(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the two passes. The first one, which begins at once, writes into copies."""
    seen = _buffers(module)
    _copy(seen)
    return nullcontext(), _again(module, seen)


@contextmanager
def _again(module: nn.Module, seen: _Buffers) -> Iterator[None]:
    after = _buffers(module)
    _put(seen)
    try:
        yield
    finally:
        _put(after)


def _buffers(module: nn.Module) -> _Buffers:
    """Every submodule's own dictionary of buffers, and what is in it now."""
    return [(part._buffers, dict(part._buffers)) for part in module.modules()]


def _copy(buffers: _Buffers) -> None:
    for own, tensors in buffers:
        own.update({name: tensor.clone() for name, tensor in tensors.items() if tensor is not None})


def _put(buffers: _Buffers) -> None:
    for own, tensors in buffers:
        own.clear()
        own.update(tensors)
