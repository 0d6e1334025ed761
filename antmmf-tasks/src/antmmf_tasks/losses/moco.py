"""Cross-modal MoCo: negatives are keys of earlier batches, encoded by slowly moving copies of the encoders."""

from __future__ import annotations

from typing import Annotated

import torch
from antmmf.contracts import Term
from antmmf.errors import ComponentError
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize


class Moco(nn.Module):
    """Momentum contrast (He et al. 2020) between videos and texts, as AntMMF pre-trains with.

    With queries q, keys k of the momentum encoders, and the queues Q of the other side's earlier keys, for each text t
    of video v with clips c:

        l_v = mean over c of  log( e^(q[v,c] . k[t] / T) + sum over Q_text of e^(q[v,c] . k / T) ) - q[v,c] . k[t] / T
        l_t = log( sum over c of e^(q[t] . k[v,c] / T) + sum over Q_video of e^(q[t] . k / T) )
              - log sum over c of e^(q[t] . k[v,c] / T)

    and the term is the mean of (l_v + l_t) / 2 over texts. Texts of nobody take no part. The queues hold
    ``video_queue`` clips and ``text_queue`` texts, begin as random unit vectors, and are part of the checkpoint; the
    oldest keys make room. The task keeps the copies of its encoders, which follow with ``momentum`` after each step.
    """

    over_clips = True

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0)] = 0.05,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9999,
        video_queue: Annotated[int, Field(gt=0)] = 16384,
        text_queue: Annotated[int, Field(gt=0)] = 16384,
    ) -> None:
        super().__init__()
        self.temperature, self.momentum = temperature, momentum
        self._sizes = {"video": video_queue, "text": text_queue}

    def build(self, dim: int) -> None:
        """Make the queues, for vectors of ``dim``."""
        draw = torch.Generator().manual_seed(0)
        for name, size in self._sizes.items():
            keys = normalize(torch.randn(size, dim, generator=draw), dim=1)
            self.register_buffer(f"{name}_keys", keys.to(torch.get_default_dtype()))
        self.register_buffer("places", torch.zeros(2, dtype=torch.int64))

    def forward(self, video: Tensor, text: Tensor, owner: Tensor) -> Term:  # noqa: ARG002
        """Refuses: it needs keys. A task that has momentum encoders calls ``compare``."""
        raise ComponentError("moco needs momentum encoders, which this task does not keep; take infonce or mil_nce")

    def compare(self, video: Tensor, text: Tensor, owner: Tensor, key_video: Tensor, key_text: Tensor) -> Term:
        """``video`` and ``key_video`` (B, C, D), ``text`` and ``key_text`` (N, D), of unit length; ``owner`` (N,)."""
        dtype = torch.promote_types(video.dtype, torch.float32)
        own = owner >= 0
        row = owner.clamp(min=0)
        with torch.autocast(video.device.type, enabled=False):
            texts, keys_of_text = text.to(dtype), key_text.to(dtype)
            clips, keys_of_video = video.to(dtype)[row], key_video.to(dtype)[row]  # (N, C, D)
            text_queue, video_queue = (self.get_buffer(f"{name}_keys").to(dtype) for name in ("text", "video"))
            right = (clips * keys_of_text[:, None]).sum(2, keepdim=True)  # (N, C, 1)
            all_texts = torch.cat([right, clips @ text_queue.T], dim=2) / self.temperature
            of_video = (all_texts.logsumexp(2) - all_texts[..., 0]).mean(1)  # (N,)
            right = (texts[:, None] * keys_of_video).sum(2)  # (N, C)
            all_clips = torch.cat([right, texts @ video_queue.T], dim=1) / self.temperature
            of_text = all_clips.logsumexp(1) - all_clips[:, : right.shape[1]].logsumexp(1)
        return Term(((of_video + of_text) / 2 * own).sum(), own.sum())

    @torch.no_grad()
    def remember(self, key_video: Tensor, key_text: Tensor) -> None:
        """Put the keys of a batch, clips (B, C, D) and texts (N, D), in the place of the oldest ones.

        A key that is not finite (half precision overflows) does not: it would spoil every later step.
        """
        marks: Tensor = self.get_buffer("places")
        for number, (name, keys) in enumerate((("video", key_video.flatten(0, 1)), ("text", key_text))):
            queue = self.get_buffer(f"{name}_keys")
            newest = keys[-len(queue) :].to(queue.dtype)
            places = (marks[number] + torch.arange(len(newest), device=queue.device)) % len(queue)
            finite = newest.isfinite().all(1, keepdim=True)
            queue[places] = torch.where(finite, newest, queue[places])
            marks[number] = (marks[number] + len(newest)) % len(queue)
