"""InfoNCE, the symmetric contrastive loss of CLIP, for videos with several texts and texts of nobody."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from antmmf.contracts import Term
from antmmf.contrastive import text_shares, tiled_info_nce
from pydantic import Field
from torch import Tensor, nn

LARGEST_SCALE = 100.0  # CLIP's bound on 1 / temperature, without which a learned one diverges


class InfoNCE(nn.Module):
    """Pull each video to its texts and away from all others, in both directions.

    With s = video . text / temperature, video i, its texts P(i) and all texts N, including those of nobody:

        l(i) = mean over t in P(i) of -1/2 [ log softmax over texts   s(i, .) at t     (video -> text)
                                           + log softmax over videos  s(., t) at i ]   (text -> video)

    The term is the sum of l over the videos that have a text, and their number: a video counts once, however many
    texts it has, and the mean over micro-batches or ranks is the mean over their videos. With one text a video this is
    the loss of CLIP (Radford et al. 2021), whose halves are InfoNCE (van den Oord et al. 2018, CPC). With several, the
    average lies outside the logarithm (L_out of Khosla et al. 2020, Supervised Contrastive Learning), and the
    denominator holds all of a video's texts. A text of nobody (owner -1) stands in the denominator of every video
    and takes no part in text -> video, where it has no right answer.

    ``learned`` makes 1 / temperature a parameter (its logarithm, as in CLIP) that starts at ``temperature`` and acts as
    at most 100; its gradient goes on beyond, so that it can come back.

    ``tile`` compares that many texts with all videos at a time, instead of all at once: the same loss and gradient
    for large batches, whose matrix of all pairs does not fit (see ``antmmf.contrastive``). 1024 is a good number.
    """

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0)] = 0.05,
        learned: bool = False,
        tile: Annotated[int, Field(gt=0)] | None = None,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.log_scale = nn.Parameter(torch.tensor([-math.log(temperature)])) if learned else None
        self.tile = tile

    def forward(self, video: Tensor, text: Tensor, owner: Tensor) -> Term:
        """``video`` (B, D) and ``text`` (N, D) of unit length, ``owner`` (N,); computed in float32 or better."""
        scale = self._scale()
        if self.tile is not None:
            return tiled_info_nce(video, text, owner, scale=scale, tile=self.tile)
        dtype = torch.promote_types(video.dtype, torch.float32)
        with torch.autocast(video.device.type, enabled=False):
            logits = scale * (text.to(dtype) @ video.to(dtype).T)  # (N, B)
        right = owner.clamp(min=0)[:, None]  # (N, 1)
        log_p = (logits.log_softmax(1) + logits.log_softmax(0)).gather(1, right)[:, 0]  # (N,)
        share, num_texts = text_shares(owner, len(video), dtype)
        return Term(-0.5 * (share * log_p).sum(), (num_texts > 0).sum())

    def _scale(self) -> Tensor | float:
        if self.log_scale is None:
            return 1 / self.temperature
        # Clamping would end the gradient for good, and changing the parameter here would be lost under FSDP2.
        beyond = (self.log_scale.detach() - math.log(LARGEST_SCALE)).clamp(min=0)
        return (self.log_scale - beyond).exp()  # (1,): FSDP2 shards no parameter without a dimension
