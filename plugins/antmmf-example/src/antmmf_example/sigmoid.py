"""A contrastive loss: each pair of a video and a text is a question of its own (Zhai et al. 2023, SigLIP)."""

from __future__ import annotations

import torch
from antmmf import Term
from torch import Tensor, nn


class Sigmoid(nn.Module):
    """Mean over videos of -sum over texts of log sigmoid(+-(scale x cosine + bias)), + where a text is the video's."""

    def __init__(self, *, scale: float = 10.0, bias: float = -10.0) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(1) * scale), nn.Parameter(torch.ones(1) * bias)

    def forward(self, video: Tensor, text: Tensor, owner: Tensor) -> Term:
        logits = self.scale * text @ video.T + self.bias  # (N, B)
        own = owner[:, None] == torch.arange(len(video), device=owner.device)
        return Term(-nn.functional.logsigmoid(torch.where(own, logits, -logits)).sum(), len(video))
