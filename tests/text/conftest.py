"""Assets as a run would give them, without a run; puts this folder on the path for ``towers`` and ``text_tools``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from antmmf.assets import RunAssets

sys.path.insert(0, str(Path(__file__).parent))

torch.set_num_threads(1)

TEXTS = (
    "a red circle moves left and a blue square spins",
    "the green star jumps, then the red moon shakes",
    "红色圆形向左移动，然后蓝色方形旋转",
) * 3


@pytest.fixture
def assets() -> RunAssets:
    return RunAssets(texts=lambda: iter(TEXTS))
