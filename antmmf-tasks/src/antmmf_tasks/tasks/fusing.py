"""What the tasks with a cross encoder share: which module fuses, and the pooler of what it gives."""

from __future__ import annotations

import copy
from typing import cast

from antmmf.contracts import FusionEncoder, TextEncoder, VisionEncoder
from antmmf.errors import ComponentError
from torch import Tensor, nn


def fusion_of(vision: VisionEncoder, text: TextEncoder, fusion: FusionEncoder | None) -> FusionEncoder:
    """The module that reads texts together with videos: ``fusion``, else the text encoder itself.

    Raises ``ComponentError`` where that cannot, or where it does not fit ``vision``, or the words of ``text``.
    """
    if fusion is None and not hasattr(text, "fuse"):
        raise ComponentError(
            f"the text encoder {type(text).__name__} must offer fuse, or model_attributes have a fusion_encoder"
        )
    found = cast(FusionEncoder, fusion if fusion is not None else text)
    taken = getattr(found, "video_dim", found.dim)
    if taken != vision.dim:
        block = "text_encoder" if fusion is None else "fusion_encoder"
        raise ComponentError(
            f"the encoder that fuses must take video tokens of size {vision.dim}, takes {taken}; "
            f"set model_attributes.{block}.params.video_dim to {vision.dim}"
        )
    own = getattr(fusion, "tokenizer", text.tokenizer)
    if len(own) != len(text.tokenizer):
        raise ComponentError(
            f"the fusion encoder must know the text encoder's {len(text.tokenizer):,} words, its own are {len(own):,}: "
            "give both blocks of model_attributes the same name and vocabulary"
        )
    return found


class FusedPooler(nn.Module):
    """The first token's state through a linear layer and tanh, as BERT pools (Devlin et al. 2019): (N, D) to (N, D).

    It begins as a copy of the fusing encoder's ``pooler``, where that has one, and is not shared with it (SNP).
    """

    def __init__(self, fusion: FusionEncoder) -> None:
        super().__init__()
        own = getattr(fusion, "pooler", None)
        self.dense = copy.deepcopy(own) if isinstance(own, nn.Linear) else nn.Linear(fusion.dim, fusion.dim)

    def forward(self, pooled: Tensor) -> Tensor:
        """``pooled`` (N, D) of an ``Encoded`` that ``fuse`` returned."""
        return self.dense(pooled).tanh()  # type: ignore[no-any-return]
