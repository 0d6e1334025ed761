"""95 % intervals over videos: what is asked of one video is answered alike, so its cases stay together."""

from __future__ import annotations

import math

import numpy as np
from antmmf.contracts import Figure
from numpy.typing import NDArray

from antmmf_tasks.metrics.rows import Ids

CHUNK_DRAWS = 1 << 20  # draws held at a time
Z95 = 1.959963984540054

Floats = NDArray[np.float64]


def bootstrap(values: Floats, clusters: Ids, *, num: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Lower and upper ends (S + 1,) for the column means of ``values`` (n, S) and the median of the last column: the
    percentile bootstrap over ``num`` resamples of the clusters, which all columns share; ``clusters`` (n,) says whose
    each row is."""
    order = np.argsort(values[:, -1], kind="stable")
    values, own = values[order], np.unique(clusters[order], return_inverse=True)[1]
    size = int(own.max()) + 1
    found = []
    step = max(1, CHUNK_DRAWS // len(values))
    for start in range(0, num, step):
        count = min(num - start, step)
        draws = rng.integers(size, size=(count, size)) + size * np.arange(count)[:, None]
        times = np.bincount(draws.ravel(), minlength=count * size).reshape(count, size)[:, own]  # of each row
        until = times.cumsum(1)
        drawn = until[:, -1:]
        middle = [(until < target).sum(1) for target in ((drawn + 1) // 2, drawn // 2 + 1)]
        medians = (values[middle[0], -1] + values[middle[1], -1]) / 2
        found.append(np.column_stack([times.astype(np.float64) @ values / drawn, medians]))
    low, high = np.percentile(np.concatenate(found), [2.5, 97.5], axis=0)
    return low, high


def share(values: Floats, clusters: Ids) -> Figure:
    """The mean of ``values`` (n,), each from 0 to 1, in percent, with Wilson's interval for as many independent cases
    as these are worth (Kish's design effect, and Student's t for few clusters: Korn and Graubard 1998): n where each is
    a cluster of its own; the number of clusters where all values are 0 or all 1, which tell nothing of how alike
    the cases of a cluster are."""
    n, mean = len(values), float(values.mean())
    own = np.unique(clusters, return_inverse=True)[1]
    num = int(own.max()) + 1
    worth = float(num)
    if 1 < num < n and 0 < mean < 1:
        off = np.bincount(own, weights=values - mean)
        variance = num / (num - 1) * float((off**2).sum()) / n**2
        few = (Z95 / student(num - 1)) ** 2
        worth = min(n, max(1.0, few * mean * (1 - mean) / max(variance, 1e-12)))
    low, high = wilson(mean * worth, worth)
    return Figure(100 * mean, 100 * low, 100 * high, n)


def student(freedom: int) -> float:
    """The 97.5 % point of Student's t, by Fisher's series (1 % too small for 2 degrees of freedom, 11 % for 1)."""
    return float(sum(term / freedom**power for power, term in enumerate((Z95, 2.3723, 2.8225, 2.5558, 1.5895))))


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson's score interval (1927) for the proportion ``successes`` / ``n``; both may be fractional."""
    share = successes / n
    spread = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    middle = share + Z95**2 / (2 * n)
    scale = 1 + Z95**2 / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
