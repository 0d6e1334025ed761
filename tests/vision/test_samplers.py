from __future__ import annotations

import numpy as np
import pytest
from antmmf_vision.samplers import Segments, Uniform


def times(count: int) -> np.ndarray:
    return np.arange(count) / 25


def test_evaluation_takes_the_middle_of_each_interval() -> None:
    assert Segments(n_clips=4)(times(40), None).tolist() == [[5], [15], [25], [35]]


def test_training_takes_one_frame_from_each_interval() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        frames = Segments(n_clips=4)(times(40), rng)[:, 0]
        assert (frames // 10).tolist() == [0, 1, 2, 3]


def test_training_reaches_every_frame() -> None:
    rng = np.random.default_rng(0)
    seen = {int(frame) for _ in range(300) for frame in Segments(n_clips=2)(times(10), rng).flat}
    assert seen == set(range(10))


def test_clips_of_several_frames_lie_within_their_interval_in_order() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        clips = Segments(n_clips=2, num_frm=5)(times(100), rng)
        assert clips.shape == (2, 5)
        assert (clips // 50).tolist() == [[0] * 5, [1] * 5]
        assert (np.diff(clips) > 0).all()


@pytest.mark.parametrize("training", [False, True])
def test_a_short_video_repeats_frames_and_uses_all_of_them(training: bool) -> None:
    rng = np.random.default_rng(0) if training else None
    frames = Segments(n_clips=4, num_frm=2)(times(3), rng)
    assert frames.shape == (4, 2)
    assert sorted(set(frames.flatten().tolist())) == [0, 1, 2]


def test_a_picture_is_repeated() -> None:
    assert Segments(n_clips=3)(times(1), np.random.default_rng(0)).tolist() == [[0], [0], [0]]


def test_the_same_generator_gives_the_same_frames() -> None:
    one, two = (Segments(n_clips=8)(times(100), np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_uniform_is_the_same_in_training_and_evaluation() -> None:
    sampler = Uniform(n_clips=4, num_frm=2)
    np.testing.assert_array_equal(sampler(times(80), np.random.default_rng(0)), sampler(times(80), None))
    assert sampler(times(80), None).flatten().tolist() == [5, 15, 25, 35, 45, 55, 65, 75]
