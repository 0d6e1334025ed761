"""Accuracy of choosing a video's own text among texts known to be false for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from antmmf.cases import Cases
from antmmf.contracts import Figure
from numpy.typing import NDArray
from torch import Tensor

from antmmf_tasks.metrics.intervals import share
from antmmf_tasks.metrics.rows import Ids, RowStore, as_ids, distinct

NEEDED = ("video", "video_id", "text", "text_video_id", "text_hash")
NEGATIVE = ("negative", "negative_video_id", "negative_text_hash")


class Choice:
    """``choice/accuracy`` in percent: how often a text of a video scores above all false texts of that video.

    Each different text of a video that has false texts is one case. Equal scores count by expectation: a text that
    shares the top with t false ones counts 1 / (t + 1). A false text that is also one of the video's own is left out.
    With ``video_shuffled`` rows, (B, D) or (B, orders, D), the same clips with frames in random orders, also
    ``choice/shuffled/accuracy``, the mean over orders: texts that differ in order alone cannot be told apart there.
    Intervals are Wilson's, over videos (see ``share``). No figures without false texts.
    """

    def __init__(self) -> None:
        self._store = RowStore("choice", NEEDED, optional=(*NEGATIVE, "video_shuffled"))

    def names(self, rows: Collection[str] | None = None) -> list[str]:
        """What ``compute`` may return of ``rows``."""
        self._store.require(rows)
        return ["choice/accuracy", "choice/shuffled/accuracy"]

    def update(self, rows: Mapping[str, Tensor]) -> None:
        """Take the rows of a split, or of a part of it."""
        self._store.add(rows)

    def reset(self) -> None:
        """Forget all rows."""
        self._store.clear()

    def compute(self) -> dict[str, Figure]:
        """The figures of all rows so far; raises ``ComponentError`` for NaN, and for texts of unknown videos."""
        return {name: share(values / 100, part.id) for part in self.cases() for name, values in part.values.items()}

    def cases(self) -> list[Cases]:
        """What each of a video's own texts adds to the figures."""
        rows = self._store.joined()
        if any(name not in rows for name in NEGATIVE):
            return []
        ids = {name: as_ids(values) for name, values in rows.items() if not values.is_floating_point()}
        kept = distinct(ids["video_id"])
        known = ids["video_id"][kept]
        own, false = _texts(ids)
        false_video = self._store.row_of(ids["negative_video_id"][false], known)
        own_video = self._store.row_of(ids["text_video_id"][own], known)
        asked = np.isin(own_video, false_video)
        if not asked.any():
            return []
        texts = torch.cat([rows["text"][torch.from_numpy(own[asked])], rows["negative"][torch.from_numpy(false)]])
        video_of = torch.from_numpy(np.concatenate([own_video[asked], false_video])).to(texts.device)
        values = {}
        for name, key in (("video", "choice/accuracy"), ("video_shuffled", "choice/shuffled/accuracy")):
            if name in rows:
                views = rows[name][torch.from_numpy(kept)][video_of]  # (texts, D), or (texts, orders, D)
                # one product for own and false texts, so that equal texts have equal scores
                scores = (views.view(len(texts), -1, texts.shape[1]) * texts[:, None]).sum(2)
                values[key] = 100 * _credit(scores, video_of, num_own=int(asked.sum()), num_videos=len(kept))
        own = own[asked]
        return [Cases(ids["text_video_id"][own], ids["text_hash"][own], values)]


def _texts(ids: Mapping[str, Ids]) -> tuple[Ids, Ids]:
    """Rows of each video's different texts and different false texts."""
    own = distinct(ids["text_video_id"], ids["text_hash"])
    false = distinct(ids["negative_video_id"], ids["negative_text_hash"])
    truth = set(zip(ids["text_video_id"].tolist(), ids["text_hash"].tolist(), strict=True))
    pairs = zip(ids["negative_video_id"][false].tolist(), ids["negative_text_hash"][false].tolist(), strict=True)
    return own, false[np.fromiter((pair not in truth for pair in pairs), dtype=bool, count=len(false))]


def _credit(scores: Tensor, video_of: Tensor, *, num_own: int, num_videos: int) -> NDArray[np.float64]:
    """Scores (num_own + K, orders) of the own texts, then of the false ones, each for the video in ``video_of``."""
    columns = [_right(column, video_of, num_own, num_videos).cpu().numpy() for column in scores.T]
    return np.asarray(np.mean(columns, axis=0))


def _right(scores: Tensor, video_of: Tensor, num_own: int, num_videos: int) -> Tensor:
    own, false = scores[:num_own], scores[num_own:]
    own_video, false_video = video_of[:num_own], video_of[num_own:]
    best = scores.new_full((num_videos,), -torch.inf).scatter_reduce(0, false_video, false, "amax")
    at_best = scores.new_zeros(num_videos).index_add(0, false_video, (false == best[false_video]).float())
    credit = torch.where(own > best[own_video], 1.0, 1 / (1 + at_best[own_video]))
    return torch.where(own < best[own_video], 0.0, credit).double()
