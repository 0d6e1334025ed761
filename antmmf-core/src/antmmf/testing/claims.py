"""What the checks share: a claim that must hold, equality of outputs, a copy through pickle."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from antmmf.contracts import Encoded

Thing = TypeVar("Thing")


def must(holds: bool, claim: str) -> None:
    """Raise ``AssertionError`` saying which claim does not hold; unlike ``assert``, also under ``python -O``."""
    if not holds:
        raise AssertionError(claim)


def pickled(thing: Thing) -> Thing:
    """A copy through pickle, as the loader's workers get it."""
    try:
        copy: Thing = pickle.loads(pickle.dumps(thing))
    except Exception as error:
        raise AssertionError(f"{type(thing).__name__} must be picklable: {error}") from error
    return copy


def check_encoded(encoded: object, *, rows: int, dim: int) -> Encoded:
    """Check the shapes and types of an encoder's output, which is returned."""
    must(isinstance(encoded, Encoded), f"an encoder must return Encoded, not {type(encoded).__name__}")
    assert isinstance(encoded, Encoded)
    tokens, mask, pooled = encoded.tokens, encoded.mask, encoded.pooled
    length = tokens.shape[1] if tokens.ndim == 3 else -1
    must(tokens.shape == (rows, length, dim), f"tokens must be ({rows}, L, {dim}), are {tuple(tokens.shape)}")
    must(mask.shape == (rows, length), f"mask must be ({rows}, {length}), is {tuple(mask.shape)}")
    must(mask.dtype == torch.bool, f"mask must be bool and True where real, is {mask.dtype}")
    must(bool(mask.any(1).all()), "mask must be True somewhere in every row")
    must(pooled.shape == (rows, dim), f"pooled must be ({rows}, {dim}), is {tuple(pooled.shape)}")
    must(bool(tokens[mask].isfinite().all() and pooled.isfinite().all()), "tokens and pooled must be finite")
    for name, value, shape in (
        ("clips", encoded.clips, (rows, None, dim)),
        ("attention", encoded.attention, (rows, length)),
    ):
        fits = value is None or (
            value.ndim == len(shape) and all(w in (None, s) for w, s in zip(shape, value.shape, strict=True))
        )
        must(fits, f"{name} must be None or {shape}, is {None if value is None else tuple(value.shape)}")
    return encoded


def check_model(model: object, pooled: Callable[[], Tensor]) -> None:
    """Check an ``nn.Module`` in evaluation: repeatable, ``blocks()`` its own, all of its state in state_dict."""
    must(isinstance(model, nn.Module), f"an encoder must be an nn.Module, not a {type(model).__name__}")
    assert isinstance(model, nn.Module)
    before = pooled()
    must(same(before, pooled()), "eval() must give the same output twice")
    blocks = model.blocks()  # type: ignore[operator]
    own = set(model.modules())
    must(all(block in own for block in blocks), "blocks() must name modules of the encoder")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1) if value.is_floating_point() else value.zero_()
    model.load_state_dict(state)
    must(same(before, pooled()), "after load_state_dict of its own state_dict the output must be what it was")


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two outputs are equal but for rounding."""
    return one.shape == other.shape and bool(torch.allclose(one, other, rtol=1e-3, atol=1e-4))
