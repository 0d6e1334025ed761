"""Read a video through PyAV (FFmpeg): every format that FFmpeg knows, on every platform."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from antmmf.contracts import Clip, Pick
from antmmf.errors import DataError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from antmmf_vision.readers.picking import picked

_SEEK_GAIN = 12  # frames that starting again at a key frame must save before it is worth emptying the decoder
_LATE = 16  # frames after the last wanted one before a missing one is given up: codecs reorder at most so many


class PyAVReader:
    """Demuxes the file once, then decodes from the key frame before the first picked frame to the last picked one.

    Times start at the first shown frame; frames that an edit list hides do not count. Rotated files come upright. For
    a frame that is damaged beyond decoding the nearest one that decodes stands in, if it is at most a second away.
    """

    def read(self, source: Path, pick: Pick) -> Clip:
        """Raise ``DataError`` when the file cannot be opened, holds no video, or a picked frame cannot be had."""
        try:
            with av.open(str(source)) as container:
                stream = container.streams.best("video")
                if stream is None:
                    raise ValueError("it holds no video stream")
                packets = [packet for packet in container.demux(stream) if packet.size]
                context = stream.codec_context
                assert isinstance(context, VideoCodecContext)
                # AVI stores no times of presentation; those that FFmpeg makes up are in the wrong order with B-frames
                trusted = not (container.format.name == "avi" and context.has_b_frames)
                video = _Video(context, packets, tick=stream.time_base, rate=stream.average_rate, trusted=trusted)
                indices = picked(pick, video.times(), source)
                return Clip(frames=video.frames(indices), num_total=len(video.ticks))
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"{source}: {reason} (reader pyav)") from error


class _Video:
    """The packets of a stream in decoding order, and ``ticks``: when its frames are shown, sorted, each once.

    Where the times are missing (raw H.264) or not ``trusted``, the k-th frame that comes out of the decoder is the k-th
    that is shown, and decoding always begins at the start. Raises ``ValueError`` when there is no frame.
    """

    def __init__(
        self,
        context: VideoCodecContext,
        packets: list[Packet[VideoStream]],
        *,
        tick: Fraction | None,
        rate: Fraction | None,
        trusted: bool,
    ) -> None:
        context.thread_count = 1  # the loader's workers are the parallelism
        self._context, self._packets = context, packets
        shown = [packet.pts for packet in packets if not packet.is_discard]
        if not shown:
            raise ValueError("its video stream holds no frame")
        ticks = {pts for pts in shown if pts is not None}
        complete = tick is not None and None not in shown
        self.ticks = sorted(ticks) if complete else list(range(len(shown)))
        self._tick = float(tick) if tick is not None and complete else 1 / float(rate or 25)  # seconds
        self._timed = complete and trusted
        keys = [(p.pts, i) for i, p in enumerate(packets) if p.is_keyframe and p.pts is not None]
        self._keys = sorted(keys) if self._timed else []  # (tick, position of the packet)

    def times(self) -> np.ndarray:
        """Seconds (T,) float64 from the first shown frame."""
        return (np.asarray(self.ticks, dtype=np.float64) - self.ticks[0]) * self._tick

    def frames(self, indices: np.ndarray) -> np.ndarray:
        """Decode the frames at ``indices`` (K,), each once: (K, H, W, 3) uint8."""
        order, rows = np.unique(indices, return_inverse=True)
        wanted = [self.ticks[index] for index in order]
        pixels = _Pixels()
        found: dict[int, np.ndarray] = {}
        for start, group in self._groups(wanted):
            found.update(self._exact(start, group, pixels))
        missing = [tick for tick in wanted if tick not in found]
        if missing:
            found.update(self._nearest(missing, pixels))
        if len({frame.shape for frame in found.values()}) > 1:
            raise ValueError("its frames change size")
        return np.stack([found[tick] for tick in wanted])[rows.reshape(-1)]

    def _groups(self, wanted: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Runs of wanted ticks, each with the position of the packet where decoding should start."""
        group: list[int] = []
        start = done = 0  # done: frames shown up to the last one of the group
        for tick in wanted:
            key = bisect_right(self._keys, tick, key=lambda item: item[0]) - 1
            if key >= 0 and bisect_right(self.ticks, self._keys[key][0]) - done > _SEEK_GAIN:
                if group:
                    yield start, group
                start, group = self._keys[key][1], []
            group.append(tick)
            done = bisect_right(self.ticks, tick)
        yield start, group

    def _exact(self, start: int, wanted: Sequence[int], pixels: _Pixels) -> dict[int, np.ndarray]:
        """Decode from packet ``start`` until each of ``wanted`` is found, or will not come.

        Finds nothing when what was decoded depends on what came before ``start``: the frame there is no key frame,
        whatever the container says, or one is damaged, so that the decoder mends it with earlier ones.
        """
        found: dict[int, np.ndarray] = {}
        late = 0
        for tick, frame in self._decode(start):
            if start and (frame.is_corrupt or (tick == self._packets[start].pts and not frame.key_frame)):
                return {}
            if tick in wanted:
                found[tick] = pixels(frame)
            late += tick > wanted[-1]
            if len(found) == len(wanted) or late > _LATE:
                break
        return found

    def _nearest(self, wanted: Sequence[int], pixels: _Pixels) -> dict[int, np.ndarray]:
        """Decode from the start, and take for each of ``wanted`` the nearest frame that decodes."""
        second = 1 / self._tick
        nearest: dict[int, tuple[float, VideoFrame]] = {}
        for tick, frame in self._decode(0):
            for missing in wanted:
                if abs(tick - missing) < nearest.get(missing, (second,))[0]:
                    nearest[missing] = (abs(tick - missing), frame)
            if tick > wanted[-1] + second:
                break
        for missing in wanted:
            if missing not in nearest:
                seconds = (missing - self.ticks[0]) * self._tick
                raise ValueError(f"no frame within a second of {seconds:.2f} s can be decoded")
        return {missing: pixels(frame) for missing, (_, frame) in nearest.items()}

    def _decode(self, start: int) -> Iterator[tuple[int, VideoFrame]]:
        """Frames as the decoder returns them, from packet ``start`` to the end; damaged packets are passed over."""
        self._context.flush_buffers()
        frames = self._all_frames(start)
        if not self._timed:
            yield from zip(self.ticks, frames, strict=False)
            return
        for frame in frames:
            if frame.pts is not None:
                yield frame.pts, frame

    def _all_frames(self, start: int) -> Iterator[VideoFrame]:
        for packet in (*self._packets[start:], None):
            try:
                frames = self._context.decode(packet)
            except av.FFmpegError:
                continue
            yield from frames


class _Pixels:
    """Turns decoded frames into upright RGB (H, W, 3) uint8; keeps the converter, which is costly to make."""

    def __init__(self) -> None:
        self._converter = VideoReformatter()
        # from 17 on PyAV starts a thread for each core, which takes 20 times as long as converting a small frame
        self._one_thread = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        array = self._converter.reformat(frame, format="rgb24", **self._one_thread).to_ndarray()
        turns = round(frame.rotation / 90)  # counterclockwise
        return np.rot90(array, turns) if turns else array
