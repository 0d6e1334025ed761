"""Which frames of a video a model sees; pure functions of the times and the generator."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

Positive = Annotated[int, Field(gt=0)]


class Segments:
    """One frame from each of ``n_clips * num_frm`` equal intervals: a random one in training, the middle one else.

    Clip c is the c-th of ``n_clips`` equal parts of the video, its ``num_frm`` frames in order; all of a short
    video's frames are used, some of them more than once.
    """

    def __init__(self, *, n_clips: Positive = 8, num_frm: Positive = 1) -> None:
        self._shape = (n_clips, num_frm)

    def __call__(self, times: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """Times (T,) in seconds to indices (n_clips, num_frm)."""
        count = self._shape[0] * self._shape[1]
        within = rng.random(count) if rng is not None else 0.5
        intervals = (np.arange(count) + within) * (len(times) / count)
        return np.minimum(intervals.astype(np.int64), len(times) - 1).reshape(self._shape)


class Uniform:
    """The same evenly spaced frames in training and evaluation: the middle of ``n_clips * num_frm`` equal intervals."""

    def __init__(self, *, n_clips: Positive = 8, num_frm: Positive = 1) -> None:
        self._segments = Segments(n_clips=n_clips, num_frm=num_frm)

    def __call__(self, times: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:  # noqa: ARG002
        """Times (T,) in seconds to indices (n_clips, num_frm); ``rng`` is not used."""
        return self._segments(times, None)
