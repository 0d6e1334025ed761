"""Read a folder of pictures as a video: what ``ffmpeg -i clip.mp4 clip/frame_%06d.jpg`` leaves behind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from antmmf.contracts import Clip, Json, Pick, Source
from antmmf.errors import DataError
from pydantic import Field

from antmmf_vision.readers.image import ImageReader
from antmmf_vision.readers.picking import picked

_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_NUMBER = re.compile(r"\d+")


class FramesReader:
    """Frame k of the folder is shown at k / ``fps`` seconds; frames are in the order of the last number in their names.

    Other files are passed over. All pictures must have one size.
    """

    def __init__(self, *, fps: Annotated[float, Field(gt=0)] = 25.0) -> None:
        self._fps = fps
        self._image = ImageReader()

    def read(self, source: Source, pick: Pick) -> Clip:
        """Raise ``DataError`` when it is no folder with pictures, or a picked one does not decode."""
        files = _files(source)
        indices = picked(pick, np.arange(len(files)) / self._fps, source)
        order, rows = np.unique(indices, return_inverse=True)
        frames = [self._image.read(Source(files[number]), _only).frames[0] for number in order]
        if len({frame.shape for frame in frames}) > 1:
            raise DataError(f"{source}: its pictures differ in size (reader frames)")
        return Clip(frames=np.stack(frames)[rows.reshape(-1)], num_total=len(files))

    def facts(self, source: Source) -> Mapping[str, Json]:
        """The number of frames, and what the first one says of itself."""
        files = _files(source)
        facts = {**self._image.facts(Source(files[0])), "frames": len(files), "fps": self._fps}
        return {
            **facts,
            "codec": facts["container"],
            "container": "folder",
            "seconds": round(len(files) / self._fps, 3),
        }


def _only(times: np.ndarray) -> np.ndarray:
    return np.zeros(len(times), np.int64)


def _files(source: Source) -> list[Path]:
    if not source.path.is_dir():
        raise DataError(f"{source}: no such folder (reader frames)", reason="missing")
    files = [path for path in source.path.iterdir() if path.suffix.lower() in _ENDINGS]
    if not files:
        raise DataError(f"{source}: there is no picture in this folder (reader frames)", reason="empty")
    return sorted(files, key=_number)


def _number(path: Path) -> tuple[int, str]:
    numbers = _NUMBER.findall(path.stem)
    return int(numbers[-1]) if numbers else -1, path.name
