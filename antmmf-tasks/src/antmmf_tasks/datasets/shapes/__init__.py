"""`shapes`: an embedded world of moving shapes, with texts in English and Chinese."""

from __future__ import annotations

from antmmf_tasks.datasets.shapes.dataset import Shapes

__all__ = ["Shapes"]
