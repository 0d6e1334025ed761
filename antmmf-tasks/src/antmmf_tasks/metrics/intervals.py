"""95 % intervals: percentile bootstrap of means and medians, and Wilson's for a proportion."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

CHUNK_DRAWS = 1 << 20  # draws held at a time
Z95 = 1.959963984540054

Floats = NDArray[np.float64]


def bootstrap_means(values: Floats, *, num: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Lower and upper ends (S,) for the column means of ``values`` (n, S), from ``num`` resamples of the n rows.

    The columns share the resamples.
    """
    n = len(values)
    means = []
    for start in range(0, num, max(1, CHUNK_DRAWS // n)):
        size = min(num - start, max(1, CHUNK_DRAWS // n))
        draws = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        times = np.bincount(draws.ravel(), minlength=size * n).reshape(size, n)
        means.append(times.astype(np.float64) @ values / n)
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5], axis=0)
    return low, high


def bootstrap_median(values: Floats, *, num: int, rng: np.random.Generator) -> tuple[float, float]:
    """Lower and upper end for the median of ``values`` (n,), as from ``num`` resamples of them, in O(n log n + num).

    The i-th smallest of n draws from n sorted values stands at floor(n u), where u, the i-th smallest of n uniform
    numbers, is Beta(i, n + 1 - i): it can be drawn without the resample. For even n the next one follows from it.
    """
    n = len(values)
    ordered = np.sort(values)
    i = (n + 1) // 2
    below = rng.beta(i, n + 1 - i, size=num)
    medians = ordered[np.minimum((n * below).astype(np.int64), n - 1)]
    if n % 2 == 0:
        after = below + (1 - below) * rng.beta(1, n - i, size=num)
        medians = (medians + ordered[np.minimum((n * after).astype(np.int64), n - 1)]) / 2
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's score interval (1927) for the proportion ``successes`` / ``n``; successes may be fractional."""
    share = successes / n
    spread = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    middle = share + Z95**2 / (2 * n)
    scale = 1 + Z95**2 / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
