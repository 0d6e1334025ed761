"""Recall of text-to-video and video-to-text retrieval over a whole split."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from antmmf.cases import Cases
from antmmf.contracts import Figure
from pydantic import Field
from torch import Tensor

from antmmf_tasks.metrics.intervals import bootstrap
from antmmf_tasks.metrics.ranks import Ranks, rank
from antmmf_tasks.metrics.rows import Ids, RowStore, as_ids, distinct
from antmmf_tasks.metrics.scores import DualSoftmax, Reranked, Scores, both_ways

Positive = Annotated[int, Field(gt=0)]
PAIRS = ("pair_text_hash", "pair_video_id", "pair_score", "pair_way")
CURVE = (1, 2, 3, 5, 10, 20, 50, 100)  # cases have these hits as well, for whoever draws recall over k


class Recall:
    """R@k and their mean in percent, median (MdR) and mean (MnR) rank, both ways: ``t2v/R1``, ``t2v/mR``, ``v2t/MdR``.

    What is ranked, and what is right:

    - t2v: every caption of every video is a query (one that a video lists twice is one), the videos are the
      candidates; right is every video that owns a caption with the same string.
    - v2t: every video that has a caption is a query, the different caption strings are the candidates, each once;
      right is each of the video's captions.

    A query's rank is that of its best right answer and counts only wrong candidates above it. Equal scores count by
    expectation over their orders (see ``Ranks``). A video id that comes twice counts once; the order of the rows
    changes nothing. Intervals are the 2.5th and 97.5th percentile over ``bootstrap`` resamples of the videos, which
    are records, each with all its queries, with ``seed``; 0 for none.

    Scores are the dot products of the vectors. Of a task that also reads pairs with a cross encoder there are as well
    ``l2/t2v/R1``, by the cross encoder's scores, and ``l1+l2/t2v/R1``, by ``l1_scale`` x dot product + those; where it
    read the k best candidates of each query only, ``l2@k/...``: these k in its order, then the others. ``dual_softmax``
    is the temperature of figures ``dsl/...``, whose scores know all queries (see ``DualSoftmax``); None for none.
    """

    def __init__(
        self,
        *,
        ks: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 5, 10),
        bootstrap: Annotated[int, Field(ge=0)] = 1000,
        seed: Annotated[int, Field(ge=0)] = 0,
        l1_scale: Annotated[float, Field(gt=0)] = 20.0,
        dual_softmax: Annotated[float, Field(gt=0)] | None = None,
    ) -> None:
        self.ks = ks
        self.bootstrap = bootstrap
        self.seed = seed
        self.l1_scale = l1_scale
        self.dual_softmax = dual_softmax
        self._store = RowStore("recall", ("video", "video_id", "text", "text_video_id", "text_hash"), optional=PAIRS)
        self._ranks: dict[str, tuple[Ranks, Ids, Ids]] = {}

    def names(self, rows: Collection[str] | None = None) -> list[str]:
        """What ``compute`` may return of ``rows``, without computing it; ``*`` stands for a number."""
        self._store.require(rows)
        names = [
            f"{way}/{name}" for way in ("t2v", "v2t") for name in (*(f"R{k}" for k in self.ks), "mR", "MnR", "MdR")
        ]
        kinds = ["", "dsl/"] if self.dual_softmax else [""]
        if rows is None or set(PAIRS) <= set(rows):
            kinds += ["l2/", "l1+l2/", "l2@*/", "l1+l2@*/"]
            kinds += ["l2+dsl/", "l1+l2+dsl/"] if self.dual_softmax else []
        return [kind + name for kind in kinds for name in names]

    def update(self, rows: Mapping[str, Tensor]) -> None:
        """Take the rows of a split, or of a part of it."""
        self._store.add(rows)

    def reset(self) -> None:
        """Forget all rows."""
        self._store.clear()
        self._ranks.clear()

    def compute(self) -> dict[str, Figure]:
        """The figures of all rows so far; raises ``ComponentError`` for NaN, and for texts of unknown videos."""
        found: dict[str, Figure] = {}
        table = _table(self._store)
        for name, t2v, v2t in self._scores(table):
            text_to_video = rank(t2v, query=table.caption, right=table.owner).take(table.caption)
            by_video = np.argsort(table.query, kind="stable")
            video_to_text = rank(v2t, query=table.query[by_video], right=table.caption[by_video])
            asked = table.video_ids[table.asked]
            self._ranks[f"{name}t2v"] = text_to_video, table.video_ids[table.owner], table.hashes
            self._ranks[f"{name}v2t"] = video_to_text, asked, np.zeros_like(asked)
            for way in (f"{name}t2v", f"{name}v2t"):
                found |= self._figures(way, *self._ranks[way][:2])
        return found

    def cases(self) -> list[Cases]:
        """What each query adds to the figures that ``compute`` gave, and its hits for a few ``k`` more."""
        found = []
        for way, (ranks, ids, part) in self._ranks.items():
            hits = {k: 100 * ranks.hit(k) for k in sorted({*self.ks, *CURVE})}
            values = {f"{way}/R{k}": hit for k, hit in hits.items()}
            values |= {f"{way}/mR": np.mean([hits[k] for k in self.ks], axis=0), f"{way}/MnR": ranks.expected()}
            found.append(Cases(ids, part, values))
        return found

    def _scores(self, table: _Table) -> Iterator[tuple[str, Scores, Scores]]:
        """Each kind of score: its name, and those of captions with videos and of videos with captions."""
        ways = both_ways(table.text, table.video, torch.from_numpy(table.asked))
        yield "", *ways
        if self.dual_softmax is not None:
            yield "dsl/", *_dual(ways, self.dual_softmax)
        if table.pairs is None:
            return
        every, limit = table.pairs.every, table.pairs.limit
        for name, scale in (("l2", 0.0), ("l1+l2", self.l1_scale)):
            text, video, score, way = table.pairs.of_text, table.pairs.of_video, table.pairs.score, table.pairs.way
            for_text, for_video = way & 1 > 0, way & 2 > 0
            t2v = Reranked(ways[0], text[for_text], video[for_text], score[for_text], scale=scale)
            place = np.searchsorted(table.asked, video[for_video])  # every video that has pairs is asked
            v2t = Reranked(ways[1], place, text[for_video], score[for_video], scale=scale)
            yield f"{name}/" if every else f"{name}@{limit}/", t2v, v2t
            if every and self.dual_softmax is not None:
                yield f"{name}+dsl/", *_dual((t2v, v2t), self.dual_softmax)

    def _figures(self, way: str, ranks: Ranks, videos: Ids) -> dict[str, Figure]:
        expected = ranks.expected()
        hits = [100 * ranks.hit(k) for k in self.ks]
        columns = np.stack([*hits, np.mean(hits, axis=0), expected], axis=1)
        names = [f"{way}/{name}" for name in (*(f"R{k}" for k in self.ks), "mR", "MnR", "MdR")]
        values, n = [*columns.mean(0).tolist(), float(np.median(expected))], len(expected)
        if not self.bootstrap:
            return {name: Figure(value, n=n) for name, value in zip(names, values, strict=True)}
        rng = np.random.default_rng(self.seed)
        lows, highs = bootstrap(columns, videos, num=self.bootstrap, rng=rng)
        ends = zip(names, values, lows.tolist(), highs.tolist(), strict=True)
        return {name: Figure(value, low, high, n) for name, value, low, high in ends}


def _dual(ways: tuple[Scores, Scores], temperature: float) -> tuple[Scores, Scores]:
    return DualSoftmax(ways[0], temperature=temperature), DualSoftmax(ways[1], temperature=temperature)


@dataclass(frozen=True)
class _Pairs:
    """What a cross encoder says of pairs (P,): numbers of captions and videos, ``score``, and ``way``, whose bit 1 says
    that the video is among the ``limit`` best of the caption, bit 2 that the caption is among those of the video."""

    of_text: Ids
    of_video: Ids
    score: Tensor
    way: Ids
    limit: int
    every: bool


@dataclass(frozen=True)
class _Table:
    """The different ``video`` (V, D) and captions ``text`` (C, D); right pairs of ``caption`` and ``owner``, sorted
    by caption; ``asked`` are the videos that have a caption, and ``asked[query]`` is ``owner``. ``video_ids`` (V,) are
    those of the videos, ``hashes`` those of the captions in the right pairs."""

    video: Tensor
    text: Tensor
    caption: Ids
    owner: Ids
    asked: Ids
    query: Ids
    pairs: _Pairs | None
    video_ids: Ids
    hashes: Ids


def _table(store: RowStore) -> _Table:
    rows = store.joined()
    hashes, text_video_ids, video_ids = (as_ids(rows[n]) for n in ("text_hash", "text_video_id", "video_id"))
    kept = distinct(video_ids)
    own = distinct(hashes, text_video_ids)  # one a video and different caption, sorted by caption
    owner = store.row_of(text_video_ids[own], video_ids[kept])
    known, first, caption = np.unique(hashes[own], return_index=True, return_inverse=True)
    asked, query = np.unique(owner, return_inverse=True)
    pairs = None
    if all(name in rows for name in PAIRS):
        of_video = store.row_of(as_ids(rows["pair_video_id"]), video_ids[kept])
        of_text = np.searchsorted(known, as_ids(rows["pair_text_hash"]))
        way = as_ids(rows["pair_way"])
        per_query = [np.bincount(of[way & bit > 0], minlength=1).max() for of, bit in ((of_text, 1), (of_video, 2))]
        limit, every = int(max(per_query)), len(way) == len(kept) * len(known) and bool((way == 3).all())
        pairs = _Pairs(of_text, of_video, rows["pair_score"], way, limit, every)
    video = rows["video"][torch.from_numpy(kept)]
    text = rows["text"][torch.from_numpy(own[first])]
    return _Table(video, text, caption, owner, asked, query, pairs, video_ids[kept], hashes[own])
