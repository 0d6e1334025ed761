"""Intervals against closed forms and against plain resampling."""

from __future__ import annotations

import numpy as np
import pytest
from antmmf_tasks.metrics import intervals
from antmmf_tasks.metrics.intervals import bootstrap_means, bootstrap_median, wilson


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


def test_bootstrap_of_a_share_has_the_width_of_its_standard_error() -> None:
    values = np.zeros((400, 1))
    values[:100] = 100.0
    low, high = bootstrap_means(values, num=4000, rng=np.random.default_rng(0))
    half = 196 * np.sqrt(0.25 * 0.75 / 400)
    assert (low[0], high[0]) == pytest.approx((25 - half, 25 + half), abs=0.5)


def test_bootstrap_is_the_same_whatever_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random((50, 3))
    whole = bootstrap_means(values, num=100, rng=np.random.default_rng(2))
    monkeypatch.setattr(intervals, "CHUNK_DRAWS", 7 * 50)
    parts = bootstrap_means(values, num=100, rng=np.random.default_rng(2))
    np.testing.assert_allclose(whole, parts, rtol=1e-12)  # a product of other shapes may round otherwise


@pytest.mark.parametrize("n", [1, 2, 31, 60])
def test_median_interval_agrees_with_plain_resampling(n: int) -> None:
    values = np.random.default_rng(3).exponential(size=n)
    draws = np.random.default_rng(4).integers(n, size=(20000, n))
    plain = np.percentile(np.median(values[draws], axis=1), [2.5, 97.5])
    found = bootstrap_median(values, num=20000, rng=np.random.default_rng(5))
    assert found == pytest.approx(tuple(plain), rel=0.06)
