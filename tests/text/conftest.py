"""Assets as a run would give them, without a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from antmmf.contracts import Json

torch.set_num_threads(1)

TEXTS = (
    "a red circle moves left and a blue square spins",
    "the green star jumps, then the red moon shakes",
    "红色圆形向左移动，然后蓝色方形旋转",
) * 3


class FakeAssets:
    """Makes an asset from ``texts`` once, then returns what was saved."""

    def __init__(self, texts: Sequence[str] = TEXTS) -> None:
        self.texts, self.saved = texts, dict[str, Json]()

    def get(self, name: str, make: Callable[[Iterator[str]], Json]) -> Json:
        if name not in self.saved:
            self.saved[name] = make(iter(self.texts))
        return self.saved[name]


@pytest.fixture
def assets() -> FakeAssets:
    return FakeAssets()
