"""Checks of the contracts of encoders; each raises ``AssertionError`` that says what must hold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from antmmf.contracts import Encoded, FusionEncoder, TextEncoder, VisionEncoder
from antmmf.testing.claims import check_encoded, check_model, must, pickled, same


def check_vision_encoder(encoder: VisionEncoder, *, clips: int = 2, frames: int = 2, size: int | None = None) -> None:
    """Check an encoder on noise: ``clips`` x ``frames`` pictures of ``size`` pixels (default: its ``image_size``).

    Shapes and types, the same output whatever else is in the batch, indifference to padding where
    ``masks_padding`` promises it, and a state_dict that holds all of it.
    """
    side = size or encoder.image_size or 64
    noise = torch.randint(
        0, 256, (3, clips, frames, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    model = _evaluated(encoder)

    def encoded(pixels: Tensor, real: int = side) -> Encoded:
        sizes = torch.full((len(pixels), 2), real)
        with torch.no_grad():
            return check_encoded(encoder(pixels, sizes), rows=len(pixels), dim=encoder.dim)

    whole = encoded(noise)
    if whole.clips is not None:
        must(whole.clips.shape[1] == clips, f"clips must be ({len(noise)}, {clips}, {encoder.dim})")
    must(not same(whole.pooled[0], whole.pooled[1]), "different videos must not be pooled to the same vector")
    must(same(encoded(noise[:1]).pooled, whole.pooled[:1]), "a video's output must not depend on its batch")
    if encoder.masks_padding:
        real = side // 2
        small = encoded(noise[..., :real, :real].contiguous(), real).pooled
        must(same(small, encoded(noise, real).pooled), "masks_padding: what lies beyond sizes must change nothing")
    check_model(model, lambda: encoded(noise).pooled)


def check_text_encoder(encoder: TextEncoder, *, texts: Sequence[str] = ("a dog", "two cats and a dog sit")) -> None:
    """Check an encoder and its tokenizer on ``texts`` of different lengths, and ``fuse`` where the encoder has it."""
    ids = _check_tokenizer(encoder, texts)
    pad = encoder.tokenizer.pad_id
    model = _evaluated(encoder)
    longest = max(map(len, ids))
    tokens = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in ids])
    mask = torch.tensor([[place < len(row) for place in range(longest)] for row in ids])

    def encoded(rows: int, length: int) -> Encoded:
        with torch.no_grad():
            return check_encoded(encoder(tokens[:rows, :length], mask[:rows, :length]), rows=rows, dim=encoder.dim)

    whole = encoded(len(ids), longest)
    alone = encoded(1, len(ids[0]))
    must(same(alone.pooled, whole.pooled[:1]), "a text's output must depend neither on its batch nor on padding")
    check_model(model, lambda: encoded(len(ids), longest).pooled)
    if isinstance(encoder, FusionEncoder):
        _check_fusion(encoder, tokens, mask)


def _check_tokenizer(encoder: TextEncoder, texts: Sequence[str]) -> list[list[int]]:
    tokenizer = encoder.tokenizer
    ids = tokenizer(texts)
    must([len(row) > 0 for row in ids] == [True] * len(texts), "the tokenizer must give every text at least one id")
    known = range(len(tokenizer))
    must(all(id in known for row in ids for id in row), f"ids must lie in 0 to {len(tokenizer) - 1}")
    named = {tokenizer.pad_id, tokenizer.mask_id, *tokenizer.special_ids}
    must(all(id in known for id in named), "pad_id, mask_id and special_ids must be ids of the tokenizer")
    must(tokenizer.pad_id in tokenizer.special_ids, "special_ids must hold pad_id")
    must(pickled(tokenizer)(texts) == ids, "a pickled tokenizer must give the same ids")
    return ids


def _check_fusion(encoder: FusionEncoder, tokens: Tensor, mask: Tensor) -> None:
    rows, length = tokens.shape
    width = getattr(encoder, "video_dim", None) or encoder.dim
    table = encoder.vocabulary
    must(table.ndim == 2 and table.shape[1] == encoder.dim, f"vocabulary must be (V, {encoder.dim})")
    draw = torch.Generator().manual_seed(0)
    seen = Encoded(torch.randn(rows, 5, width, generator=draw), torch.ones(rows, 5).bool(), torch.zeros(rows, width))
    with torch.no_grad():
        fused = check_encoded(encoder.fuse(tokens, mask, seen), rows=rows, dim=encoder.dim)
    must(fused.tokens.shape[1] == length + 5, f"fuse must return {length} + 5 tokens, not {fused.tokens.shape[1]}")
    must(bool((fused.mask[:, :length] == mask).all()), "fuse must return the text's tokens first, with their mask")


def _evaluated(encoder: object) -> object:
    return encoder.eval() if isinstance(encoder, nn.Module) else encoder
