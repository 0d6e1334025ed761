"""A small text and fusion encoder that learns from nothing in minutes, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from antmmf.contracts import Assets, Encoded
from antmmf.errors import ComponentError
from pydantic import Field
from torch import Tensor, nn

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
        if dim % heads:
            raise ComponentError(f"heads must divide dim {dim}, is {heads}")
        super().__init__()
        self.dim = dim
        self.video_dim = video_dim or dim
        pieces = assets.get("vocabulary", lambda texts: train_pieces(texts, vocab_size=vocab_size, lowercase=lowercase))
        self.tokenizer = WordPiece(pieces, max_length=max_length, lowercase=lowercase)
        self.words = nn.Embedding(len(pieces), dim)
        nn.init.normal_(self.words.weight, std=_WORD_STD)
        self.position = nn.Parameter(torch.randn(max_length, dim) * _POSITION_STD)
        self.video = nn.Linear(self.video_dim, dim)
        self.video_segment = nn.Parameter(torch.randn(dim) * _POSITION_STD)
        layer = nn.TransformerEncoderLayer(
            dim, heads, 4 * dim, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(dim), enable_nested_tensor=False)
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
        return list(self.transformer.layers)

    def _embed(self, tokens: Tensor) -> Tensor:
        return self.words(tokens) + self.position[: tokens.shape[1]]  # type: ignore[no-any-return]

    def _encode(self, x: Tensor, mask: Tensor) -> Encoded:
        """``x`` (N, L, dim) through the layers; its first token is CLS."""
        x = self.transformer(x, src_key_padding_mask=~mask)
        weights = mask.unsqueeze(-1).to(x.dtype)
        mean = (x * weights).sum(1) / weights.sum(1).clamp(min=1)
        return Encoded(tokens=x, mask=mask, pooled=self.pool(torch.cat([x[:, 0], mean], dim=-1)))
