"""CNVid: pre-training with a curriculum of hard samples."""

from __future__ import annotations

from typing import Annotated

import torch
from antmmf.contracts import Assets, ContrastiveLoss, FusionEncoder, TextEncoder, VisionEncoder
from antmmf.task import Features, Share
from pydantic import Field
from torch import Tensor

from antmmf_tasks.pretraining.pairs import curriculum_rate, easy_weights, hard_videos
from antmmf_tasks.pretraining.settings import HardSamples, Masking, Matching, Weights, WordMatching
from antmmf_tasks.tasks.pretraining import Pretraining

_NUM_AVERAGED = 8  # draws: AntMMF's processes


class Cnvid(Pretraining):
    """CNVid-3.5M (CVPR 2023): the base with hard sample curriculum learning (HSCL). In a share of steps that grows with
    training, ``match`` compares each text not with the videos of its group but with those of the whole batch that are
    hard to tell from its own, by the L1 similarities; pairs that are easy already count less. ``hard_samples.when:
    every_step`` is hard sample mining without a curriculum. LVWM and MSSM are off by default.

    Losses, masks and all else are those of ``snps3``.
    """

    def __init__(
        self,
        *,
        vision: VisionEncoder,
        text: TextEncoder,
        fusion: FusionEncoder | None = None,
        contrast: ContrastiveLoss | str = "antmmf-tasks:infonce",
        weights: Weights = Weights(lvwm=0),  # noqa: B008  # frozen
        masking: Masking = Masking(policy="mlm"),  # noqa: B008
        matching: Matching = Matching(),  # noqa: B008
        lvwm: WordMatching = WordMatching(),  # noqa: B008
        hard_samples: HardSamples = HardSamples(),  # noqa: B008
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        dim: Annotated[int, Field(gt=0)] | None = None,
        assets: Assets,
    ) -> None:
        super().__init__(
            vision=vision,
            text=text,
            fusion=fusion,
            contrast=contrast,
            weights=weights,
            masking=masking,
            matching=matching,
            lvwm=lvwm,
            dropout=dropout,
            dim=dim,
            assets=assets,
        )
        self._hard = hard_samples

    def candidates(self, features: Features, share: Share, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Hard videos of the whole batch, or those of the group: one or the other for all texts of a step."""
        videos, real, is_hard = super().candidates(features, share, size)
        chosen = self._is_hard(features.step, share.draws)
        similarity = (features.text @ features.video.T).detach()
        hard = hard_videos(similarity, features.owner, size, self._hard.how)
        if chosen:
            return hard, torch.ones_like(real), torch.ones_like(is_hard)
        return videos, real, is_hard

    def pair_weights(self, features: Features) -> Tensor:
        """Easy pairs count less."""
        if not self._hard.reweight or self._hard.when == "never":
            return super().pair_weights(features)
        return easy_weights((features.text * features.video[features.owner]).sum(1).detach())

    def _is_hard(self, step: int, draws: torch.Generator) -> bool:
        """Drawn from (seed, step), alike on all processes."""
        drawn = torch.rand(_NUM_AVERAGED if self._hard.draw == "averaged" else 1, generator=draws).mean()
        if self._hard.when != "curriculum":
            return self._hard.when == "every_step"
        rate = curriculum_rate(step, change_iter=self._hard.change_iter, change_rate=self._hard.change_rate)
        return bool(drawn < rate)
