"""Parts of a run that break one contract each, as a ``--plugin`` file for the tests of ``check``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from antmmf.batch import Batch
from antmmf.contracts import Collator, Encoded, Figure, Record, Source, TextEncoder, VisionEncoder
from antmmf.distributed.world import World
from antmmf.errors import ComponentError
from antmmf.hookspecs import hookimpl
from antmmf.task import Task, TaskOutput
from torch import Tensor, nn


class Vision(nn.Module):
    """One token a clip."""

    def __init__(
        self,
        *,
        dim: int = 8,
        image_size: int | None = None,
        masks_padding: bool = False,
        fault: Literal["type", "dim", "mask", "shape", "clips", "build", "refuse", "run"] | None = None,
    ) -> None:
        super().__init__()
        if fault == "build":
            raise ZeroDivisionError("on purpose")
        if fault == "refuse":
            raise ComponentError("on purpose")
        self.dim, self.image_size, self.masks_padding = dim + (fault == "dim"), image_size, masks_padding
        self.layer = nn.Linear(1, dim)
        self.fault = fault

    def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:
        del sizes
        if self.fault == "run":
            raise ZeroDivisionError("on purpose")
        tokens = self.layer(frames.float().mean(dim=(2, 3, 4, 5)).unsqueeze(-1))  # (B, C, D)
        mask = torch.ones(tokens.shape[:2], dtype=torch.float32 if self.fault == "mask" else torch.bool)
        mask = mask[:, 1:] if self.fault == "shape" else mask
        clips = tokens[:, :1] if self.fault == "clips" else tokens
        encoded = Encoded(tokens=tokens, mask=mask, pooled=tokens.mean(1), clips=clips)
        return (tokens, mask) if self.fault == "type" else encoded  # type: ignore[return-value]

    def blocks(self) -> Sequence[nn.Module]:
        return []


class Words:
    """Ten words, and five of them at most."""

    pad_id, mask_id, special_ids = 0, 1, frozenset((0, 1))

    def __init__(self, fault: str | None) -> None:
        self.fault = fault

    def __len__(self) -> int:
        return 10

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        return [[10 if self.fault == "ids" else 9] * (6 if self.fault == "long" else 5) for _ in texts]


class Text(nn.Module):
    """Reads and fuses."""

    def __init__(self, *, fault: Literal["type", "ids", "long", "fuse", "words", "refuse"] | None = None) -> None:
        super().__init__()
        if fault == "refuse":
            raise ComponentError("on purpose")
        self.dim, self.fault, self.tokenizer = 8, fault, Words(fault)
        self.table = nn.Embedding(9 if fault == "words" else 10, 8)
        self.position = nn.Parameter(torch.zeros(5, 8))

    @property
    def vocabulary(self) -> Tensor:
        return self.table.weight

    def forward(self, tokens: Tensor, mask: Tensor) -> Encoded:
        x = self.table(tokens) + self.position
        encoded = Encoded(tokens=x, mask=mask, pooled=x.mean(1))
        return (x, mask) if self.fault == "type" else encoded  # type: ignore[return-value]

    def fuse(self, tokens: Tensor, mask: Tensor, video: Encoded) -> Encoded:
        if self.fault == "fuse":
            raise ZeroDivisionError("on purpose")
        x = torch.cat([self.table(tokens), video.tokens], dim=1)
        return Encoded(tokens=x, mask=torch.cat([mask, video.mask], dim=1), pooled=x.mean(1))

    def blocks(self) -> Sequence[nn.Module]:
        return []


class Parts(nn.Module):
    """Everything of a task but being one."""

    def __init__(self, *, vision: VisionEncoder, text: TextEncoder) -> None:
        super().__init__()
        self.vision, self.text = vision, text

    def collator(self, train: bool) -> Collator:
        raise NotImplementedError

    def forward(self, batch: Batch) -> TaskOutput:
        raise NotImplementedError

    def evaluate_split(self, rows: Mapping[str, Tensor], world: World) -> Mapping[str, Tensor]:  # noqa: ARG002
        return rows


class TwoEncoders(Parts, Task):
    """A task with two encoders."""


class Fusing(TwoEncoders):
    """A task with three."""

    def __init__(self, *, vision: VisionEncoder, text: TextEncoder, fusion: TextEncoder) -> None:
        super().__init__(vision=vision, text=text)
        self.fusion = fusion


class Data:
    """A data set whose file is not there."""

    def sources(self) -> Sequence[Path]:
        return [Path("missing.txt")]

    def records(self) -> Iterator[Record]:
        return iter(())


class Silent:
    """A metric that does not say what it measures."""

    def update(self, rows: Mapping[str, Tensor]) -> None: ...

    def compute(self) -> dict[str, Figure]:
        return {}

    def reset(self) -> None: ...


class Broken:
    """A reader and a callback that cannot be built."""

    def __init__(self) -> None:
        raise ComponentError("on purpose")

    def read(self, source: Source, pick: Any) -> Any: ...

    @hookimpl
    def antmmf_run_start(self) -> None: ...


class Flat:
    """A sampler of the wrong shape and type."""

    def __call__(self, times: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:  # noqa: ARG002
        return times[:4]


ANTMMF_COMPONENTS = {
    "vision_encoders": {"vision": Vision},
    "text_encoders": {"text": Text},
    "tasks": {"task": TwoEncoders, "fusing": Fusing, "module": Parts},
    "datasets": {"data": Data},
    "metrics": {"silent": Silent},
    "readers": {"broken": Broken},
    "callbacks": {"broken": Broken},
    "samplers": {"flat": Flat},
}
