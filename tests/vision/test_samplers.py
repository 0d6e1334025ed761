from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from antmmf_vision.samplers import Dense, Fps, Segments, Uniform


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


# --- segments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounded", [np.round, np.floor])
@pytest.mark.parametrize("last", ["the interval's last frame", "the next interval's first"])
def test_the_middle_is_antmmfs_or_the_frame_beside_it(rounded: Callable[[np.ndarray], np.ndarray], last: str) -> None:
    for clips in (1, 3, 8, 16):
        for total in range(clips, 200):
            bounds = rounded(np.linspace(0, total, clips + 1)).astype(int)
            low, high = bounds[:-1], bounds[1:] - (last == "the interval's last frame")
            assert abs(Segments(n_clips=clips)(times(total), None)[:, 0] - (low + high) // 2).max() <= 1


def test_several_frames_of_a_clip_are_the_middles_of_its_own_intervals() -> None:
    assert Segments(n_clips=2, num_frm=3)(times(60), None).tolist() == [[5, 15, 25], [35, 45, 55]]


# --- fps --------------------------------------------------------------------------------------------------------------


def nearest(shown: np.ndarray, wanted: list[list[float]]) -> list[list[int]]:
    return [[int(np.argmin(np.abs(shown - time))) for time in clip] for clip in wanted]


def test_one_clip_is_centred_in_evaluation() -> None:
    shown = np.arange(101) / 10  # 0 to 10 s
    assert Fps(num_frm=3, fps=2.5)(shown, None).tolist() == nearest(shown, [[4.6, 5.0, 5.4]])


def test_clips_start_in_the_middle_of_equal_parts_in_evaluation() -> None:
    shown = np.arange(1001) / 100 + 0.005  # 10.01 s; clips whose second frame is 2.01 s after the first start in 8 s
    assert Fps(n_clips=2, num_frm=2, fps=1 / 2.01)(shown, None).tolist() == nearest(
        shown, [[2.001, 4.011], [6.001, 8.011]]
    )


def test_frames_lie_one_over_fps_seconds_apart_in_training() -> None:
    rng = np.random.default_rng(0)
    shown = np.arange(900) / 29.97
    for _ in range(50):
        clips = shown[Fps(n_clips=3, num_frm=5, fps=4)(shown, rng)]
        assert clips.shape == (3, 5)
        np.testing.assert_allclose(np.diff(clips), 0.25, atol=1 / 29.97)


def test_only_times_count_where_the_rate_varies() -> None:
    rng = np.random.default_rng(0)
    shown = np.concatenate([np.arange(0, 10, 0.01), np.arange(10, 20.01, 0.5)])  # 1000 frames, then 21
    middles = shown[Fps(n_clips=10, num_frm=1)(shown, None)[:, 0]]
    np.testing.assert_allclose(middles, [1, 3, 5, 7, 9, 11, 13, 15, 17, 19], atol=0.03)
    late = np.mean([shown[Fps(num_frm=1)(shown, rng)].item() > 10 for _ in range(400)])
    assert 0.4 < late < 0.6


def test_a_training_clip_starts_anywhere_and_reaches_both_ends() -> None:
    rng = np.random.default_rng(0)
    clips = [Fps(num_frm=4, fps=25)(times(12), rng)[0].tolist() for _ in range(400)]
    assert {clip[0] for clip in clips} == set(range(9))
    assert all(clip == list(range(clip[0], clip[0] + 4)) for clip in clips)


def test_every_training_clip_starts_in_its_own_part() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        starts = Fps(n_clips=4, num_frm=1, fps=1000)(times(1000), rng)[:, 0]
        assert (starts // 250).tolist() == [0, 1, 2, 3]


def test_an_even_rate_gives_the_frames_of_segments() -> None:
    for total in (1, 3, 16, 100, 101):
        for begin in (0.0, 12.3):
            frames = Fps(n_clips=8, num_frm=1)(begin + times(total), None)
            assert frames.tolist() == Segments(n_clips=8)(times(total), None).tolist()


def test_an_even_rate_gives_the_frames_of_dense() -> None:
    for total in (20, 64, 301):  # at 25 a second, every fifth frame
        by_time = Fps(n_clips=3, num_frm=4, fps=5)(times(total), np.random.default_rng(0))
        by_count = Dense(n_clips=3, num_frm=4, stride=5)(times(total), np.random.default_rng(0))
        assert by_time.tolist() == by_count.tolist()


@pytest.mark.parametrize("training", [False, True])
def test_fps_spreads_a_short_video_over_every_clip(training: bool) -> None:
    rng = np.random.default_rng(0) if training else None
    assert Fps(n_clips=2, num_frm=6, fps=1)(times(3), rng).tolist() == [[0, 0, 1, 1, 2, 2]] * 2


def test_fps_repeats_frames_where_the_video_has_fewer() -> None:
    shown = np.arange(4) / 2  # two frames a second for two seconds
    assert Fps(num_frm=8, fps=4)(shown, None).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]


# --- dense ------------------------------------------------------------------------------------------------------------


def test_a_dense_clip_is_every_nth_frame_in_a_row() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        clips = Dense(n_clips=2, num_frm=4, stride=3)(times(50), rng)
        assert (np.diff(clips) == 3).all()


def test_dense_clips_are_spread_evenly_in_evaluation() -> None:
    # A clip reaches over 7 frames of 46, so it can start at 40 of them: 20 for each clip.
    assert Dense(n_clips=2, num_frm=3, stride=3)(times(46), None).tolist() == [[10, 13, 16], [30, 33, 36]]


def test_one_dense_clip_is_centred_in_evaluation() -> None:
    assert Dense(num_frm=3, stride=2)(times(11), None).tolist() == [[3, 5, 7]]


def test_dense_clips_start_in_their_own_part_and_reach_the_last_frame_in_training() -> None:
    rng = np.random.default_rng(0)
    clips = np.stack([Dense(n_clips=2, num_frm=3, stride=3)(times(26), rng) for _ in range(600)])
    assert set(clips[:, 0, 0].tolist()) == set(range(10))
    assert set(clips[:, 1, 0].tolist()) == set(range(10, 20))
    assert clips.max() == 25


def test_a_video_as_long_as_the_clip_is_taken_whole() -> None:
    assert Dense(n_clips=2, num_frm=4, stride=2)(times(7), np.random.default_rng(0)).tolist() == [[0, 2, 4, 6]] * 2


@pytest.mark.parametrize("rate", [7, 24, 25, 29.97, 30, 59.94])
def test_a_clip_that_just_fits_keeps_its_rate_and_one_that_does_not_is_spread(rate: float) -> None:
    for begin in (0.0, 12.3, 3600.1):
        shown = begin + np.arange(10) / rate
        for sampler in (Fps(num_frm=4, fps=rate / 3), Dense(num_frm=4, stride=3)):
            for rng in (None, np.random.default_rng(0)):
                assert sampler(shown, rng).tolist() == [[0, 3, 6, 9]]
                assert sampler(shown[:9], rng).tolist() == [[1, 3, 5, 7]]  # middles of quarters of 9: 1.125, 3.375, ...


@pytest.mark.parametrize("training", [False, True])
def test_dense_spreads_a_short_video_over_every_clip(training: bool) -> None:
    rng = np.random.default_rng(0) if training else None
    assert Dense(n_clips=2, num_frm=6, stride=4)(times(3), rng).tolist() == [[0, 0, 1, 1, 2, 2]] * 2


@pytest.mark.parametrize("sampler", [Segments, Uniform, Fps, Dense])
def test_a_picture_fills_every_clip(sampler: type[Segments | Uniform | Fps | Dense]) -> None:
    for rng in (None, np.random.default_rng(0)):
        assert sampler(n_clips=2, num_frm=3)(np.zeros(1), rng).tolist() == [[0, 0, 0]] * 2


class NextToOne:
    """A generator whose numbers are the largest below 1."""

    def random(self, count: int) -> np.ndarray:
        return np.full(count, np.nextafter(1, 0))


@pytest.mark.parametrize("sampler", [Segments(n_clips=8), Fps(n_clips=8, num_frm=1), Dense(n_clips=8, num_frm=2)])
def test_the_largest_number_drawn_stays_within_the_video(sampler: Segments | Fps | Dense) -> None:
    rng: Any = NextToOne()
    assert 0 <= sampler(times(800), rng).max() < 800
