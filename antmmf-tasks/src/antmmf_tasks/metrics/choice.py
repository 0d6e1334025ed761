"""Accuracy of choosing a video's own text among texts known to be false for it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from antmmf.contracts import Figure
from torch import Tensor

from antmmf_tasks.metrics.intervals import wilson
from antmmf_tasks.metrics.rows import Ids, RowStore, as_ids, distinct

NEEDED = ("video", "video_id", "text", "text_video_id", "text_hash")
NEGATIVE = ("negative", "negative_video_id", "negative_text_hash")


class Choice:
    """``choice/accuracy`` in percent: how often a text of a video scores above all false texts of that video.

    Each different text of a video that has false texts is one case. Equal scores count by expectation: a text that
    shares the top with t false ones counts 1 / (t + 1). A false text that is also one of the video's own is left out.
    With ``video_shuffled`` rows, (B, D) or (B, orders, D), the same clips with frames in random orders, also
    ``choice/shuffled/accuracy``, the mean over orders: texts that differ in order alone cannot be told apart there.
    Intervals are Wilson's. No figures without false texts.
    """

    def __init__(self) -> None:
        self._store = RowStore("choice", NEEDED, optional=(*NEGATIVE, "video_shuffled"))

    def names(self) -> list[str]:
        """What ``compute`` may return."""
        return ["choice/accuracy", "choice/shuffled/accuracy"]

    def update(self, rows: Mapping[str, Tensor]) -> None:
        """Take the rows of a split, or of a part of it."""
        self._store.add(rows)

    def reset(self) -> None:
        """Forget all rows."""
        self._store.clear()

    def compute(self) -> dict[str, Figure]:
        """The figures of all rows so far; raises ``ComponentError`` for NaN, and for texts of unknown videos."""
        rows = self._store.joined()
        if any(name not in rows for name in NEGATIVE):
            return {}
        ids = {name: as_ids(values) for name, values in rows.items() if not values.is_floating_point()}
        kept = distinct(ids["video_id"])
        known = ids["video_id"][kept]
        own, false = _texts(ids)
        false_video = self._store.row_of(ids["negative_video_id"][false], known)
        own_video = self._store.row_of(ids["text_video_id"][own], known)
        asked = np.isin(own_video, false_video)
        if not asked.any():
            return {}
        texts = torch.cat([rows["text"][torch.from_numpy(own[asked])], rows["negative"][torch.from_numpy(false)]])
        video_of = torch.from_numpy(np.concatenate([own_video[asked], false_video])).to(texts.device)
        figures = {}
        for name, key in (("video", "choice/accuracy"), ("video_shuffled", "choice/shuffled/accuracy")):
            if name in rows:
                views = rows[name][torch.from_numpy(kept)][video_of]  # (texts, D), or (texts, orders, D)
                # one product for own and false texts, so that equal texts have equal scores
                scores = (views.view(len(texts), -1, texts.shape[1]) * texts[:, None]).sum(2)
                figures[key] = _accuracy(scores, video_of, num_own=int(asked.sum()), num_videos=len(kept))
        return figures


def _texts(ids: Mapping[str, Ids]) -> tuple[Ids, Ids]:
    """Rows of each video's different texts and different false texts."""
    own = distinct(ids["text_video_id"], ids["text_hash"])
    false = distinct(ids["negative_video_id"], ids["negative_text_hash"])
    truth = set(zip(ids["text_video_id"].tolist(), ids["text_hash"].tolist(), strict=True))
    pairs = zip(ids["negative_video_id"][false].tolist(), ids["negative_text_hash"][false].tolist(), strict=True)
    return own, false[np.fromiter((pair not in truth for pair in pairs), dtype=bool, count=len(false))]


def _accuracy(scores: Tensor, video_of: Tensor, *, num_own: int, num_videos: int) -> Figure:
    """Scores (num_own + K, orders) of the own texts, then of the false ones, each for the video in ``video_of``."""
    right = sum(_num_right(column, video_of, num_own, num_videos) for column in scores.T) / scores.shape[1]
    low, high = wilson(right, num_own)
    return Figure(100 * right / num_own, 100 * low, 100 * high, num_own)


def _num_right(scores: Tensor, video_of: Tensor, num_own: int, num_videos: int) -> float:
    own, false = scores[:num_own], scores[num_own:]
    own_video, false_video = video_of[:num_own], video_of[num_own:]
    best = scores.new_full((num_videos,), -torch.inf).scatter_reduce(0, false_video, false, "amax")
    at_best = scores.new_zeros(num_videos).index_add(0, false_video, (false == best[false_video]).float())
    credit = torch.where(own > best[own_video], 1.0, 1 / (1 + at_best[own_video]))
    return float(torch.where(own < best[own_video], 0.0, credit).double().sum())
