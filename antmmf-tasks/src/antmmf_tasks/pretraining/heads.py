"""What stands on top of the encoders in pre-training, and what fine-tuning takes over."""

from __future__ import annotations

from typing import Literal

import torch
from antmmf.contracts import Encoded, Term
from antmmf.errors import ComponentError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize

from antmmf_tasks.pretraining.masking import IGNORED

Head = Literal["linear", "mlp"]


def projections(vision_dim: int, text_dim: int, dim: int | None, *, head: Head = "mlp") -> tuple[nn.Module, nn.Module]:
    """What makes vectors of ``dim`` of videos and of texts. ``mlp``: two layers for videos, by default of their own
    size, and nothing for texts whose size is right already. ``linear``: one layer each; without ``dim`` none, and sizes
    must be equal, else ``ComponentError``."""
    if head == "mlp":
        dim = dim or vision_dim
        of_video = nn.Sequential(nn.Linear(vision_dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        return of_video, nn.Identity() if text_dim == dim else nn.Linear(text_dim, dim, bias=False)
    if dim is not None:
        return nn.Linear(vision_dim, dim, bias=False), nn.Linear(text_dim, dim, bias=False)
    if vision_dim != text_dim:
        raise ComponentError(
            f"without a projection the encoders must have equal sizes, vision has {vision_dim} and text {text_dim}; "
            f"set dim, for example dim={min(vision_dim, text_dim)}"
        )
    return nn.Identity(), nn.Identity()


def video_vectors(projection: nn.Module, video: Encoded, *, head: Head) -> Tensor:
    """A video's vector (B, dim) of unit length: with ``mlp`` the mean of its clips'."""
    return unit(clip_vectors(projection, video).mean(1) if head == "mlp" else projection(video.pooled))


def clip_vectors(projection: nn.Module, video: Encoded) -> Tensor:
    """The projected clips of a video (B, C, dim), of unit length; one, of the whole, where the encoder gives none."""
    return unit(projection(video.clips if video.clips is not None else video.pooled[:, None]))


def unit(vectors: Tensor) -> Tensor:
    """``vectors`` of length 1, in float32 or better."""
    return normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)


class MaskedWords(nn.Module):
    """BERT's head for masked words (Devlin et al. 2019): a linear layer, GELU and a norm, then the word table, which is
    the encoder's own, and a bias for each word."""

    def __init__(self, dim: int, num_words: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim))
        self.bias = nn.Parameter(torch.zeros(num_words))

    def forward(self, states: Tensor, labels: Tensor, vocabulary: Tensor) -> tuple[Term, Term]:
        """Cross entropy and share of right words over the hidden ones: ``states`` (N, L, D), ``labels`` (N, L)."""
        hidden = labels != IGNORED
        wanted = labels[hidden]
        logits = linear(self.transform(states[hidden]), vocabulary, self.bias[: len(vocabulary)])  # (M, V)
        losses = cross_entropy(logits.float() if logits.dtype != torch.float64 else logits, wanted, reduction="sum")
        return Term(losses, hidden.sum()), Term((logits.argmax(1) == wanted).sum(), hidden.sum(), 0)


class MatchHead(nn.Module):
    """How well a text fits a video, from what fusing them gave: dropout, then two linear layers to one number, in
    float32 or better: with the 8 bits of bfloat16 many candidates of a split would have the same score."""

    def __init__(self, dim: int, *, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, 1))

    def forward(self, pooled: Tensor) -> Tensor:
        """``pooled`` (..., D) to (...)."""
        with torch.autocast(pooled.device.type, enabled=False):
            return self.layers(pooled.to(next(self.parameters()).dtype))[..., 0]  # type: ignore[no-any-return]


class ClipOrder(nn.Module):
    """Where each of at most ``max_clips`` shuffled clips belongs (HERO: Li et al. 2020, frame order modelling)."""

    def __init__(self, dim: int, *, max_clips: int) -> None:
        super().__init__()
        self.max_clips = max_clips
        self.layers = nn.Sequential(
            nn.Linear(dim, 2 * dim), nn.GELU(), nn.LayerNorm(2 * dim), nn.Linear(2 * dim, max_clips)
        )

    def forward(self, states: Tensor) -> Tensor:
        """``states`` (N, C, D) to logits (N, C, max_clips)."""
        return self.layers(states)  # type: ignore[no-any-return]
