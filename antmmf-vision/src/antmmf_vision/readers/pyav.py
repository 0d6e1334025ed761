"""Read a video through PyAV (FFmpeg): every format that FFmpeg knows, on every platform."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from antmmf_vision.readers.video import Video, VideoReader, runs

Empty: TypeAlias = Callable[..., np.ndarray]  # as np.empty: shape and type

_SEEK_GAIN = 1  # frames that starting again at a key frame must save before it is worth emptying the decoder
_SKIPPING = frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video"})  # decoders that leave out one by one
_LATE = 16  # frames after the last wanted one before a missing one is given up: codecs reorder at most so many


class PyAVReader(VideoReader):
    """Decodes from the key frame before the first picked frame to the last picked one, and on the way only what other
    frames need.

    Times start at the first shown frame; frames that an edit list hides do not count. Rotated files come upright. For
    a frame that is damaged beyond decoding the nearest one that decodes stands in, if it is at most a second away.
    """

    name = "pyav"

    def __init__(self) -> None:
        self.empty: Empty = np.empty

    def _decode(self, video: Video, indices: np.ndarray) -> np.ndarray:
        return decode(video, indices, self.empty)


def decode(video: Video, indices: np.ndarray, empty: Empty = np.empty) -> np.ndarray:
    """Decode the shown frames at ``indices`` (K,), each once: (K, H, W, 3) uint8. Raises ``DataError``."""
    order, rows = np.unique(indices, return_inverse=True)
    rows = rows.reshape(-1)
    wanted = [video.ticks[index] for index in order]
    frames = _Frames(wanted, rows, empty)
    decoder = _Decoder(video)
    for start, group in runs(video, wanted, gain=_SEEK_GAIN):
        decoder.exact(start, group, frames)
    if frames.missing:
        decoder.nearest(frames.missing, frames)
    if frames.sizes_differ:
        raise video.fault("its frames change size")
    assert frames.pixels is not None
    return frames.pixels


class _Frames:
    """The picked frames as they come: ``pixels`` (K, H, W, 3), upright RGB, written where they were picked."""

    def __init__(self, wanted: Sequence[int], rows: np.ndarray, empty: Empty) -> None:
        self._empty = empty
        self.pixels: np.ndarray | None = None
        self.sizes_differ = False
        self._rows = {tick: np.flatnonzero(rows == number) for number, tick in enumerate(wanted)}
        self._num_rows = len(rows)
        self._found: set[int] = set()
        self._converter = VideoReformatter()  # costly to make
        # from 17 on PyAV starts a thread for each core, which takes 20 times as long as converting a small frame
        self._one_thread = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}

    @property
    def missing(self) -> list[int]:
        return [tick for tick in self._rows if tick not in self._found]

    def put(self, tick: int, frame: VideoFrame) -> None:
        range_ = frame.color_range  # which PyAV before 17 does not look at by itself
        rgb = self._converter.reformat(frame, format="rgb24", src_color_range=range_, **self._one_thread)
        array = _looked_at(rgb)
        turns = round(frame.rotation / 90)  # counterclockwise
        upright = np.rot90(array, turns) if turns else array
        if self.pixels is None:
            self.pixels = np.asarray(self._empty((self._num_rows, *upright.shape), np.uint8))
        self._found.add(tick)
        if upright.shape != self.pixels.shape[1:]:
            self.sizes_differ = True
            return
        self.pixels[self._rows[tick]] = upright

    def drop(self, ticks: Sequence[int]) -> None:
        self._found.difference_update(ticks)


def _looked_at(rgb: VideoFrame) -> np.ndarray:
    """The frame's own memory as (H, W, 3), which ``to_ndarray`` would copy; valid as long as the frame."""
    plane = rgb.planes[0]
    width = plane.line_size  # with what is there for alignment
    rows: np.ndarray = np.frombuffer(memoryview(plane), np.uint8, count=width * rgb.height).reshape(rgb.height, width)
    return rows[:, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)


class _Decoder:
    def __init__(self, video: Video) -> None:
        self._video, self._context = video, video.context

    def exact(self, start: int, wanted: Sequence[int], frames: _Frames) -> None:
        """Decode from packet ``start`` until each of ``wanted`` is found, or will not come.

        Finds nothing when what was decoded depends on what came before ``start``: the frame there is no key frame,
        whatever the container says. Nor when one is damaged: the decoder mends it with any that came before.
        """
        still = set(wanted)
        first = self._video.places[start].pts
        late = 0
        for tick, frame in self._decoded(start, only=still):
            if frame.is_corrupt or (start and tick == first and not frame.key_frame):
                frames.drop(wanted)
                return
            if tick in still:
                still.remove(tick)
                frames.put(tick, frame)
            late += tick > wanted[-1]
            if not still or late > _LATE:
                return

    def nearest(self, wanted: Sequence[int], frames: _Frames) -> None:
        """Decode all from the start, and take for each of ``wanted`` the nearest frame that decodes."""
        video = self._video
        second = 1 / video.tick
        nearest: dict[int, tuple[float, VideoFrame]] = {}
        any_frame = False
        for tick, frame in self._decoded(0):
            any_frame = True
            for missing in wanted:
                if abs(tick - missing) < nearest.get(missing, (second,))[0]:
                    nearest[missing] = (abs(tick - missing), frame)
            if nearest.get(wanted[-1], (second,))[0] == 0 or tick > wanted[-1] + second:
                break
        for missing in wanted:
            if missing not in nearest:
                if not any_frame:
                    raise video.fault("not one of its frames can be decoded", reason="no_frames")
                seconds = (missing - video.ticks[0]) * video.tick
                raise video.fault(f"no frame within a second of {seconds:.2f} s can be decoded")
            frames.put(missing, nearest[missing][1])

    def _decoded(self, start: int, *, only: set[int] | None = None) -> Iterator[tuple[int, VideoFrame]]:
        """Frames as the decoder returns them, from packet ``start`` to the end; damaged packets are passed over.

        With ``only``, frames at other ticks are left out where no other frame needs them.
        """
        self._context.flush_buffers()
        if self._context.name not in _SKIPPING:
            only = None
        if not self._video.timed:
            yield from zip(self._video.ticks, self._all_frames(start, None), strict=False)
            return
        for frame in self._all_frames(start, only):
            if frame.pts is not None:
                yield frame.pts, frame

    def _all_frames(self, start: int, only: set[int] | None) -> Iterator[VideoFrame]:
        self._context.skip_frame = "DEFAULT"
        for packet in self._video.packets(start):
            if only is not None:
                self._context.skip_frame = "DEFAULT" if packet.pts in only else "NONREF"
            try:
                decoded = self._context.decode(packet)
            except av.FFmpegError:
                continue
            yield from decoded
        try:
            decoded = self._context.decode(None)
        except av.FFmpegError:
            return
        yield from decoded
