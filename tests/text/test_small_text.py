from __future__ import annotations

import json

import pytest
import torch
from antmmf.assets import RunAssets
from antmmf.contracts import Assets, Encoded, FusionEncoder, TextEncoder
from antmmf_text.encoders.small_text import SmallText
from torch import Tensor


@pytest.fixture
def encoder(assets: Assets) -> SmallText:
    torch.manual_seed(0)
    return SmallText(dim=32, depth=2, heads=4, max_length=16, video_dim=24, assets=assets).eval()


def padded(encoder: SmallText, texts: list[str], length: int) -> tuple[Tensor, Tensor]:
    tokens = torch.full((len(texts), length), encoder.tokenizer.pad_id)
    for row, ids in enumerate(encoder.tokenizer(texts)):
        tokens[row, : len(ids)] = torch.tensor(ids)
    return tokens, tokens != encoder.tokenizer.pad_id


def video(count: int, length: int, *, real: bool = True) -> Encoded:
    tokens = torch.randn(count, length, 24, generator=torch.Generator().manual_seed(2))
    return Encoded(tokens=tokens, mask=torch.full((count, length), real), pooled=tokens.mean(1))


def test_it_is_a_text_and_a_fusion_encoder(encoder: SmallText) -> None:
    assert isinstance(encoder, TextEncoder)
    assert isinstance(encoder, FusionEncoder)


def test_shapes_are_those_of_the_contract(encoder: SmallText) -> None:
    tokens, mask = padded(encoder, ["a red circle", "the green star jumps"], 10)
    out = encoder(tokens, mask)
    assert out.tokens.shape == (2, 10, 32)
    assert out.pooled.shape == (2, 32)
    assert torch.equal(out.mask, mask)


def test_padding_changes_nothing(encoder: SmallText) -> None:
    texts = ["a red circle", "the green star jumps"]
    short, long = encoder(*padded(encoder, texts, 8)), encoder(*padded(encoder, texts, 16))
    torch.testing.assert_close(long.pooled, short.pooled)
    torch.testing.assert_close(long.tokens[long.mask], short.tokens[short.mask])


def test_the_order_of_words_matters(encoder: SmallText) -> None:
    one, two = encoder(*padded(encoder, ["red circle then blue square", "blue square then red circle"], 8)).pooled
    assert not torch.allclose(one, two, atol=1e-3)


def test_fusion_puts_the_text_first(encoder: SmallText) -> None:
    tokens, mask = padded(encoder, ["a red circle", "the green star jumps"], 8)
    out = encoder.fuse(tokens, mask, video(2, 5))
    assert out.tokens.shape == (2, 13, 32)
    assert torch.equal(out.mask[:, :8], mask)


def test_fusion_with_a_video_that_is_all_padding_is_the_text_alone(encoder: SmallText) -> None:
    tokens, mask = padded(encoder, ["a red circle", "the green star jumps"], 8)
    alone, fused = encoder(tokens, mask), encoder.fuse(tokens, mask, video(2, 5, real=False))
    torch.testing.assert_close(fused.pooled, alone.pooled)
    torch.testing.assert_close(fused.tokens[:, :8][mask], alone.tokens[mask])


def test_the_video_changes_what_fusion_says(encoder: SmallText) -> None:
    tokens, mask = padded(encoder, ["a red circle"], 8)
    assert not torch.allclose(encoder.fuse(tokens, mask, video(1, 5)).pooled, encoder(tokens, mask).pooled, atol=1e-3)


def test_the_vocabulary_is_the_word_table(encoder: SmallText) -> None:
    assert encoder.vocabulary.shape == (len(encoder.tokenizer), 32)
    assert encoder.vocabulary is encoder.words.weight


def test_the_vocabulary_is_an_asset_of_plain_json(assets: RunAssets) -> None:
    first = SmallText(dim=32, heads=4, assets=assets)
    saved = json.loads(json.dumps(dict(assets.values())))
    again = SmallText(dim=32, heads=4, assets=RunAssets(saved, texts=lambda: iter(())))
    assert again.tokenizer(["a red circle 红"]) == first.tokenizer(["a red circle 红"])


def test_every_parameter_gets_a_gradient_from_fusion(encoder: SmallText) -> None:
    tokens, mask = padded(encoder, ["a red circle"], 8)
    encoder.fuse(tokens, mask, video(1, 5)).pooled.square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_blocks_are_the_layers(encoder: SmallText) -> None:
    assert len(encoder.blocks()) == 2
