"""Encoders small enough to follow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from antmmf.contracts import Encoded
from torch import Tensor, nn


class Words:
    """One id a word, by its length; 0 pads."""

    pad_id, mask_id, special_ids = 0, 1, frozenset({0, 1})

    def __len__(self) -> int:
        return 32

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        return [[2 + len(word) for word in text.split()] for text in texts]


class TinyVision(nn.Module):
    """Sees the mean brightness of each frame, weighted by its place."""

    image_size = None
    masks_padding = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.linear = nn.Linear(1, dim)

    def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:
        light = frames.to(self.linear.weight.dtype).sum((3, 4, 5)).flatten(1)  # (B, C * F)
        light = light / sizes.prod(1, keepdim=True) / 255
        place = torch.arange(1.0, light.shape[1] + 1)
        pooled = self.linear((light * place).mean(1, keepdim=True))
        return Encoded(pooled[:, None], torch.ones(len(frames), 1, dtype=torch.bool), pooled)

    def blocks(self) -> list[nn.Module]:
        return []


class TinyText(nn.Module):
    """The mean of word vectors."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.tokenizer = Words()
        self.words = nn.Embedding(32, dim)

    def forward(self, tokens: Tensor, mask: Tensor) -> Encoded:
        words = self.words(tokens) * mask[..., None]
        return Encoded(words, mask, words.sum(1) / mask.sum(1, keepdim=True))

    def blocks(self) -> list[nn.Module]:
        return []


class FusingText(TinyText):
    """Adds the mean of the video's tokens to that of the words."""

    def fuse(self, tokens: Tensor, mask: Tensor, video: Encoded) -> Encoded:
        text = self(tokens, mask)
        return Encoded(text.tokens, mask, text.pooled + video.tokens.mean(1))
