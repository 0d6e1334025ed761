"""The contrastive loss without the matrix of all pairs: exact, in strips, in memory that grows with one side only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from antmmf.contracts import Term


def tiled_info_nce(video: Tensor, text: Tensor, owner: Tensor, *, scale: Tensor | float, tile: int) -> Term:
    """Symmetric InfoNCE over ``video`` (B, D) and ``text`` (N, D) in O(B x tile) memory instead of O(B x N).

    Text t belongs to video ``owner[t]`` or, where that is -1, to nobody. ``scale`` is 1 / temperature: a number, or a
    tensor of one element, which gets a gradient, too. With s[t, i] = scale * text[t] . video[i] and
    w[t] = 1 / (number of texts of t's video), 0 for a text of nobody, the term's sum is

        L = sum over t of  w[t] * ( (R[t] + C[owner[t]]) / 2 - s[t, owner[t]] )
        R[t] = log sum over videos i of exp s[t, i],     C[i] = log sum over texts t of exp s[t, i]

    and its count the number of videos that have a text. The forward pass computes s for ``tile`` texts and all videos
    at a time: R is then known, C is put together strip by strip, as in an online softmax (Milakov and Gimelshein 2018).
    It keeps R and C; the backward pass computes the strips of s again, as FlashAttention does (Dao et al. 2022), for

        dL/ds[t, i] = w[t] * exp(s[t, i] - R[t]) / 2 + [i has a text] * exp(s[t, i] - C[i]) / 2 - w[t] * [i = owner[t]]

    Loss and gradient are those of the whole matrix to rounding, at 4 products of matrices instead of 3, and the same
    bits for the same input. Computed in float32 or better, also under autocast. Differentiable once.
    """
    assert tile > 0, tile
    dtype = torch.promote_types(video.dtype, torch.float32)
    share, num_texts = text_shares(owner, len(video), dtype)
    scaled = (scale * text.to(dtype)).to(dtype)  # by autograd: a learned scale costs no pass over the strips
    inputs = (video.to(dtype), scaled, owner.clamp(min=0), share, num_texts)
    total: Tensor = _TiledSum.apply(*inputs, tile)  # type: ignore[no-untyped-call]
    return Term(total, (num_texts > 0).sum())


def text_shares(owner: Tensor, num_videos: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Each text's share (N,) in the mean over its video's texts, 0 for a text of nobody, and each video's number of
    texts (B,)."""
    owned, row = (owner >= 0).to(dtype), owner.clamp(min=0)
    num_texts = torch.zeros(num_videos, dtype=dtype, device=owner.device).index_add(0, row, owned)
    return owned / num_texts[row].clamp(min=1), num_texts


class _TiledSum(torch.autograd.Function):
    """L of ``tiled_info_nce`` for logits ``text @ video.T``; autocast leaves ``out=`` and in-place products alone."""

    @staticmethod
    def forward(
        ctx: Any, video: Tensor, text: Tensor, row: Tensor, share: Tensor, num_texts: Tensor, tile: int
    ) -> Tensor:
        chosen, rows = text.new_empty(2, len(text))
        columns = video.new_full((len(video),), -math.inf)
        for texts, logits, spare in _strips(video, text, tile):
            chosen[texts] = logits.gather(1, row[texts, None])[:, 0]
            rows[texts] = _log_sum_exp(logits, 1, spare)
            columns = torch.logaddexp(columns, _log_sum_exp(logits, 0, spare))
        ctx.save_for_backward(video, text, row, share, num_texts, rows, columns)
        ctx.tile = tile
        total: Tensor = (share * ((rows + columns[row]) / 2 - chosen)).sum()
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        if torch.is_grad_enabled():  # under create_graph; once_differentiable would notice only some of these
            raise RuntimeError("the tiled contrastive loss can be differentiated once; for more, leave out its tile")
        video, text, row, share, num_texts, rows, columns = ctx.saved_tensors
        rows = rows - (share / 2).log()  # infinite where the share is 0: exp(logits - rows) is then the weight 0
        columns = (columns + math.log(2)).masked_fill(num_texts == 0, math.inf)
        grad_video = torch.zeros_like(video) if ctx.needs_input_grad[0] else None
        grad_text = torch.empty_like(text) if ctx.needs_input_grad[1] else None
        for texts, logits, spare in _strips(video, text, ctx.tile):
            grad = torch.sub(logits, rows[texts, None], out=spare).exp_()  # (tile, B), of the logits
            grad += logits.sub_(columns).exp_()
            grad.scatter_add_(1, row[texts, None], -share[texts, None])
            if grad_text is not None:
                torch.mm(grad, video, out=grad_text[texts])
            if grad_video is not None:
                grad_video.addmm_(grad.T, text[texts])
        of_video, of_text = (None if grad is None else grad.mul_(grads[0]) for grad in (grad_video, grad_text))
        return of_video, of_text, None, None, None, None


def _strips(video: Tensor, text: Tensor, tile: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """``tile`` texts at a time, their logits (tile, B) and a buffer of that shape; both are used again for the next."""
    buffers = text.new_empty(2, min(tile, len(text)), len(video))
    for start in range(0, len(text), tile):
        texts = slice(start, min(start + tile, len(text)))
        logits, spare = buffers[:, : texts.stop - start]
        yield texts, torch.mm(text[texts], video.T, out=logits), spare


def _log_sum_exp(logits: Tensor, dim: int, spare: Tensor) -> Tensor:
    """As ``logits.logsumexp(dim)``, without memory of its own."""
    largest = logits.amax(dim, keepdim=True)
    total = torch.sub(logits, largest, out=spare).exp_().sum(dim, keepdim=True)
    return total.log_().add_(largest).squeeze(dim)
