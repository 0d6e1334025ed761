"""How many questions are answered right, over all and by kind of question."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

import numpy as np
from antmmf.cases import Cases
from antmmf.contracts import Figure
from numpy.typing import NDArray
from torch import Tensor

from antmmf_tasks.metrics.intervals import share
from antmmf_tasks.metrics.rows import RowStore, as_ids, distinct

log = logging.getLogger("antmmf")

KINDS = ("what", "who", "how", "when", "where", "other")


class Accuracy:
    """``accuracy`` in percent of all questions, and ``accuracy/KIND`` of those of each kind that the data set tells.

    A question whose answer the model does not know counts as wrong, and ``unknown`` is the share of such questions in
    percent; a choice among options (rows ``credit``) has none. An answer that shares the best score with k - 1 others
    counts 1 / k. Questions that nobody has answered (rows ``told`` False) are left out. Intervals are Wilson's, over
    videos (rows ``media``; see ``share``).
    """

    def __init__(self) -> None:
        self._store = RowStore("accuracy", ("id", "kind"), optional=("chosen", "target", "credit", "told", "media"))

    def names(self, rows: Collection[str] | None = None) -> list[str]:
        """What ``compute`` may return of ``rows``; other kinds of questions come with the data set."""
        self._store.require(rows)
        return ["accuracy", "unknown", *(f"accuracy/{kind}" for kind in KINDS)]

    def update(self, rows: Mapping[str, Tensor]) -> None:
        """Take the rows of a split, or of a part of it."""
        self._store.add(rows)

    def reset(self) -> None:
        """Forget all rows."""
        self._store.clear()

    def compute(self) -> dict[str, Figure]:
        """The figures of all questions so far, each once; how many have no right answer is logged."""
        rows = self._store.joined()
        ids = as_ids(rows["id"])
        if not _told(rows).all():
            every, told = (len(np.unique(found)) for found in (ids, ids[_told(rows)]))
            log.info("accuracy: %d of %d questions come without the right answer and do not count", every - told, every)
        kept = distinct(ids)
        media = as_ids(rows.get("media", rows["id"]))[kept]
        return {
            name: share(values / 100, media[self._store.row_of(part.id, ids[kept])])
            for part in self.cases()
            for name, values in part.values.items()
        }

    def cases(self) -> list[Cases]:
        """What each question adds to the figures, 100 or 0."""
        rows = self._store.joined()
        kept = distinct(as_ids(rows["id"]))
        kept = kept[_told(rows)[kept]]
        if not len(kept):
            return []
        ids, values = as_ids(rows["id"])[kept], {}
        if "credit" in rows:
            values["accuracy"] = right = 100 * rows["credit"].double().cpu().numpy()[kept]
        else:
            target = as_ids(rows["target"])[kept]
            values["accuracy"] = right = 100.0 * (as_ids(rows["chosen"])[kept, 0] == target)
            values["unknown"] = 100.0 * (target < 0)
        found = [Cases(ids, np.zeros_like(ids), values)]
        kinds = [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in rows["kind"].cpu().numpy()[kept]]
        for kind in sorted({kind for kind in kinds if kind}):
            own = np.flatnonzero([other == kind for other in kinds])
            found.append(Cases(ids[own], np.zeros_like(ids[own]), {f"accuracy/{kind}": right[own]}))
        return found


def _told(rows: Mapping[str, Tensor]) -> NDArray[np.bool_]:
    """Which questions have a right answer."""
    told = rows["told"].cpu().numpy() if "told" in rows else np.ones(len(rows["id"]))
    return np.asarray(told, dtype=bool)
