"""A plugin file: the clips of ``shapes`` that only the order of two events tells apart, each from its twin."""

from __future__ import annotations

from collections.abc import Iterator

from antmmf.contracts import Record
from antmmf_tasks.datasets.shapes.dataset import Shapes


class OrderClips(Shapes):
    """Twins with the same frames in another order."""

    def records(self) -> Iterator[Record]:
        """Those with a caption whose events are reversed."""
        return (record for record in super().records() if record.negatives)


ANTMMF_COMPONENTS = {"datasets": {"order_clips": OrderClips}}
