"""MIL-NCE: a video and its texts are bags, of which any pair may be the one that fits."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from antmmf.contracts import Term
from antmmf.contrastive import text_shares
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_ENTRIES = 1 << 25  # of a strip of similarities at a time: 128 MiB in float32


def bag_similarity(words: Tensor, clips: Tensor, *, scale: float) -> Tensor:
    """s (N, B) of texts that are bags of ``words`` (N, K, D) and videos that are bags of ``clips`` (B, C, D):

        s[t, v] = log sum over k, c of exp( scale * words[t, k] . clips[v, c] )

    The N x K x B x C products are made in strips, and again in the backward pass, so that N x B is what is kept.
    Computed in float32 or better.
    """
    dtype = torch.promote_types(words.dtype, torch.float32)
    with torch.autocast(words.device.type, enabled=False):
        words, flat = words.to(dtype), clips.to(dtype).flatten(0, 1)
        each = max(1, _ENTRIES // (words.shape[1] * len(flat)))
        if each >= len(words):
            return _strip(words, flat, clips.shape[1], scale)
        parts = [
            checkpoint(_strip, part, flat, clips.shape[1], scale, use_reentrant=False, preserve_rng_state=False)
            for part in torch.split(words, each)
        ]
        return torch.cat(parts)


def _strip(words: Tensor, flat: Tensor, num_clips: int, scale: float) -> Tensor:
    n, k, _ = words.shape
    products = scale * (words.flatten(0, 1) @ flat.T)  # (n * k, B * C)
    return products.view(n, k, -1, num_clips).logsumexp((1, 3))


def mil_nce(similarity: Tensor, owner: Tensor) -> Tensor:
    """The loss of each video (B,) from ``similarity`` (N, B), logarithms of unnormalised probabilities, where text t
    belongs to video ``owner[t]``, or to nobody (-1). With P(v) the texts of v,

        l(v) = -log  sum over t in P(v) of exp s[t, v]
                     / ( sum over all t of exp s[t, v]  +  sum over t in P(v), v' != v of exp s[t, v'] )

    Miech et al. 2020, End-to-End Learning of Visual Representations from Uncurated Instructional Videos, equation 1.
    A video without a text gives 0.
    """
    nothing = torch.finfo(similarity.dtype).min / 4  # an infinity would give NaN as the gradient of an empty sum
    own = owner[:, None] == torch.arange(similarity.shape[1], device=owner.device)  # (N, B)
    right = similarity.masked_fill(~own, nothing).logsumexp(0)
    elsewhere = similarity.masked_fill(own, nothing).logsumexp(1, keepdim=True)  # (N, 1)
    wrong_videos = torch.where(own, elsewhere, nothing).logsumexp(0)
    losses = torch.logaddexp(similarity.logsumexp(0), wrong_videos) - right
    return losses * own.any(0)


class MilNce(nn.Module):
    """MIL-NCE over the clips of each video (``mil_nce`` with s = log of the sum over clips of exp(cosine /
    ``temperature``)): it suffices that one of the clips fits the text.

    AntMMF has no temperature (1), and counts only the middle clip of a video as its right one: ``clips: middle``.
    """

    over_clips = True

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0)] = 0.05,
        clips: Literal["all", "middle"] = "all",
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.clips = clips

    def forward(self, video: Tensor, text: Tensor, owner: Tensor) -> Term:
        """``video`` (B, C, D) clips, or (B, D) of one clip each; ``text`` (N, D), ``owner`` (N,); of unit length."""
        clips = video if video.ndim == 3 else video[:, None]  # (B, C, D)
        _, num_texts = text_shares(owner, len(video), torch.promote_types(video.dtype, torch.float32))
        if self.clips == "middle":
            losses = self._middle(clips, text, owner)
        else:
            losses = mil_nce(bag_similarity(text[:, None], clips, scale=1 / self.temperature), owner)
        return Term(losses.sum(), (num_texts > 0).sum())

    def _middle(self, clips: Tensor, text: Tensor, owner: Tensor) -> Tensor:
        """As AntMMF computes it (its rows are texts repeated for each of the p clips):

        l(v) = -log  p e^s[t, v, m] / ( p sum over t' of e^s[t', v, m]  +  sum over v' != v, c of e^s[t, v', c] )
        """
        p = clips.shape[1]
        with torch.autocast(clips.device.type, enabled=False):
            dtype = torch.promote_types(clips.dtype, torch.float32)
            middle = (text.to(dtype) @ clips[:, p // 2].to(dtype).T) / self.temperature  # (N, B)
        own = owner[:, None] == torch.arange(len(clips), device=owner.device)
        every = bag_similarity(text[:, None], clips, scale=1 / self.temperature)
        replicas = middle + torch.log(torch.tensor(float(p), dtype=dtype, device=text.device))
        nothing = torch.finfo(dtype).min / 4
        right = replicas.masked_fill(~own, nothing).logsumexp(0)
        elsewhere = every.masked_fill(own, nothing).logsumexp(1, keepdim=True)
        wrong = torch.where(own, elsewhere, nothing).logsumexp(0)
        return (torch.logaddexp(replicas.logsumexp(0), wrong) - right) * own.any(0)
