"""Position in an epoch -> row of the index, in O(1) memory: a keyed permutation instead of a shuffled list."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from antmmf.data.keyed import hashed

Rows = npt.NDArray[np.int64]

_ROUNDS = 8
_AHEAD = 1024  # positions
_MIN_BITS = 5  # tiny sets are permuted in a larger domain: a Feistel network of 2 bits knows few permutations


class Permutation:
    """The order of one epoch: a bijection of 0..n-1, a function of ``seed`` and ``epoch`` only.

    A Feistel network permutes the numbers of just enough bits; a result outside of the range is put in again until it
    falls inside (cycle walking), which keeps the map one to one.
    """

    def __init__(self, n: int, *, seed: int, epoch: int) -> None:
        assert n > 0
        self.n = n
        bits = max((n - 1).bit_length(), _MIN_BITS)
        self._low_bits = np.uint64(bits // 2)
        self._high_bits = np.uint64(bits - bits // 2)
        self._keys = [np.uint64(hashed(seed, epoch, "order", round)) for round in range(_ROUNDS)]
        self._parts: dict[int, Rows] = {}  # the stretches that were computed last

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, position: int) -> int:
        """The row at ``position``; raises ``IndexError`` outside of 0..n-1."""
        if not 0 <= position < self.n:
            raise IndexError(position)
        return int(self(np.array([position]))[0])

    def __call__(self, positions: npt.ArrayLike) -> Rows:
        """The rows at all ``positions``, each of which must be in 0..n-1."""
        positions = np.asarray(positions, dtype=np.int64)
        if len(positions) >= _AHEAD:
            return self._rows(positions)
        rows = np.empty(len(positions), dtype=np.int64)
        parts = positions // _AHEAD
        for part in np.unique(parts).tolist():
            inside = parts == part
            rows[inside] = self._part(part)[positions[inside] - part * _AHEAD]
        return rows

    def _part(self, number: int) -> Rows:
        """The rows of a stretch of positions; few are asked for at a time, and many cost hardly more than few."""
        found = self._parts.get(number)
        if found is None:
            first = number * _AHEAD
            found = self._rows(np.arange(first, min(first + _AHEAD, self.n)))
            self._parts = {**dict(list(self._parts.items())[-1:]), number: found}
        return found

    def _rows(self, positions: Rows) -> Rows:
        rows = self._permute(positions.astype(np.uint64))
        outside = rows >= self.n
        while outside.any():
            rows[outside] = self._permute(rows[outside])
            outside = rows >= self.n
        return rows.astype(np.int64)

    def _permute(self, numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        low_bits, high_bits = self._low_bits, self._high_bits
        low = numbers & _mask(low_bits)
        high = numbers >> low_bits
        for key in self._keys:  # the halves may differ by one bit, so they swap their widths as well
            low, high = high, low ^ (_mix(high ^ key) & _mask(low_bits))
            low_bits, high_bits = high_bits, low_bits
        joined: npt.NDArray[np.uint64] = (high << low_bits) | low
        return joined


def _mask(bits: np.uint64) -> np.uint64:
    mask: np.uint64 = (np.uint64(1) << bits) - np.uint64(1)
    return mask


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64: every input bit changes half of the output bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return mixed


class BlockPermutation:
    """The order of one epoch that keeps to a few blocks of the index at a time: the shards that must be at hand.

    The blocks are permuted and taken ``window`` at a time; the rows of a window are permuted all together. ``sizes``
    are the rows of each block, which follow one another in the index. Memory is 8 bytes a block.
    """

    def __init__(self, sizes: npt.ArrayLike, *, seed: int, epoch: int, window: int = 8) -> None:
        sizes = np.asarray(sizes, dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        order = Permutation(len(sizes), seed=seed, epoch=hashed(epoch, "blocks"))(np.arange(len(sizes)))
        self.order, self.window = order, window
        self._key = (seed, epoch)
        self._starts = starts[order]  # row where each block begins, in the order in which they are taken
        self._ends = np.cumsum(sizes[order])  # position where each of them ends

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __call__(self, positions: npt.ArrayLike) -> Rows:
        """The rows at all ``positions``, each of which must be in 0..n-1."""
        positions = np.asarray(positions, dtype=np.int64)
        windows = self.window_of(positions)
        rows = np.empty(len(positions), dtype=np.int64)
        for number in np.unique(windows).tolist():
            inside = windows == number
            rows[inside] = self._rows_of(number, positions[inside])
        return rows

    def window_of(self, positions: npt.ArrayLike) -> Rows:
        """The number of the window in which each position lies."""
        blocks = np.searchsorted(self._ends, np.asarray(positions, dtype=np.int64), side="right")
        return blocks // self.window

    def blocks_of(self, window: int) -> Rows:
        """The blocks of a window, by their number in the index; none after the last window."""
        return self.order[window * self.window : (window + 1) * self.window]

    def _rows_of(self, number: int, positions: Rows) -> Rows:
        first = number * self.window
        last = min(first + self.window, len(self.order)) - 1
        begin = int(self._ends[first - 1]) if first > 0 else 0
        seed, epoch = self._key
        inner = Permutation(int(self._ends[last]) - begin, seed=seed, epoch=hashed(epoch, "window", number))
        places = begin + inner(positions - begin)
        blocks = np.searchsorted(self._ends, places, side="right")
        before = np.where(blocks > 0, self._ends[blocks - 1], 0)
        rows: Rows = self._starts[blocks] + places - before
        return rows
