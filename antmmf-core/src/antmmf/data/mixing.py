"""Several data sets in one epoch: each step takes its batch from one of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TypeAlias

import numpy as np

from antmmf.contracts import Sample
from antmmf.data.keyed import generator
from antmmf.data.media import SampleReader
from antmmf.data.order import BlockPermutation, Permutation, Rows

Order: TypeAlias = Permutation | BlockPermutation


class Mixed:
    """Readers one after another: item k of the second is item ``len(first) + k``. Picklable."""

    def __init__(self, parts: Sequence[SampleReader]) -> None:
        self.parts = list(parts)
        self.starts = [0, *accumulate(len(part) for part in parts)]

    def __len__(self) -> int:
        return self.starts[-1]

    def part(self, item: int) -> tuple[SampleReader, int]:
        """The reader that has the item, and its number there."""
        number = bisect_right(self.starts, item) - 1
        return self.parts[number], item - self.starts[number]

    def read(self, item: int, *, epoch: int) -> Sample:
        """As ``SampleReader.read``."""
        part, own = self.part(item)
        return part.read(own, epoch=epoch)


class MixedOrder:
    """The order of one epoch of several data sets.

    An epoch has as many steps as their epochs together, in a drawn order, and ``shares`` says how many of them are
    from each: without weights all that it has, each record once. A data set goes on in the next epoch where it stopped.
    All is a function of seed and ``epoch``, which begins at 1; memory is one byte or two a step.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        weights: Sequence[float] | None,
        batch_size: int,
        seed: int,
        epoch: int,
        order: Callable[[int, int], Order],
    ) -> None:
        self._own_steps = [max(1, size // batch_size) for size in sizes]
        self._sizes, self._batch_size = sizes, batch_size
        self.shares = shared_out(sum(self._own_steps), weights) if weights else self._own_steps
        pattern = np.repeat(np.arange(len(sizes), dtype=np.int16), self.shares)
        self._pattern = generator(seed, epoch, "mix").permutation(pattern)
        self._epoch, self._order = epoch, order
        self._starts = [0, *accumulate(sizes)]
        self._kept: dict[tuple[int, int], Order] = {}

    def __len__(self) -> int:
        return len(self._pattern) * self._batch_size

    def step(self, position: int) -> tuple[int, int, int]:
        """Of the step that begins at ``position``: its data set, the epoch of that, and the position there."""
        number = position // self._batch_size
        source = int(self._pattern[number])
        before = (self._epoch - 1) * self.shares[source] + int(np.count_nonzero(self._pattern[:number] == source))
        epoch, own = divmod(before, self._own_steps[source])
        return source, epoch + 1, own * self._batch_size

    def order_of(self, source: int, epoch: int) -> Order:
        """The order of one data set in one of its own epochs."""
        if (source, epoch) not in self._kept:
            self._kept = {key: order for key, order in self._kept.items() if key[0] != source}
            self._kept[source, epoch] = self._order(source, epoch)
        return self._kept[source, epoch]

    def items(self, source: int, epoch: int, positions: Rows) -> Rows:
        """The items of a data set at ``positions`` of one of its own epochs."""
        rows: Rows = self._starts[source] + self.order_of(source, epoch)(positions)
        return rows


def shared_out(num: int, weights: Sequence[float]) -> list[int]:
    """``num`` in whole parts as near to ``weights`` as can be, each at least 1; what is left goes to the largest
    fractions."""
    exact = [num * weight / sum(weights) for weight in weights]
    parts = [max(1, int(value)) for value in exact]
    by_fraction = sorted(range(len(parts)), key=lambda i: (int(exact[i]) - exact[i], i))
    for i in by_fraction[: max(0, num - sum(parts))]:
        parts[i] += 1
    return parts
