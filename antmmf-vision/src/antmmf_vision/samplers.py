"""Which frames of a video a model sees; pure functions of the times and the generator.

The times are those of the frames between a record's start and end; a picture is a video of one frame. ``segments``,
``uniform`` and ``dense`` count frames, as AntMMF does, ``fps`` counts seconds: take it where a file's frames come at
uneven times and equal parts of the video must mean equal times. A video that is too short gives its frames more than
once, evenly, in their order.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

Positive = Annotated[int, Field(gt=0)]

_TICK = 1e-6  # seconds, less than any container's: lengths this close are equal, halfway means the later frame


class Segments:
    """One frame from each of ``n_clips * num_frm`` equal intervals: a random one in training, the middle one else.

    Clip c is the c-th of ``n_clips`` equal parts of the video, its ``num_frm`` frames in order. In training every frame
    of the video can be drawn; AntMMF never draws the last one of an interval. The middle is the frame that is shown at
    half the interval; AntMMF's ``(lo + hi) // 2`` of rounded bounds is the same frame or the one beside it.
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


class Fps:
    """``n_clips`` clips of ``num_frm`` frames that lie ``1 / fps`` seconds apart; only times count, not frame numbers.

    The times at which a clip can start are cut into ``n_clips`` equal parts: one clip starts in each, anywhere in
    training, in the middle in evaluation, so that a single clip is centred. Each wanted time gives the nearest frame,
    twice or more where ``fps`` exceeds the video's own. A video shorter than a clip is spread over each of them. At an
    even rate the frames are those of ``segments`` for ``num_frm`` 1, else those of ``dense`` with the stride that
    ``fps`` means, where that is a whole number. The defaults are CLIP4Clip's for MSR-VTT.
    """

    def __init__(
        self, *, n_clips: Positive = 1, num_frm: Positive = 12, fps: Annotated[float, Field(gt=0)] = 1.0
    ) -> None:
        self._n_clips, self._num_frm, self._fps = n_clips, num_frm, fps

    def __call__(self, times: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """Times (T,) in seconds to indices (n_clips, num_frm)."""
        gap = (times[-1] - times[0]) / max(len(times) - 1, 1)  # how long a frame is shown, on average
        length = gap * len(times)
        room = length - (self._num_frm - 1) / self._fps  # for how long a clip can start
        if room < gap - _TICK:
            moments = np.tile((np.arange(self._num_frm) + 0.5) * length / self._num_frm, (self._n_clips, 1))
        else:
            moments = room * _spread(self._n_clips, rng)[:, None] + np.arange(self._num_frm) / self._fps  # (C, F)
        halfway = (times[1:] + times[:-1]) / 2
        indices: np.ndarray = np.searchsorted(halfway, times[0] - gap / 2 + moments + _TICK)
        return indices.astype(np.int64)


class Dense:
    """``n_clips`` clips of ``num_frm`` frames, every ``stride``-th of the video's, as in action recognition.

    The frames at which a clip can start are cut into ``n_clips`` equal parts: one clip starts in each, anywhere in
    training, in the middle in evaluation. Clips overlap where they must. A clip reaches over
    ``(num_frm - 1) * stride + 1`` frames, so the video's last frame can be in it; a shorter video is spread over each
    clip. The defaults are Video Swin's for Kinetics in training; it evaluates with 4 clips.
    """

    def __init__(self, *, n_clips: Positive = 1, num_frm: Positive = 32, stride: Positive = 2) -> None:
        self._n_clips, self._num_frm, self._stride = n_clips, num_frm, stride

    def __call__(self, times: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """Times (T,) in seconds to indices (n_clips, num_frm)."""
        room = len(times) - (self._num_frm - 1) * self._stride  # how many frames a clip can start at
        if room < 1:
            whole = Uniform(n_clips=1, num_frm=self._num_frm)(times, None)  # (1, F)
            return np.repeat(whole, self._n_clips, axis=0)
        starts = np.minimum((_spread(self._n_clips, rng) * room).astype(np.int64), room - 1)
        return starts[:, None] + np.arange(self._num_frm) * self._stride  # (C, F)


def _spread(count: int, rng: np.random.Generator | None) -> np.ndarray:
    """A point of each of ``count`` equal parts of 0 to 1, in order: any in training, the middle in evaluation."""
    within = rng.random(count) if rng is not None else 0.5
    points: np.ndarray = (np.arange(count) + within) / count
    return points
