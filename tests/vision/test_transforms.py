from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from antmmf.errors import ComponentError
from antmmf_vision.transforms import LongSide, RandAugmentCrop, ResizeCrop
from torch import Tensor


def frames(height: int, width: int, count: int = 2) -> Tensor:
    ramp = torch.arange(width).expand(count, 3, height, width)
    return ramp.to(torch.uint8).contiguous()


def test_a_frame_of_the_right_size_is_not_touched() -> None:
    clip = frames(64, 64)
    assert ResizeCrop(size=64)(clip, None).data_ptr() == clip.data_ptr()
    assert ResizeCrop(size=64)(clip, np.random.default_rng(0)).data_ptr() == clip.data_ptr()


def test_the_result_is_a_square_of_bytes() -> None:
    for rng in (None, np.random.default_rng(0)):
        for shape in ((48, 100), (100, 48), (20, 20)):
            out = ResizeCrop(size=32, max_scale=1.3)(frames(*shape), rng)
            assert out.shape == (2, 3, 32, 32)
            assert out.dtype == torch.uint8


def test_evaluation_cuts_the_middle() -> None:
    out = ResizeCrop(size=10)(frames(10, 30), None)
    assert out[0, 0, 0].tolist() == list(range(10, 20))


def test_training_cuts_anywhere_and_all_frames_alike() -> None:
    rng = np.random.default_rng(0)
    cuts = [ResizeCrop(size=10)(frames(10, 30), rng) for _ in range(100)]
    assert all(torch.equal(cut[0], cut[1]) for cut in cuts)
    assert {int(cut[0, 0, 0, 0]) for cut in cuts} == set(range(21))


def test_nothing_is_mirrored_unless_asked_for() -> None:
    rng = np.random.default_rng(0)
    assert all(torch.equal(ResizeCrop(size=10)(frames(10, 10), rng), frames(10, 10)) for _ in range(20))


def test_flip_mirrors_about_half_the_clips() -> None:
    rng = np.random.default_rng(0)
    transform = ResizeCrop(size=10, flip=True)
    mirrored = [torch.equal(transform(frames(10, 10), rng), frames(10, 10).flip(-1)) for _ in range(200)]
    assert 70 < sum(mirrored) < 130


def test_the_same_generator_gives_the_same_pixels() -> None:
    one, two = (
        ResizeCrop(size=16, max_scale=1.5, flip=True)(frames(40, 60), np.random.default_rng(3)) for _ in range(2)
    )
    assert torch.equal(one, two)


# --- longside ---------------------------------------------------------------------------------------------------------


def test_the_longer_side_gets_the_size_and_the_shape_is_kept() -> None:
    assert LongSide(max_size=60)(frames(100, 200), None).shape == (2, 3, 30, 60)
    assert LongSide(max_size=60)(frames(40, 20), None).shape == (2, 3, 60, 30)


@pytest.mark.parametrize("max_size", [448, 768])
def test_training_draws_the_longer_side_in_steps_of_32(max_size: int) -> None:
    rng = np.random.default_rng(0)
    sides = {max(LongSide(max_size=max_size)(frames(2, 4, 1), rng).shape[-2:]) for _ in range(300)}
    assert sides == set(range(224, max_size + 1, 32))


def test_the_longer_side_is_not_drawn_without_random_scale_nor_below_224() -> None:
    rng = np.random.default_rng(0)
    assert all(LongSide(max_size=256, random_scale=False)(frames(4, 8), rng).shape[-1] == 256 for _ in range(20))
    assert all(LongSide(max_size=64)(frames(4, 8), rng).shape[-1] == 64 for _ in range(20))


def test_a_long_side_that_fits_is_not_touched() -> None:
    clip = frames(32, 64)
    assert LongSide(max_size=64)(clip, None).data_ptr() == clip.data_ptr()


# --- randaugment_crop -------------------------------------------------------------------------------------------------


def test_evaluation_scales_the_shorter_side_to_268_and_cuts_the_middle() -> None:
    clip = torch.randint(0, 256, (1, 3, 268, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(RandAugmentCrop()(clip, None), clip[..., 22 : 22 + 224, 38 : 38 + 224])


def test_the_shorter_side_becomes_268_to_336_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()

    def look(clip: Tensor, rng: np.random.Generator, **settings: float) -> Tensor:  # noqa: ARG001
        assert settings == {"magnitude": 9.0, "num_layers": 2, "prob": 0.5}
        seen.add(min(clip.shape[-2:]))
        return clip

    monkeypatch.setattr("antmmf_vision.transforms.randaugment", look)
    rng = np.random.default_rng(0)
    for _ in range(600):
        assert RandAugmentCrop()(frames(2, 3, 1), rng).shape == (1, 3, 224, 224)
    assert seen == set(range(268, 337))


def test_half_the_clips_are_mirrored_unless_forbidden() -> None:
    rng = np.random.default_rng(0)
    settings: dict[str, Any] = {"size": 10, "min_scale": 1, "max_scale": 1, "prob": 0}
    mirrored = [torch.equal(RandAugmentCrop(**settings)(frames(10, 10), rng), frames(10, 10)) for _ in range(200)]
    assert 70 < sum(mirrored) < 130
    kept = RandAugmentCrop(**settings, flip=False)
    assert all(torch.equal(kept(frames(10, 10), rng), frames(10, 10)) for _ in range(20))


def test_the_smallest_scale_must_not_exceed_the_largest() -> None:
    with pytest.raises(ComponentError, match="min_scale"):
        RandAugmentCrop(min_scale=1.6)


# --- all of them ------------------------------------------------------------------------------------------------------

TRANSFORMS = [
    ResizeCrop(size=32, max_scale=1.5, flip=True),
    LongSide(max_size=288),
    RandAugmentCrop(size=32, num_layers=4, prob=1),
]
each_transform = pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@each_transform
def test_equal_frames_stay_equal(transform: ResizeCrop) -> None:
    clip = noise(1, 3, 40, 60).expand(5, -1, -1, -1)
    for seed in range(30):
        out = transform(clip, np.random.default_rng(seed))
        assert torch.equal(out, out[:1].expand_as(out))


@pytest.mark.parametrize("transform", [TRANSFORMS[0], TRANSFORMS[2]])
def test_a_draw_for_every_frame_would_be_noticed(transform: ResizeCrop) -> None:
    rng, frame = np.random.default_rng(0), noise(1, 3, 40, 60)
    assert not torch.equal(transform(frame, rng), transform(frame, rng))


@each_transform
def test_pixels_depend_on_the_frames_and_the_generator_only(transform: ResizeCrop) -> None:
    clip = noise(2, 3, 40, 60)
    before, state = clip.clone(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    for seed in range(10):
        torch.manual_seed(1)
        one = transform(clip, np.random.default_rng(seed))
        torch.manual_seed(2)
        drawn = torch.get_rng_state()
        assert torch.equal(transform(clip, np.random.default_rng(seed)), one)
        assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.equal(clip, before)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # type: ignore[index]


@each_transform
def test_the_layout_in_memory_does_not_matter(transform: ResizeCrop) -> None:
    clip = noise(3, 40, 60, 3).permute(0, 3, 1, 2)  # as readers give it
    for seed in range(30):
        expected = transform(clip.contiguous(), np.random.default_rng(seed))
        assert torch.equal(transform(clip, np.random.default_rng(seed)), expected)


@each_transform
@pytest.mark.parametrize("shape", [(1, 1), (600, 3), (600, 1), (1, 600)])
def test_odd_shapes_give_what_others_give(transform: ResizeCrop, shape: tuple[int, int]) -> None:
    for seed in range(20):
        for rng in (None, np.random.default_rng(seed)):
            out = transform(noise(1, 3, *shape), rng)
            assert out.dtype == torch.uint8
            assert out.shape[:2] == (1, 3)
            if isinstance(transform, LongSide):
                assert 224 <= max(out.shape[-2:]) <= 288
                assert min(out.shape[-2:]) >= 1
            else:
                assert out.shape[2:] == (32, 32)


def test_a_strip_loses_its_ends_before_it_is_scaled() -> None:
    strip = frames(2, 200, 1)  # column c has the value c; 16 columns are left, 92 to 107, of which 8 are cut
    out = ResizeCrop(size=2)(strip, None)
    assert out[0, 0, 0].tolist() == [99, 100]
    rng = np.random.default_rng(0)
    seen = {int(ResizeCrop(size=2)(strip, rng)[0, 0, 0, 0]) for _ in range(200)}
    assert seen == set(range(92, 107))
