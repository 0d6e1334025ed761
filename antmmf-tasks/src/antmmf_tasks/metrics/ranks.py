"""Ranks of the right answers without sorting, with ties counted by expectation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antmmf_tasks.metrics.rows import Ids
from antmmf_tasks.metrics.scores import Scores, chunks

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranks:
    """For Q queries, how the best right answer stands: (Q,) wrong candidates ``above`` it, and the right
    (``tied_right``, itself included) and wrong (``tied_wrong``) candidates with exactly its score.

    Equal scores are taken to be ordered at random, each order alike: a model that gives all the same score has the
    rank and the recall of guessing.
    """

    above: Ids
    tied_right: Ids
    tied_wrong: Ids

    def expected(self) -> Floats:
        """Expected rank, from 1, of the first right answer: of w wrong among p right, w / (p + 1) come before it."""
        return np.asarray(1 + self.above + self.tied_wrong / (self.tied_right + 1))

    def hit(self, k: int) -> Floats:
        """Probability that a right answer is among the first ``k``: 1 - C(w + p - m, p) / C(w + p, p) for w wrong and p
        right ones tied, with room for m = k - above of them."""
        room = k - self.above
        miss = (room > 0).astype(np.float64)
        for m in range(k):
            left = np.maximum(self.tied_wrong - m, 0)
            miss = np.where(m < room, miss * left / (left + self.tied_right), miss)
        return np.where(room > 0, 1 - miss, 0.0)

    def take(self, rows: Ids) -> Ranks:
        """The ranks of some queries, which may repeat."""
        return Ranks(self.above[rows], self.tied_right[rows], self.tied_wrong[rows])


def rank(scores: Scores, *, query: Ids, right: Ids) -> Ranks:
    """Rank the candidates of each query; right answers never stand in each other's way.

    Right answers are pairs: candidate ``right[i]`` is right for ``query[i]``; ``query`` is sorted and names every
    query. Nothing is sorted, and a part of the scores is held at a time.
    """
    pairs = torch.from_numpy(np.stack([query, right]))
    parts, room = [], torch.empty(0)  # new memory for each part would pile up in the heap
    for start, part in chunks(scores):
        if room.shape != part.shape:
            room = torch.empty_like(part)
        low, high = np.searchsorted(query, [start, start + len(part)])
        row, column = pairs[:, low:high].to(part.device)
        parts.append(_count(part, row - start, column, room))
    above, tied_right, tied_wrong = torch.cat(parts, 1).cpu().numpy()
    return Ranks(above, tied_right, tied_wrong)


def _count(scores: Tensor, row: Tensor, column: Tensor, truths: Tensor) -> Tensor:
    """Above, tied right and tied wrong (3, rows) for scores (rows, M) and right answers at (row, column); ``truths`` is
    room for as many: floats add up ten times as fast as booleans, and exactly up to 2 ** 24."""
    right = scores[row, column]
    best = scores.new_full((len(scores),), -torch.inf).scatter_reduce(0, row, right, "amax")
    above = torch.gt(scores, best[:, None], out=truths).sum(1, dtype=_exact(scores)).long()
    tied = torch.eq(scores, best[:, None], out=truths).sum(1, dtype=_exact(scores)).long()
    tied_right = torch.zeros_like(tied).index_add(0, row, (right == best[row]).long())
    return torch.stack([above, tied_right, tied - tied_right])


def _exact(scores: Tensor) -> torch.dtype:
    return scores.dtype if scores.shape[1] < 1 << 24 else torch.float64
