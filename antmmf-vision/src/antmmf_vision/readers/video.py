"""A video file, opened once: which frames it shows and when, and where decoding has to start for each.

Every reader of videos asks here, so that the same time means the same frame in all of them: time is that of
presentation, 0 is the first frame that is shown, and frames that an edit list hides do not count.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import av
import numpy as np
from antmmf.contracts import Clip, Json, Pick, Source
from antmmf.errors import DataError
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from antmmf_vision.readers.faults import checked, fault, is_mp4, unopened
from antmmf_vision.readers.mpeg4 import shown_at, unpacked
from antmmf_vision.readers.picking import picked

_INTRA = frozenset({"mjpeg", "prores", "ffv1", "png", "dnxhd", "rawvideo", "huffyuv", "gif"})  # all are key frames
_KEPT_BYTES = 64 << 20  # of packets: larger files are read a second time instead


@dataclass(frozen=True, slots=True)
class Place:
    """A packet of the stream: when its frame is shown and decoded (in ticks), where it lies, what it is."""

    pts: int | None
    dts: int | None
    pos: int | None
    is_key: bool
    is_shown: bool


class Video:
    """``places`` of all packets in decoding order, and ``ticks``: when the frames are shown, sorted, each once.

    Where times are missing (raw H.264) or made up (AVI with B-frames, of which MPEG-4's are found out) it is not
    ``timed``: the k-th frame that comes out of the decoder is the k-th that is shown, and decoding must always begin at
    the start. ``stores_times`` says whether other back ends see the same times in the file.
    Raises ``DataError`` when there is no frame.
    """

    def __init__(self, source: Source, container: InputContainer, *, reader: str) -> None:
        self.source, self.reader = source, reader
        self.container, self.stream = container, _stream(source, container, reader)
        context = self.stream.codec_context
        if not isinstance(context, VideoCodecContext):
            raise self.fault("no decoder for its codec", reason="unsupported")
        context.thread_count = 1  # the loader's workers are the parallelism
        self.context = context
        self._packets: list[Packet[VideoStream]] | None = []
        self.places = list(self._scanned())
        shown = [place.pts for place in self.places if place.is_shown]
        if not shown:
            raise self.fault("its video stream holds no frame", reason="no_frames")
        ticks = {pts for pts in shown if pts is not None}
        has_times = self.stream.time_base is not None and None not in shown
        # AVI stores no times of presentation; those that FFmpeg makes up are in the wrong order with B-frames
        self.stores_times = has_times and not (container.format.name == "avi" and context.has_b_frames)
        self.ticks = sorted(ticks) if has_times else list(range(len(shown)))
        self.timed = self.stores_times or (has_times and self._finds_times())
        rate = self.stream.average_rate or Fraction(25)
        self.tick = float(self.stream.time_base or 0) if has_times else float(1 / rate)  # seconds
        keys = [(p.pts, i) for i, p in enumerate(self.places) if p.is_key and p.pts is not None]
        self.keys = sorted(keys) if self.timed else []  # (tick, number of the packet)

    def times(self) -> np.ndarray:
        """Seconds (T,) float64 from the first shown frame."""
        return (np.asarray(self.ticks, dtype=np.float64) - self.ticks[0]) * self.tick

    def key_before(self, tick: int) -> int | None:
        """The number of the packet with the last key frame that is shown at ``tick`` or before."""
        found = bisect_right(self.keys, tick, key=lambda item: item[0]) - 1
        return self.keys[found][1] if found >= 0 else None

    def packets(self, start: int) -> Iterator[Packet[VideoStream]]:
        """The packets from number ``start`` on."""
        if self._packets is not None:
            yield from self._packets[start:]
            return
        wanted = self.places[start]
        for position in (wanted.dts, None):
            packets = self._sought(position)
            for packet in packets:
                if (packet.pts, packet.dts, packet.pos) == (wanted.pts, wanted.dts, wanted.pos):
                    yield packet
                    yield from packets
                    return
        raise self.fault("it cannot be read twice")

    def facts(self) -> Mapping[str, Json]:
        """What the file says of itself; ``key_distance`` is the mean number of frames from key frame to key frame."""
        rate = self.stream.average_rate
        return {
            "container": self.container.format.name,
            "codec": self.context.name,
            "height": self.context.height,
            "width": self.context.width,
            "frames": len(self.ticks),
            "fps": round(float(rate), 3) if rate else None,
            "seconds": round(float(self.times()[-1] + self.tick_length()), 3),
            "key_distance": round(len(self.places) / max(1, sum(place.is_key for place in self.places)), 1),
        }

    def pitfalls(self) -> Iterator[str]:
        """Why a back end that seeks by itself would give other pictures, as found by comparing them with ours."""
        if not all(place.is_shown for place in self.places):
            yield "an edit list hides frames of it"
        if self.context.format is not None and self.context.format.components[0].bits > 8:
            yield "it has more than 8 bits a colour"
        if len(self.places) > 1 and all(place.is_key for place in self.places) and self.context.name not in _INTRA:
            yield "all its frames are marked as key frames"
        if any(self._leads(number) for number in range(1, len(self.places))):
            yield "frames that are shown before a key frame come after it"

    def _leads(self, number: int) -> bool:
        before, place = self.places[number - 1], self.places[number]
        return before.is_key and place.pts is not None and before.pts is not None and place.pts < before.pts

    def tick_length(self) -> float:
        """Seconds that a frame is shown, on average."""
        if len(self.ticks) > 1:
            return (self.ticks[-1] - self.ticks[0]) * self.tick / (len(self.ticks) - 1)
        return float(1 / self.stream.average_rate) if self.stream.average_rate else 0.0

    def fault(self, message: str, *, reason: str = "damaged") -> DataError:
        """The error to raise for this file."""
        return DataError(f"{self.source}: {message} (reader {self.reader})", reason=reason)

    def _scanned(self) -> Iterator[Place]:
        """Read the whole file once; keep its packets unless they are many."""
        num_bytes = 0
        for packet in self.container.demux(self.stream):
            if not packet.size:
                continue
            yield Place(packet.pts, packet.dts, packet.pos, packet.is_keyframe, not packet.is_discard)
            num_bytes += packet.size
            if self._packets is not None:
                self._packets.append(packet)
                if num_bytes > _KEPT_BYTES:
                    self._packets = None

    def _finds_times(self) -> bool:
        """Put the times of presentation into the packets, where their pictures tell them."""
        if self.context.name != "mpeg4" or self._packets is None or len(self.ticks) != len(self.places):
            return False
        packets = unpacked(self._packets, self.stream)
        shown = shown_at(map(bytes, packets))
        if shown is None or len(shown) != len(self.places):
            return False
        for number, place in enumerate(shown):
            packets[number].pts = self.ticks[place]
            self.places[number] = replace(self.places[number], pts=self.ticks[place])
        self._packets = packets
        return True

    def _sought(self, position: int | None) -> Iterator[Packet[VideoStream]]:
        start = self.stream.start_time or 0
        self.container.seek(start if position is None else position, stream=self.stream)
        return (packet for packet in self.container.demux(self.stream) if packet.size)


@contextmanager
def opened(source: Source, *, reader: str) -> Iterator[Video]:
    """A video, closed at the end. Raises ``DataError`` with the reason when it cannot be opened or decoded."""
    checked(source, reader=reader)
    try:
        try:
            container = _container(source)
        except av.InvalidDataError as error:
            reason, message = unopened(source)
            raise DataError(f"{source}: {message} (reader {reader})", reason=reason) from error
        with container:
            yield Video(source, container, reader=reader)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise fault(source, error, reader=reader) from error


def _container(source: Source) -> InputContainer:
    """Open a file. FFmpeg decodes frames to learn what MP4 mostly says of itself, so it is first told not to."""
    if is_mp4(source):
        container = _opened(source, {"analyzeduration": "1"})
        if all(_is_known(stream) for stream in container.streams.video):
            return container
        container.close()
    return _opened(source, {})


def _opened(source: Source, options: dict[str, str]) -> InputContainer:
    file = str(source.path) if source.is_file else source.open()
    container = av.open(file, metadata_errors="replace", options=options)
    assert isinstance(container, InputContainer)
    return container


def _is_known(stream: VideoStream) -> bool:
    context = stream.codec_context
    return isinstance(context, VideoCodecContext) and context.format is not None and stream.frames > 0


class VideoReader(ABC):
    """What every reader of videos has in common; its ``name`` stands in what it says of bad files."""

    name: ClassVar[str]

    def read(self, source: Source, pick: Pick) -> Clip:
        """Raise ``DataError`` when the file cannot be opened, holds no video, or a picked frame cannot be had."""
        with opened(source, reader=self.name) as video:
            indices = picked(pick, video.times(), source)
            return Clip(frames=self._decode(video, indices), num_total=len(video.ticks))

    def facts(self, source: Source) -> Mapping[str, Json]:
        """Container, codec, size, number of frames and distance of key frames; raises as ``read`` does."""
        with opened(source, reader=self.name) as video:
            return video.facts()

    @abstractmethod
    def _decode(self, video: Video, indices: np.ndarray) -> np.ndarray:
        """The shown frames at ``indices`` (K,): (K, H, W, 3) uint8, upright. Raises ``DataError``."""


def _stream(source: Source, container: InputContainer, reader: str) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        raise DataError(f"{source}: it holds no video stream (reader {reader})", reason="no_video")
    return stream


def runs(video: Video, wanted: Sequence[int], *, gain: int) -> Iterator[tuple[int, list[int]]]:
    """Runs of wanted ticks, sorted, each with the number of the packet where decoding should start.

    Starting again at a key frame empties the decoder: it must save ``gain`` frames.
    """
    group: list[int] = []
    start = done = 0  # done: frames shown up to the last one of the group
    for tick in wanted:
        key = video.key_before(tick)
        if key is not None and bisect_right(video.ticks, video.places[key].pts or 0) - done > gain:
            if group:
                yield start, group
            start, group = key, []
        group.append(tick)
        done = bisect_right(video.ticks, tick)
    yield start, group
