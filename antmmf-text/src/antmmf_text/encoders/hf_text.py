"""The text halves of CLIP, Chinese-CLIP and SigLIP from transformers: ``hf/<id or folder>``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from antmmf.contracts import Assets, Encoded
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from antmmf_text.models import config_of, find, network, tokenizer_of

KINDS = ("clip", "chinese_clip", "siglip")
"""Values of ``model_type`` in config.json."""

_OTHER_HALF = ("vision_model.", "visual_projection.", "logit_")
_CHINESE_LENGTH = 52  # of the texts it was trained with; it has positions for 512


class HfText(nn.Module):
    """The text towers of CLIP, Chinese-CLIP and SigLIP: ``hf/<id or folder>``.

    ``pooled`` is what the library's ``get_text_features`` gives: through the model's own projection, so that it can be
    compared with the vectors of the vision tower of that name without another layer; tokens pass the same one.

    ``max_length`` None is the length that the model was trained with: 77 for CLIP, 52 for Chinese-CLIP, 64 for SigLIP,
    which reads its padding too: every text is padded to its 64 positions. ``random_window`` reads a drawn window of a
    longer text, in training.

    The name is looked for as a folder, then in ``weights_dir``, then on the Hub; a folder is read without the network.
    With ``pretrained: false`` it is random; without tokenizer files it then reads word pieces of the training texts.
    Tokenizer and config are kept with the checkpoint.
    """

    def __init__(
        self,
        *,
        model: str,
        pretrained: bool = True,
        weights_dir: Path | None = None,
        max_length: Annotated[int, Field(gt=2)] | None = None,
        random_window: bool = False,
        assets: Assets,
    ) -> None:
        super().__init__()
        source = find(model, weights_dir)
        config, is_restored = config_of(source, assets, asset="HfText", kinds=KINDS)
        half = config.text_config
        positions = int(half.max_position_embeddings)
        self._kind: str = config.model_type
        usual = min(_CHINESE_LENGTH, positions) if self._kind == "chinese_clip" else positions
        self.tokenizer = tokenizer_of(
            source,
            assets,
            vocabulary=None,
            pretrained=pretrained,
            vocab_size=8000,
            lowercase=True,
            max_length=min(max_length or usual, positions),
            random_window=random_window,
        )
        if not pretrained:
            half.vocab_size = len(self.tokenizer)
            half.eos_token_id = self.tokenizer([""])[0][-1]  # whose state is CLIP's vector
        wants = pretrained and not is_restored
        whole = network(source, config, pretrained=wants, optional=_OTHER_HALF, attn_implementation="sdpa")
        self.tower: Any = whole.text_model
        self.text_projection: nn.Linear = self.tower.head if self._kind == "siglip" else whole.text_projection
        if self._kind == "siglip":
            self.tower.head = nn.Identity()
        self._positions = positions
        self.dim: int = self.text_projection.out_features

    def forward(self, tokens: Tensor, mask: Tensor) -> Encoded:
        """``tokens`` (N, L) int64, ``mask`` (N, L)."""
        length = tokens.shape[1]
        if self._kind == "siglip":
            empty = self.tokenizer.pad_id
            tokens = pad(tokens.masked_fill(~mask, empty), (0, self._positions - length), value=empty)
        # CLIP sees only what stands before a token, and its padding stands behind the end
        real = mask.long() if self._kind == "chinese_clip" else None
        out = self.tower(input_ids=tokens, attention_mask=real)
        states: Tensor = out.last_hidden_state  # (N, L, hidden), of SigLIP (N, positions, hidden)
        own = states[:, 0] if self._kind == "chinese_clip" else out.pooler_output
        return Encoded(self.text_projection(states[:, :length]), mask, self.text_projection(own))

    def blocks(self) -> Sequence[nn.Module]:
        """The layers."""
        encoder = self.tower.encoder
        return list(encoder.layer if self._kind == "chinese_clip" else encoder.layers)
