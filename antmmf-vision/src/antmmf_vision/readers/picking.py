"""What every reader does around decoding: check the choice of frames, decode each only once."""

from __future__ import annotations

import numpy as np
from antmmf.contracts import Pick, Source
from antmmf.errors import ComponentError


def picked(pick: Pick, times: np.ndarray, source: Source) -> np.ndarray:
    """The indices (K,) int64 that ``pick`` chooses; raise ``ComponentError`` when one of them is no frame."""
    indices = np.asarray(pick(times), dtype=np.int64).reshape(-1)
    if not len(indices):
        raise ComponentError(f"{source}: the sampler must choose at least one of {len(times)} frames, chose none")
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= len(times):
        wrong = low if low < 0 else high
        raise ComponentError(f"{source}: the sampler must choose frames 0 to {len(times) - 1}, chose {wrong}")
    return indices
