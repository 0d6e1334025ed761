"""The rows that metrics read: collected, checked, each sample once."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import cast

import numpy as np
import torch
from antmmf.errors import ComponentError
from numpy.typing import NDArray
from torch import Tensor

Ids = NDArray[np.int64]


class RowStore:
    """Collects the rows that a metric asks for, by name."""

    def __init__(self, metric: str, needed: tuple[str, ...], *, optional: tuple[str, ...] = ()) -> None:
        self.metric = metric
        self.needed = needed
        self.optional = optional
        self.parts: dict[str, list[Tensor]] = {}

    def require(self, rows: Collection[str] | None) -> None:
        """Raise ``ComponentError`` when a needed name is not among ``rows``; None: they are not known yet."""
        if rows is None:
            return
        missing = [name for name in self.needed if name not in rows]
        if missing:
            raise ComponentError(
                f"metric {self.metric!r} needs the rows {', '.join(missing)}, the task gives "
                f"{', '.join(sorted(rows)) or 'none'}; take this metric out or use a task that gives them"
            )

    def add(self, rows: Mapping[str, Tensor]) -> None:
        """Keep the rows of one more part of the split; raises ``ComponentError`` when a needed name is missing."""
        self.require(rows)
        for name in (*self.needed, *self.optional):
            if name in rows:
                self.parts.setdefault(name, []).append(rows[name].detach())

    def joined(self) -> dict[str, Tensor]:
        """All rows; vectors as float32. Raises ``ComponentError`` when there are none or one is not finite."""
        if not self.parts:
            raise ComponentError(f"metric {self.metric!r} was given no rows: the split is empty")
        rows = {name: torch.cat(parts) for name, parts in self.parts.items()}
        for name, values in rows.items():
            if not values.is_floating_point():
                continue
            rows[name] = values.float()
            flat = values.reshape(len(values), math.prod(values.shape[1:]))
            if flat.sum(1).isfinite().all():  # so are its parts
                continue
            broken = int((~flat.isfinite()).any(1).sum())
            if broken:
                raise ComponentError(
                    f"metric {self.metric!r}: {broken} of {len(values)} rows of {name!r} hold NaN or infinity; "
                    "a model that gives them cannot be ranked (did training diverge?)"
                )
        return rows

    def clear(self) -> None:
        """Forget everything."""
        self.parts.clear()

    def row_of(self, ids: Ids, known: Ids) -> Ids:
        """Where each of ``ids`` stands in the sorted ``known`` video ids; raises ``ComponentError`` for a stranger."""
        place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        strangers = int((known[place] != ids).sum())
        if strangers:
            raise ComponentError(
                f"metric {self.metric!r}: {strangers} texts belong to videos that are not in the split"
            )
        return place


def as_ids(values: Tensor) -> Ids:
    """An int64 tensor as an array on the CPU."""
    return cast(Ids, values.cpu().numpy())


def distinct(*keys: Ids) -> Ids:
    """The first row of each different combination of ``keys``, in the order of the first key, then the second ..."""
    order = np.lexsort(keys[::-1])
    fresh = np.arange(len(order)) == 0
    for key in keys:
        fresh[1:] |= key[order][1:] != key[order][:-1]
    return cast(Ids, order[fresh])
