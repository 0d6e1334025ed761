from __future__ import annotations

import pytest
import torch
from antmmf.contracts import Encoded, VisionEncoder
from antmmf_vision.encoders.small_video import SmallVideo
from torch import Tensor


@pytest.fixture
def encoder() -> SmallVideo:
    torch.manual_seed(0)
    return SmallVideo(dim=32, depth=2, heads=4, image_size=64, max_frames=8).eval()


def pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def sizes(count: int, height: int, width: int) -> Tensor:
    return torch.tensor([[height, width]]).expand(count, 2)


def test_it_is_a_vision_encoder(encoder: SmallVideo) -> None:
    assert isinstance(encoder, VisionEncoder)


def test_shapes_are_those_of_the_contract(encoder: SmallVideo) -> None:
    out = encoder(pixels(2, 3, 2, 3, 48, 64), sizes(2, 48, 64))
    assert isinstance(out, Encoded)
    assert out.tokens.shape == (2, 3 * 2, 32)  # a token is a frame
    assert out.mask.shape == (2, 6)
    assert out.pooled.shape == (2, 32)
    assert out.clips is not None
    assert out.clips.shape == (2, 3, 32)


def test_padding_changes_nothing(encoder: SmallVideo) -> None:
    clip = pixels(2, 2, 1, 3, 40, 40)
    padded = pixels(2, 2, 1, 3, 64, 56)  # rubbish beyond the real size
    padded[..., :40, :40] = clip
    alone, within = encoder(clip, sizes(2, 40, 40)), encoder(padded, sizes(2, 40, 40))
    torch.testing.assert_close(within.pooled, alone.pooled)
    torch.testing.assert_close(within.clips, alone.clips)
    torch.testing.assert_close(within.tokens[within.mask], alone.tokens[alone.mask])


def test_the_order_of_frames_matters(encoder: SmallVideo) -> None:
    clip = pixels(1, 4, 1, 3, 64, 64)
    size = sizes(1, 64, 64)
    assert not torch.allclose(encoder(clip, size).pooled, encoder(clip.flip(1), size).pooled, atol=1e-3)


def test_a_row_does_not_depend_on_the_others(encoder: SmallVideo) -> None:
    clips = pixels(3, 2, 1, 3, 64, 64)
    together, alone = encoder(clips, sizes(3, 64, 64)), encoder(clips[1:2], sizes(1, 64, 64))
    torch.testing.assert_close(together.pooled[1:2], alone.pooled)


def test_a_clip_is_the_mean_of_its_frames(encoder: SmallVideo) -> None:
    out = encoder(pixels(2, 4, 2, 3, 64, 64), sizes(2, 64, 64))
    assert out.clips is not None
    torch.testing.assert_close(out.clips[:, 1], (out.tokens[:, 2] + out.tokens[:, 3]) / 2)


def test_fewer_frames_than_positions_are_taken(encoder: SmallVideo) -> None:
    assert encoder(pixels(2, 1, 1, 3, 64, 64), sizes(2, 64, 64)).pooled.shape == (2, 32)


def test_more_frames_than_positions_are_refused(encoder: SmallVideo) -> None:
    with pytest.raises(ValueError, match="8 frames at most, got 9: raise max_frames"):
        encoder(pixels(1, 9, 1, 3, 64, 64), sizes(1, 64, 64))


def test_more_pixels_than_positions_are_refused(encoder: SmallVideo) -> None:
    with pytest.raises(ValueError, match="64 pixels at most, got 64 x 80"):
        encoder(pixels(1, 2, 1, 3, 64, 80), sizes(1, 64, 80))


def test_every_parameter_gets_a_gradient(encoder: SmallVideo) -> None:
    out = encoder(pixels(2, 8, 1, 3, 64, 64), sizes(2, 64, 64))
    out.pooled.square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_blocks_are_the_layers(encoder: SmallVideo) -> None:
    assert len(encoder.blocks()) == 2


def test_half_precision_on_a_cpu_is_close(encoder: SmallVideo) -> None:
    clip, size = pixels(2, 8, 1, 3, 64, 64), sizes(2, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(clip, size).pooled
    assert torch.nn.functional.cosine_similarity(half.float(), encoder(clip, size).pooled).min() > 0.99
