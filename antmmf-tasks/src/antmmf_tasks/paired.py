"""Paired tests: do two models differ on the same cases by more than chance would have it?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MAX_EXACT = 13  # signs of so many are all tried
_CHUNK = 1 << 22


def sign_flip(differences: Floats, *, num: int = 10_000, seed: int = 0) -> float:
    """Two-sided p of the differences (n,): how often their sum, each with a sign of its own drawn at random, is at
    least as far from 0.

    If both models are alike, each difference might as well have had the other sign. Where up to 13 are not 0, all signs
    are tried, which for outcomes of 0 and 1 is McNemar's exact test; else ``num`` draws, and this one counts too.
    """
    own = differences[differences != 0]
    far = abs(float(own.sum())) - 1e-9 * float(np.abs(own).sum())  # equal sums that were added in another order
    if len(own) == 0:
        return 1.0
    if len(own) <= MAX_EXACT:
        signs = 1 - 2.0 * (np.arange(2 ** len(own))[:, None] >> np.arange(len(own)) & 1)
        return float((np.abs(signs @ own) >= far).mean())
    rng, count = np.random.default_rng(seed), 1
    step = max(1, _CHUNK // len(own))
    for start in range(0, num, step):
        signs = 2.0 * rng.integers(2, size=(min(step, num - start), len(own)), dtype=np.int8) - 1
        count += int((np.abs(signs @ own) >= far).sum())
    return count / (num + 1)


def difference_interval(sums: Floats, counts: Floats, *, num: int = 2_000, seed: int = 0) -> tuple[float, float]:
    """Ends of the 95 % percentile interval of a mean difference, from ``num`` resamples of clusters: each has a sum of
    differences (C,) and a number of cases (C,)."""
    rng, columns = np.random.default_rng(seed), np.stack([sums, counts], axis=1)
    means = []
    step = max(1, _CHUNK // len(sums))
    for start in range(0, num, step):
        times = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=min(step, num - start))
        total, count = (times @ columns).T
        means.append(total / count)
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def holm(values: Sequence[float]) -> list[float]:
    """The p of each of several tests, so corrected that a chance of 5 % holds for all of them together (Holm 1979)."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found, worst = [0.0] * len(values), 0.0
    for place, number in enumerate(order):
        worst = max(worst, min(1.0, (len(values) - place) * values[number]))
        found[number] = worst
    return found
