from __future__ import annotations

import numpy as np
import torch
from antmmf_vision.transforms import ResizeCrop
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
