"""Intervals against closed forms, against plain resampling, and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from antmmf_tasks.metrics import intervals
from antmmf_tasks.metrics.intervals import bootstrap, share, student, wilson


def test_wilson_gives_the_textbook_interval() -> None:
    # roots of (p - 0.8)^2 = z^2 p (1 - p) / 10
    z2 = 1.959963984540054**2
    roots = np.sort(np.roots([1 + z2 / 10, -(1.6 + z2 / 10), 0.64]))
    assert wilson(8, 10) == pytest.approx(tuple(roots), rel=1e-9)


@pytest.mark.parametrize(("successes", "end"), [(0, 0), (20, 1)])
def test_wilson_stays_open_on_one_side_at_the_ends(successes: int, end: int) -> None:
    ends = wilson(successes, 20)
    assert ends[end] == pytest.approx(end)
    assert abs(ends[1 - end] - end) == pytest.approx(0.1611, abs=1e-3)  # z^2 / (n + z^2)


def test_a_share_of_cases_alone_has_wilsons_interval() -> None:
    figure = share(np.array([1.0, 1, 0, 0.5, 1]), np.arange(5))
    low, high = wilson(3.5, 5)
    assert (figure.value, figure.low, figure.high, figure.n) == (70, 100 * low, 100 * high, 5)


@pytest.mark.parametrize("right", [[1, 0, 1, 1], [1, 1, 1, 1]])
def test_eight_questions_a_video_that_are_answered_alike_are_worth_one(right: list[int]) -> None:
    figure = share(np.repeat(right, 8).astype(np.float64), np.repeat(np.arange(4), 8))
    # the variance over clusters divides by 3, not by 4; 3.182 is Student's t of 3 degrees of freedom
    worth = 3 * (1.96 / 3.182) ** 2
    low, high = wilson(worth * np.mean(right), worth) if len(set(right)) > 1 else wilson(4, 4)
    expected = pytest.approx(100 * low, abs=0.2), pytest.approx(100 * high, abs=0.2), 32
    assert (figure.low, figure.high, figure.n) == expected


@pytest.mark.parametrize(
    ("freedom", "t"), [(2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)]
)
def test_students_t_is_that_of_the_tables(freedom: int, t: float) -> None:
    assert student(freedom) == pytest.approx(t, rel=0.01)


def test_videos_that_are_all_half_right_are_no_less_certain_than_such_that_are_not() -> None:
    clusters = np.repeat(np.arange(50), 2)
    alike = np.tile([1.0, 0.0], 50)
    other = np.where(np.arange(100) == 0, 0, alike)
    widths = [figure.high - figure.low for figure in (share(alike, clusters), share(other, clusters))]  # type: ignore[operator]
    assert widths[0] == pytest.approx(widths[1], rel=0.01)


def test_an_interval_over_videos_covers_what_it_says() -> None:
    rng, inside = np.random.default_rng(0), 0
    clusters = np.repeat(np.arange(100), 8)
    for _ in range(400):
        hard = rng.beta(0.5, 0.5, size=100)
        figure = share((rng.random(800) < hard[clusters]).astype(np.float64), clusters)
        assert figure.low is not None
        assert figure.high is not None
        inside += figure.low <= 50 <= figure.high
    assert 0.92 < inside / 400 < 0.98  # 0.64 where each question is a case of its own


def test_bootstrap_of_a_share_has_the_width_of_its_standard_error() -> None:
    values = np.zeros((400, 1))
    values[:100] = 100.0
    low, high = bootstrap(values, np.arange(400), num=4000, rng=np.random.default_rng(0))
    half = 196 * np.sqrt(0.25 * 0.75 / 400)
    assert (low[0], high[0]) == pytest.approx((25 - half, 25 + half), abs=0.5)


def test_captions_of_one_video_are_resampled_together() -> None:
    values = np.random.default_rng(1).random((50, 2))
    alone = bootstrap(values, np.arange(50), num=500, rng=np.random.default_rng(2))
    forty = bootstrap(np.repeat(values, 40, 0), np.repeat(np.arange(50), 40), num=500, rng=np.random.default_rng(2))
    for one, other in zip(alone, forty, strict=True):
        np.testing.assert_allclose(one, other, rtol=0.02)  # other draws; the interval is 1 / 6 as wide if they are not


def test_bootstrap_is_the_same_whatever_the_chunk_and_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    values, clusters = np.random.default_rng(1).random((50, 3)), np.arange(50) // 3
    whole = bootstrap(values, clusters, num=100, rng=np.random.default_rng(2))
    other = bootstrap(values[::-1], clusters[::-1], num=100, rng=np.random.default_rng(2))
    np.testing.assert_allclose(whole, other, rtol=1e-12)
    monkeypatch.setattr(intervals, "CHUNK_DRAWS", 7 * 50)
    parts = bootstrap(values, clusters, num=100, rng=np.random.default_rng(2))
    np.testing.assert_allclose(whole, parts, rtol=1e-12)  # a product of other shapes may round otherwise


@pytest.mark.parametrize("n", [1, 2, 31, 60])
def test_median_interval_agrees_with_plain_resampling(n: int) -> None:
    values = np.random.default_rng(3).exponential(size=n)
    draws = np.random.default_rng(4).integers(n, size=(20000, n))
    plain = np.percentile(np.median(values[draws], axis=1), [2.5, 97.5])
    low, high = bootstrap(values[:, None], np.arange(n), num=20000, rng=np.random.default_rng(5))
    assert (low[-1], high[-1]) == pytest.approx(tuple(plain), rel=0.06)


def test_the_median_of_clusters_of_other_sizes_agrees_with_plain_resampling() -> None:
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(20), np.arange(1, 21))
    values = rng.exponential(size=20)[clusters] + rng.random(len(clusters))
    members = [values[clusters == number] for number in range(20)]
    medians = [np.median(np.concatenate([members[k] for k in rng.integers(20, size=20)])) for _ in range(5000)]
    low, high = bootstrap(values[:, None], clusters, num=5000, rng=np.random.default_rng(5))
    assert (low[-1], high[-1]) == pytest.approx(tuple(np.percentile(medians, [2.5, 97.5])), rel=0.06)
