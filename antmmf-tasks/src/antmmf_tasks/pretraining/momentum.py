"""Copies of the encoders that follow them slowly, and give the keys of momentum contrast."""

from __future__ import annotations

import copy
from typing import cast

import torch
from antmmf.batch import Batch
from antmmf.contracts import TextEncoder, VisionEncoder
from torch import Tensor, nn

from antmmf_tasks.pretraining.heads import clip_vectors, unit

FOLLOWED = ("vision", "text", "vision_projection", "text_projection")
"""Submodules of the task."""


class MomentumEncoders(nn.Module):
    """Begins as a copy of the task's encoders and projections (He et al. 2020); no gradient reaches it."""

    def __init__(self, task: nn.Module) -> None:
        super().__init__()
        for name in FOLLOWED:
            self.add_module(name, copy.deepcopy(task.get_submodule(name)))
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Keys of the clips (B, C, dim) and texts (N, dim), of unit length."""
        vision, text, of_vision, of_text = (self.get_submodule(name) for name in FOLLOWED)
        video = cast(VisionEncoder, vision)(batch.frames, batch.sizes)
        pooled = cast(TextEncoder, text)(batch.tokens, batch.token_mask).pooled
        return clip_vectors(of_vision, video), unit(of_text(pooled))

    @torch.no_grad()
    def follow(self, task: nn.Module, momentum: float) -> None:
        """Each parameter becomes ``momentum`` x itself + (1 - ``momentum``) x the task's."""
        for name in FOLLOWED:
            own, other = self.get_submodule(name), task.get_submodule(name)
            for mine, leading in zip(own.parameters(), other.parameters(), strict=True):
                mine.lerp_(leading.detach(), 1 - momentum)

    def copy(self, task: nn.Module) -> None:
        """Become the task's encoders as they are."""
        for name in FOLLOWED:
            self.get_submodule(name).load_state_dict(task.get_submodule(name).state_dict())
