"""The one batch of every task: B videos, N texts, and whose each text is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B videos of C clips x F frames, and N texts; an image is a video of one frame.

    ``ids`` (B,) int64 sample ids; ``frames`` (B, C, F, 3, H, W) uint8; ``sizes`` (B, 2) real height and width inside
    the padded frames; ``tokens`` (N, L) int64; ``token_mask`` (N, L) bool; ``owner`` (N,) int64 row of the video that
    each text belongs to, -1 for a text that belongs to none (a hard negative). ``targets`` and ``extras`` are the
    task's own tensors; extras travel along untouched, so that another modality needs no change of the core.
    """

    ids: Tensor
    frames: Tensor
    sizes: Tensor
    tokens: Tensor
    token_mask: Tensor
    owner: Tensor
    targets: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        b, n = self.ids.shape[0], self.tokens.shape[0]
        must = {
            "frames is uint8 of 6 dimensions": self.frames.dtype == torch.uint8 and self.frames.ndim == 6,
            f"frames has {b} rows like ids": self.frames.shape[0] == b,
            f"sizes is ({b}, 2)": self.sizes.shape == (b, 2),
            "token_mask is bool and shaped like tokens": self.token_mask.dtype == torch.bool
            and self.token_mask.shape == self.tokens.shape,
            f"owner is ({n},)": self.owner.shape == (n,),
        }
        broken = [rule for rule, holds in must.items() if not holds]
        if broken:
            shapes = {name: tuple(value.shape) for name, value in self._tensors().items()}
            raise ValueError(f"a batch must hold: {'; '.join(broken)}; it is {shapes}")

    def __len__(self) -> int:
        return self.ids.shape[0]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; the loader calls it."""
        return self._map(Tensor.pin_memory)

    def _tensors(self) -> dict[str, Tensor]:
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def _map(self, move: Callable[[Tensor], Tensor]) -> Batch:
        moved: dict[str, Any] = {name: move(tensor) for name, tensor in self._tensors().items()}
        return replace(self, **moved, extras={name: move(tensor) for name, tensor in self.extras.items()})
