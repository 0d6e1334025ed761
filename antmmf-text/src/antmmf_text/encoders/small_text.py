"""A small text and fusion encoder that learns from nothing in minutes, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from antmmf.contracts import Assets, Encoded
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from antmmf_text.tokenizers import WordPiece, train_pieces

Positive = Annotated[int, Field(gt=0)]

_POSITION_STD = 0.5  # with the usual 0.02 the order of words is never learnt
_WORD_STD = 0.5  # so that words are not drowned by their positions


class SmallText(nn.Module):
    """A transformer over the word pieces of a text, or of a text followed by a video's tokens.

    The vocabulary is made from the training texts and kept as the asset ``vocabulary``; it has at most ``vocab_size``
    pieces. ``pooled`` is a projection of the CLS token beside the mean of the real tokens. ``fuse`` runs the same
    layers (nothing but the video's projection is added); ``video_dim`` is the video encoder's ``dim`` where it differs.
    """

    def __init__(
        self,
        *,
        dim: Positive = 128,
        depth: Positive = 2,
        heads: Positive = 4,
        max_length: Annotated[int, Field(gt=2)] = 32,
        vocab_size: Annotated[int, Field(gt=5)] = 8000,
        lowercase: bool = True,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        video_dim: Positive | None = None,
        assets: Assets,
    ) -> None:
        super().__init__()
        self.dim = dim
        pieces = assets.get("vocabulary", lambda texts: train_pieces(texts, vocab_size=vocab_size, lowercase=lowercase))
        self.tokenizer = WordPiece(pieces, max_length=max_length, lowercase=lowercase)
        self.words = nn.Embedding(len(pieces), dim)
        nn.init.normal_(self.words.weight, std=_WORD_STD)
        self.position = nn.Parameter(torch.randn(max_length, dim) * _POSITION_STD)
        self.video = nn.Linear(video_dim or dim, dim)
        self.video_segment = nn.Parameter(torch.randn(dim) * _POSITION_STD)
        self.layers = nn.ModuleList(Block(dim, heads=heads, dropout=dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.pool = nn.Linear(2 * dim, dim)

    @property
    def vocabulary(self) -> Tensor:
        """The word table (V, dim)."""
        return self.words.weight

    def forward(self, tokens: Tensor, mask: Tensor) -> Encoded:
        """``tokens`` (N, L) int64, ``mask`` (N, L); L is at most ``max_length``."""
        return self._encode(self._embed(tokens), mask)

    def fuse(self, tokens: Tensor, mask: Tensor, video: Encoded) -> Encoded:
        """Row i of ``tokens`` (N, L) with row i of ``video`` (N, K, video_dim): L + K tokens, the text's first."""
        seen = self.video(video.tokens) + self.video_segment
        words = self._embed(tokens)
        return self._encode(torch.cat([words, seen.to(words.dtype)], dim=1), torch.cat([mask, video.mask], dim=1))

    def blocks(self) -> Sequence[nn.Module]:
        """The transformer's layers."""
        return list(self.layers)

    def _embed(self, tokens: Tensor) -> Tensor:
        return self.words(tokens) + self.position[: tokens.shape[1]]  # type: ignore[no-any-return]

    def _encode(self, x: Tensor, mask: Tensor) -> Encoded:
        """``x`` (N, L, dim) through the layers; its first token is CLS."""
        seen = mask[:, None, None]  # (N, 1, 1, L)
        for layer in self.layers:
            x = layer(x, seen)
        x = self.norm(x)
        weights = mask.unsqueeze(-1).to(x.dtype)
        mean = (x * weights).sum(1) / weights.sum(1).clamp(min=1)
        return Encoded(tokens=x, mask=mask, pooled=self.pool(torch.cat([x[:, 0], mean], dim=-1)))


class Block(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, dim: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self._heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.queries_keys_values, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """``x`` (B, L, D); ``seen`` (B, 1, 1, L) True where a token may be attended to."""
        parts = self.queries_keys_values(self.attention_norm(x)).unflatten(-1, (3, self._heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, L, D / heads)
        mixed = _attention(q, k, v, seen)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        y: Tensor = x + self.dropout(self.mlp(self.mlp_norm(x)))
        return y


def _attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Softmax attention; written out on a CPU, where the fused kernel's backward pass in bfloat16 is 8 times slower."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    hidden = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill(~seen, -torch.inf)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + hidden
    return scores.softmax(dim=-1) @ v
