"""Scores of all candidates for some queries at a time, so that no matrix of all pairs is held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from antmmf_tasks.metrics.rows import Ids

CHUNK_SCORES = 1 << 22  # scores held at a time: 16 MiB


class Scores(Protocol):
    """What ``rank`` reads: ``num_queries`` (Q) by ``num_candidates`` (M), the higher the better."""

    num_queries: int
    num_candidates: int

    def rows(self, start: int, stop: int) -> Tensor:
        """The scores (stop - start, M) of consecutive queries, which hold until the next are asked for."""
        ...


def chunks(scores: Scores) -> Iterator[tuple[int, Tensor]]:
    """The scores of all queries, ``CHUNK_SCORES`` at a time but at least one query's, with the first query's number."""
    step = max(1, CHUNK_SCORES // max(1, scores.num_candidates))
    for start in range(0, scores.num_queries, step):
        yield start, scores.rows(start, min(start + step, scores.num_queries))


class Dots:
    """Dot products of ``queries`` (Q, D) with ``candidates`` (M, D).

    All scores of a query come from one product, in which each different candidate stands once, so that equal ones have
    equal scores to the last bit.
    """

    def __init__(self, queries: Tensor, candidates: Tensor) -> None:
        self.num_queries, self.num_candidates = len(queries), len(candidates)
        self._queries = queries
        self._table, self._copy_of = _different(candidates)
        self._held = queries.new_empty(0, len(self._table))  # new memory for each part would pile up in the heap

    def rows(self, start: int, stop: int) -> Tensor:
        """The scores of consecutive queries."""
        if len(self._held) < stop - start:
            self._held = self._held.new_empty(stop - start, len(self._table))
        scores = torch.mm(self._queries[start:stop], self._table.T, out=self._held[: stop - start])
        return scores if self._copy_of is None else scores[:, self._copy_of]


class Table:
    """Scores that are all there, (Q, M)."""

    def __init__(self, scores: Tensor) -> None:
        self.num_queries, self.num_candidates = scores.shape
        self._scores = scores

    def rows(self, start: int, stop: int) -> Tensor:
        """The scores of consecutive queries."""
        return self._scores[start:stop]


def both_ways(text: Tensor, video: Tensor, asked: Tensor) -> tuple[Scores, Scores]:
    """Dot products of texts (N, D) with videos (B, D), and of the videos ``asked`` with texts; of few, one product."""
    if len(text) * len(video) > CHUNK_SCORES:
        return Dots(text, video), Dots(video[asked], text)
    (texts, of_text), (videos, of_video) = _different(text), _different(video)
    scores = texts @ videos.T
    scores = scores if of_text is None else scores[of_text]
    scores = scores if of_video is None else scores[:, of_video]
    return Table(scores), Table(scores.T[asked])


def _different(vectors: Tensor) -> tuple[Tensor, Tensor | None]:
    """Each different row once, and which of them each row is; the rows as they are, and None, where all differ."""
    for width in (8, vectors.shape[1]):  # a few numbers nearly always tell them apart
        if len(torch.unique(_hashes(vectors[:, :width]))) == len(vectors):
            return vectors, None
    table, copy_of = torch.unique(vectors, dim=0, return_inverse=True)
    return table, copy_of


def _hashes(vectors: Tensor) -> Tensor:
    """A number for each row (N,), the same for the same bits; sorting whole rows takes longer than ranking them."""
    bits = vectors.contiguous().view(torch.int32 if vectors.element_size() == 4 else torch.int64)
    odd = torch.randint(1 << 62, (bits.shape[1],), generator=torch.Generator().manual_seed(0)) | 1
    return torch.cat([(part.long() * odd.to(part.device)).sum(1) for part in torch.split(bits, 1 << 12)])


class Reranked:
    """Of each query, the pairs (``query``, ``candidate``) in the order of their ``score``, before all other candidates,
    which keep the order of ``first``. With ``scale`` a pair's score is ``scale`` x that of ``first`` + its own."""

    def __init__(self, first: Scores, query: Ids, candidate: Ids, score: Tensor, *, scale: float = 0.0) -> None:
        self.num_queries, self.num_candidates = first.num_queries, first.num_candidates
        self._first, self._scale = first, scale
        order = np.argsort(query, kind="stable")
        self._query = query[order]
        self._candidate = torch.from_numpy(candidate[order])
        self._score = score[torch.from_numpy(order)].double()

    def rows(self, start: int, stop: int) -> Tensor:
        """The scores of consecutive queries, in float64, whose ties are those of the pairs."""
        low, high = np.searchsorted(self._query, [start, stop])
        scores = self._first.rows(start, stop).double()
        row, column = torch.from_numpy(self._query[low:high] - start), self._candidate[low:high]
        own = self._score[low:high] + self._scale * scores[row, column]
        if len(own) == scores.numel():
            return scores.index_put((row, column), own)
        least = own.new_full((len(scores),), torch.inf).scatter_reduce(0, row, own, "amin")
        above = scores.amax(1) + 1 - least
        return scores.index_put((row, column), own + above[row])


class DualSoftmax:
    """The product of a softmax over the candidates and one over all queries, as its logarithm up to a constant of each
    query: 2 s / t - log sum over queries of exp(s / t) (Cheng et al. 2021, CAMoE).

    A candidate that is near to every query falls behind. It needs all queries at once, which a search engine does not
    have: figures with it are not comparable with figures without.
    """

    def __init__(self, scores: Scores, *, temperature: float) -> None:
        self.num_queries, self.num_candidates = scores.num_queries, scores.num_candidates
        self._scores, self._temperature = scores, temperature
        over = torch.full((self.num_candidates,), -torch.inf, dtype=torch.float64)
        for _, part in chunks(scores):
            over = torch.logaddexp(over, (part.double() / temperature).logsumexp(0))
        self._over_queries = over

    def rows(self, start: int, stop: int) -> Tensor:
        """The scores of consecutive queries, in float64."""
        return 2 * self._scores.rows(start, stop).double() / self._temperature - self._over_queries
