"""Where the real annotation files are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

ANNOTATIONS = Path(__file__).parents[4] / "shared" / "data" / "annotations"

Real = Callable[[dict[str, str]], Path]
