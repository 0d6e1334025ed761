"""Recall of text-to-video and video-to-text retrieval over a whole split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import torch
from antmmf.contracts import Figure
from pydantic import Field
from torch import Tensor

from antmmf_tasks.metrics.intervals import bootstrap_means, bootstrap_median
from antmmf_tasks.metrics.ranks import Ranks, rank
from antmmf_tasks.metrics.rows import RowStore, as_ids, distinct

Positive = Annotated[int, Field(gt=0)]


class Recall:
    """R@k and their mean in percent, median (MdR) and mean (MnR) rank, both ways: ``t2v/R1``, ``t2v/mR``, ``v2t/MdR``.

    What is ranked, and what is right:

    - t2v: every caption of every video is a query (one that a video lists twice is one), the videos are the
      candidates; right is every video that owns a caption with the same string.
    - v2t: every video that has a caption is a query, the different caption strings are the candidates, each once;
      right is each of the video's captions.

    A query's rank is that of its best right answer and counts only wrong candidates above it. Equal scores count by
    expectation over their orders (see ``Ranks``). A video id that comes twice counts once; the order of the rows
    changes nothing. Intervals are the 2.5th and 97.5th percentile over ``bootstrap`` resamples of the queries, with
    ``seed``; 0 for none. They treat queries as independent: captions of one video are not, quite.
    """

    def __init__(
        self,
        *,
        ks: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 5, 10),
        bootstrap: Annotated[int, Field(ge=0)] = 1000,
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.ks = ks
        self.bootstrap = bootstrap
        self.seed = seed
        self._store = RowStore("recall", ("video", "video_id", "text", "text_video_id", "text_hash"))

    def names(self) -> list[str]:
        """What ``compute`` returns, without computing it."""
        return [f"{way}/{name}" for way in ("t2v", "v2t") for name in (*(f"R{k}" for k in self.ks), "mR", "MnR", "MdR")]

    def update(self, rows: Mapping[str, Tensor]) -> None:
        """Take the rows of a split, or of a part of it."""
        self._store.add(rows)

    def reset(self) -> None:
        """Forget all rows."""
        self._store.clear()

    def compute(self) -> dict[str, Figure]:
        """The figures of all rows so far; raises ``ComponentError`` for NaN, and for texts of unknown videos."""
        text_to_video, video_to_text = self._ranks()
        return {**self._figures("t2v", text_to_video), **self._figures("v2t", video_to_text)}

    def _ranks(self) -> tuple[Ranks, Ranks]:
        rows = self._store.joined()
        hashes, text_video_ids, video_ids = (as_ids(rows[n]) for n in ("text_hash", "text_video_id", "video_id"))
        kept = distinct(video_ids)
        pairs = distinct(hashes, text_video_ids)  # one a video and different caption, sorted by caption
        owner = self._store.row_of(text_video_ids[pairs], video_ids[kept])
        _, first, caption = np.unique(hashes[pairs], return_index=True, return_inverse=True)
        video = rows["video"][torch.from_numpy(kept)]
        text = rows["text"][torch.from_numpy(pairs[first])]
        text_to_video = rank(text, video, query=caption, right=owner).take(caption)
        by_video = np.argsort(owner, kind="stable")
        asked, query = np.unique(owner, return_inverse=True)
        video_to_text = rank(video[torch.from_numpy(asked)], text, query=query[by_video], right=caption[by_video])
        return text_to_video, video_to_text

    def _figures(self, way: str, ranks: Ranks) -> dict[str, Figure]:
        expected = ranks.expected()
        hits = [100 * ranks.hit(k) for k in self.ks]
        columns = np.stack([*hits, np.mean(hits, axis=0), expected], axis=1)
        names = [*(f"R{k}" for k in self.ks), "mR", "MnR"]
        n, median = len(expected), float(np.median(expected))
        means = [float(mean) for mean in columns.mean(0)]
        if not self.bootstrap:
            figures = {f"{way}/{name}": Figure(mean, n=n) for name, mean in zip(names, means, strict=True)}
            return {**figures, f"{way}/MdR": Figure(median, n=n)}
        rng = np.random.default_rng(self.seed)
        lows, highs = bootstrap_means(columns, num=self.bootstrap, rng=rng)
        figures = {
            f"{way}/{name}": Figure(mean, float(low), float(high), n)
            for name, mean, low, high in zip(names, means, lows, highs, strict=True)
        }
        low, high = bootstrap_median(expected, num=self.bootstrap, rng=rng)
        return {**figures, f"{way}/MdR": Figure(median, low, high, n)}
