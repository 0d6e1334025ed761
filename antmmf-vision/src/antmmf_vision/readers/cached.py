"""Decode a clip once, small and at a low rate, and read it from disk ever after."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
from antmmf.cache import cache_folder
from antmmf.contracts import Clip, FrameReader, Pick
from antmmf.errors import ComponentError, DataError
from PIL import Image
from pydantic import Field

from antmmf_vision.readers.auto import AutoReader
from antmmf_vision.readers.picking import picked

_LOG = logging.getLogger("antmmf")
_HEADER = np.dtype("<i8")  # a kept clip is three of these (T, H, W), then its pixels
_CHUNK = 64  # frames held at full size at a time
_COUNT_AGAIN = 256  # writes after which the folder is measured again, for what other processes wrote


class Cached:
    """A source of its own: every file is a clip of ``fps`` frames a second whose shorter side is ``short_side``.

    Frame k is the one nearest to k / ``fps`` seconds, and k / ``fps`` is its time. Frames are only ever shrunk. What
    is in ``folder`` (default: ``frames`` in ``$ANTMMF_CACHE``, else in ``~/.cache/antmmf``) is read from there, else
    decoded by ``reader`` and written; hit and miss give the same bits. From ``max_gb`` on nothing is written.
    Any number of processes may share a folder. A file that changes (size or time) is decoded anew.
    """

    def __init__(
        self,
        *,
        reader: FrameReader | str = "antmmf-vision:auto",
        fps: Annotated[float, Field(gt=0)] = 8.0,
        short_side: Annotated[int, Field(gt=0)] = 64,
        folder: Path | None = None,
        max_gb: Annotated[float, Field(ge=0)] = 4.0,
    ) -> None:
        if isinstance(reader, str) and reader.rpartition(":")[2] != "auto":
            raise ComponentError(f"reader must be a built reader or 'auto', is {reader!r}: pass the reader itself")
        self._reader = AutoReader() if isinstance(reader, str) else reader
        self._fps, self._short_side, self._max_bytes = fps, short_side, max_gb * 1e9
        self._folder = folder or cache_folder() / "frames"
        self._made_by = pickle.dumps(self._reader).hex()  # its class and its parameters
        self._bytes, self._writes = 0, 0

    def read(self, source: Path, pick: Pick) -> Clip:
        """Raise ``DataError`` when the file is missing or its reader cannot decode it."""
        place = self._place(source)
        found = self._read_kept(place, source, pick)
        if found is not None:
            return found
        frames = self._decode(source)
        self._write(place, frames)
        return Clip(frames=frames[self._picked(pick, len(frames), source)], num_total=len(frames))

    def _read_kept(self, place: Path, source: Path, pick: Pick) -> Clip | None:
        """The picked frames of a kept clip, read one by one; None where it is not kept, or was cut short."""
        try:
            with place.open("rb", buffering=0) as file:
                num_total, height, width = (int(n) for n in np.frombuffer(file.read(_HEADER.itemsize * 3), _HEADER))
                frame_bytes = height * width * 3
                if os.fstat(file.fileno()).st_size != _HEADER.itemsize * 3 + num_total * frame_bytes:
                    return None
                indices = self._picked(pick, num_total, source)
                frames = np.empty((len(indices), height, width, 3), np.uint8)
                for frame, index in zip(frames, indices, strict=True):
                    file.seek(_HEADER.itemsize * 3 + int(index) * frame_bytes)
                    file.readinto(frame.data)
        except (OSError, ValueError):
            return None
        return Clip(frames=frames, num_total=num_total)

    def _picked(self, pick: Pick, num_total: int, source: Path) -> np.ndarray:
        return picked(pick, np.arange(num_total) / self._fps, source)

    def _place(self, source: Path) -> Path:
        """Where the clip is kept: a hash of the file, its state, and all that changes the bits."""
        try:
            status = source.stat()
        except OSError as error:
            raise DataError(f"{source}: {error.strerror} (reader cached)") from error
        parts = (source.resolve(), status.st_size, status.st_mtime_ns, self._fps, self._short_side, self._made_by)
        digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()
        return self._folder / digest[:2] / f"{digest}.rgb"

    def _decode(self, source: Path) -> np.ndarray:
        """The whole clip as it is kept, (T, h, w, 3) uint8; holds ``_CHUNK`` frames at full size at a time."""
        first = _EveryNth(self._fps, start=0)
        parts = [self._shrink(self._reader.read(source, first).frames)]
        for start in range(_CHUNK, first.num_frames, _CHUNK):
            later = _EveryNth(self._fps, start=start)
            parts += [self._shrink(self._reader.read(source, later).frames)]
        return np.concatenate(parts)

    def _shrink(self, frames: np.ndarray) -> np.ndarray:
        height, width = frames.shape[1:3]
        scale = self._short_side / min(height, width)
        if scale >= 1:
            return frames
        size = (round(width * scale), round(height * scale))
        return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BILINEAR)) for f in frames])

    def _write(self, place: Path, frames: np.ndarray) -> None:
        """Put the clip in its place in one step, unless the folder is full or cannot be written to."""
        if self._writes % _COUNT_AGAIN == 0:
            self._bytes = sum(path.stat().st_size for path in self._folder.glob("*/*.rgb"))
        self._writes += 1
        if self._bytes + frames.nbytes > self._max_bytes:
            return
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".part", delete=False) as file:
                file.write(np.array(frames.shape[:3], _HEADER).tobytes() + np.ascontiguousarray(frames).tobytes())
            os.replace(file.name, place)
        except OSError as error:  # the clip is good; only keeping it failed
            _LOG.warning("decoded clips are not kept in %s: %s", self._folder, error.strerror)
            self._max_bytes = 0
            return
        self._bytes += frames.nbytes


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
