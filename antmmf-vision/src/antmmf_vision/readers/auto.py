"""The reader for everything: pictures through PIL, videos through PyAV."""

from __future__ import annotations

from pathlib import Path

from antmmf.contracts import Clip, Pick
from antmmf.errors import DataError

from antmmf_vision.readers.image import ImageReader
from antmmf_vision.readers.pyav import PyAVReader

_PICTURE_MARKS = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"II*\0", b"MM\0*")
_PICTURE_NAMES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".avif"})


class AutoReader:
    """Chooses by the file's first bytes and its name, never by what happened before.

    A file that begins or is named like JPEG, PNG, BMP, TIFF, WebP or AVIF is a picture; everything else, GIF too, is
    a video. There is no second try: no file is known that PyAV refuses and decord reads, and decord can hang on damage.
    """

    def __init__(self) -> None:
        self._image, self._video = ImageReader(), PyAVReader()

    def read(self, source: Path, pick: Pick) -> Clip:
        """Raise ``DataError`` when the file cannot be decoded."""
        return (self._image if is_picture(source) else self._video).read(source, pick)


def is_picture(source: Path) -> bool:
    """Whether the file begins or is named like a still picture; raise ``DataError`` when it cannot be opened."""
    try:
        with open(source, "rb") as file:
            head = file.read(16)
    except OSError as error:
        raise DataError(f"{source}: {error.strerror} (reader auto)") from error
    boxed = head[4:12] in (b"ftypavif", b"ftypavis") or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    return boxed or head.startswith(_PICTURE_MARKS) or source.suffix.lower() in _PICTURE_NAMES
