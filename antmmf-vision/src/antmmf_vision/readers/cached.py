"""Decode a clip once, small and at a low rate, and read it from disk ever after."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from antmmf.cache import cache_folder
from antmmf.contracts import Clip, FrameReader, Json, Pick, Source
from antmmf.errors import ComponentError, DataError
from PIL import Image
from pydantic import Field

from antmmf_vision.readers.auto import AutoReader
from antmmf_vision.readers.picking import picked

_LOG = logging.getLogger("antmmf")
_NUMBER = np.dtype("<i8")
_HEADER_BYTES = 4 * _NUMBER.itemsize  # what it is, T, H, W; then where each frame ends, then the frames
_RAW, _JPEG = 1, 2
_CHUNK = 64  # frames held at full size at a time
_COUNT_AGAIN = 256  # writes after which the folder is measured again, for what other processes wrote


class Cached:
    """A source of its own: every file is a clip of ``fps`` frames a second whose shorter side is ``short_side``.

    Frame k is the one nearest to k / ``fps`` seconds, and k / ``fps`` is its time. Frames are only ever shrunk. With
    ``jpeg_quality`` they are kept as JPEG: about a tenth of the disk, several times the time; none keeps them as they
    are. What is in ``folder`` (default: ``frames`` in ``$ANTMMF_CACHE``, else in ``~/.cache/antmmf``) is read from
    there, else decoded by ``reader`` and written; hit and miss give the same bits. From ``max_gb`` on nothing is
    written. Any number of processes may share a folder. A file that changes (size or time) is decoded anew.
    """

    def __init__(
        self,
        *,
        reader: FrameReader | str = "antmmf-vision:auto",
        fps: Annotated[float, Field(gt=0)] = 8.0,
        short_side: Annotated[int, Field(gt=0)] = 64,
        jpeg_quality: Annotated[int, Field(ge=1, le=100)] | None = None,
        folder: Path | None = None,
        max_gb: Annotated[float, Field(ge=0)] = 4.0,
    ) -> None:
        if isinstance(reader, str) and reader.rpartition(":")[2] != "auto":
            raise ComponentError(f"reader must be a built reader or 'auto', is {reader!r}: pass the reader itself")
        self._reader = AutoReader() if isinstance(reader, str) else reader
        self._fps, self._short_side, self._quality, self._max_bytes = fps, short_side, jpeg_quality, max_gb * 1e9
        self._folder = folder or cache_folder() / "frames"
        self._made_by = pickle.dumps(self._reader).hex()  # its class and its parameters
        self._bytes, self._writes = 0, 0

    def around(self, wrap: Callable[[FrameReader], FrameReader]) -> Cached:
        """The same with ``wrap`` around the inner reader only: what is on disk is read without it."""
        other = pickle.loads(pickle.dumps(self))
        assert isinstance(other, Cached)
        other._reader = wrap(other._reader)
        return other

    def read(self, source: Source, pick: Pick) -> Clip:
        """Raise ``DataError`` when the file is missing or its reader cannot decode it."""
        place = self._place(source)
        found = self._read_kept(place, source, pick)
        if found is not None:
            return found
        kept = self._decode(source)
        self._write(place, kept)
        indices = self._picked(pick, kept.num_frames, source)
        return Clip(frames=kept.frames(indices, io.BytesIO(kept.content)), num_total=kept.num_frames)

    def facts(self, source: Source) -> Mapping[str, Json]:
        """What the inner reader says of the file, if it says anything."""
        facts: Callable[[Source], Mapping[str, Json]] | None = getattr(self._reader, "facts", None)
        return facts(source) if facts is not None else {}

    def _read_kept(self, place: Path, source: Source, pick: Pick) -> Clip | None:
        """The picked frames of a kept clip, read one by one; None where it is not kept, or was cut short."""
        try:
            with place.open("rb", buffering=0) as file:
                kept = _Kept.of(file)
                indices = self._picked(pick, kept.num_frames, source)
                return Clip(frames=kept.frames(indices, file), num_total=kept.num_frames)
        except (OSError, ValueError):
            return None

    def _picked(self, pick: Pick, num_total: int, source: Source) -> np.ndarray:
        return picked(pick, np.arange(num_total) / self._fps, source)

    def _place(self, source: Source) -> Path:
        """Where the clip is kept: a hash of the file, its state, and all that changes the bits."""
        try:
            status = next(path for path in (source.path, *source.path.parents) if path.exists()).stat()
        except (StopIteration, OSError) as error:
            raise DataError(f"{source}: no such file (reader cached)", reason="missing") from error
        file = (source.path.resolve(), source.offset, source.size, status.st_size, status.st_mtime_ns)
        parts = (*file, self._fps, self._short_side, self._quality, self._made_by)
        digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()
        return self._folder / digest[:2] / f"{digest}.clip"

    def _decode(self, source: Source) -> _Kept:
        """The whole clip as it is kept; holds ``_CHUNK`` frames at full size at a time."""
        first = _EveryNth(self._fps, start=0)
        parts = [self._shrink(self._reader.read(source, first).frames)]
        for start in range(_CHUNK, first.num_frames, _CHUNK):
            later = _EveryNth(self._fps, start=start)
            parts += [self._shrink(self._reader.read(source, later).frames)]
        return _Kept.made(np.concatenate(parts), self._quality)

    def _shrink(self, frames: np.ndarray) -> np.ndarray:
        """(T, H, W, 3) to (T, h, w, 3), a copy."""
        height, width = frames.shape[1:3]
        scale = self._short_side / min(height, width)
        if scale >= 1:
            return np.array(frames)
        size = (round(width * scale), round(height * scale))
        return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BILINEAR)) for f in frames])

    def _write(self, place: Path, kept: _Kept) -> None:
        """Put the clip in its place in one step, unless the folder is full or cannot be written to."""
        if self._writes % _COUNT_AGAIN == 0:
            self._bytes = sum(path.stat().st_size for path in self._folder.glob("*/*.clip"))
        self._writes += 1
        if self._bytes + len(kept.content) > self._max_bytes:
            return
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".part", delete=False) as file:
                file.write(kept.content)
            os.replace(file.name, place)
        except OSError as error:  # the clip is good; only keeping it failed
            _LOG.warning("decoded clips are not kept in %s: %s", self._folder, error.strerror)
            self._max_bytes = 0
            return
        self._bytes += len(kept.content)


class _Kept:
    """A clip as it lies on disk; ``ends`` says where each frame ends. Raises ``ValueError`` for half of one."""

    def __init__(self, kind: int, size: tuple[int, int], ends: np.ndarray, content: bytes = b"") -> None:
        self._is_jpeg, self._size, self._ends, self.content = kind == _JPEG, size, ends, content
        self.num_frames = len(ends) - 1

    @classmethod
    def made(cls, frames: np.ndarray, quality: int | None) -> _Kept:
        """Of ``frames`` (T, H, W, 3)."""
        num, height, width = frames.shape[:3]
        parts = [frame.tobytes() if quality is None else _jpeg(frame, quality) for frame in frames]
        first = _HEADER_BYTES + (num + 1) * _NUMBER.itemsize
        ends = np.cumsum([first, *map(len, parts)], dtype=_NUMBER)
        kind = _RAW if quality is None else _JPEG
        header = np.array([kind, num, height, width], _NUMBER).tobytes()
        return cls(kind, (height, width), ends, b"".join([header, ends.tobytes(), *parts]))

    @classmethod
    def of(cls, file: io.FileIO) -> _Kept:
        """Of an open file; reads only where the frames lie."""
        kind, num, height, width = (int(n) for n in np.frombuffer(file.read(_HEADER_BYTES), _NUMBER))
        ends = np.frombuffer(file.read((num + 1) * _NUMBER.itemsize), _NUMBER)
        if len(ends) != num + 1 or os.fstat(file.fileno()).st_size != ends[-1]:
            raise ValueError("cut short")
        return cls(kind, (height, width), ends)

    def frames(self, indices: np.ndarray, file: io.RawIOBase | io.BytesIO) -> np.ndarray:
        """(K, H, W, 3) uint8, read from ``file`` one by one."""
        frames = np.empty((len(indices), *self._size, 3), np.uint8)
        for frame, index in zip(frames, indices, strict=True):
            start, end = int(self._ends[index]), int(self._ends[index + 1])
            file.seek(start)
            if self._is_jpeg:
                frame[:] = np.asarray(Image.open(io.BytesIO(file.read(end - start) or b"")))
            elif file.readinto(frame.data) != end - start:
                raise ValueError("cut short")
        return frames


def _jpeg(frame: np.ndarray, quality: int) -> bytes:
    """Without subsampling of colours, which would blur the edges of small frames."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


class _EveryNth:
    """Picks one chunk of the frames nearest to k / ``fps``, from k = ``start``; then knows how many there are."""

    def __init__(self, fps: float, *, start: int) -> None:
        self._fps, self._start = fps, start
        self.num_frames = 0

    def __call__(self, times: np.ndarray) -> np.ndarray:
        self.num_frames = int((times[-1] - times[0]) * self._fps + 1e-6) + 1
        wanted = times[0] + np.arange(self._start, min(self._start + _CHUNK, self.num_frames)) / self._fps
        halfway = (times[1:] + times[:-1]) / 2
        return np.asarray(np.searchsorted(halfway, wanted, side="right"))
