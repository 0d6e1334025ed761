"""The reader for everything: pictures, folders of frames, and videos by whichever decoder suits them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from antmmf.contracts import Clip, FrameReader, Json, Pick, Source
from antmmf.errors import DataError, PluginError

from antmmf_vision.readers import decord, pyav, torchcodec
from antmmf_vision.readers.faults import fault
from antmmf_vision.readers.frames import FramesReader
from antmmf_vision.readers.image import ImageReader
from antmmf_vision.readers.video import Video, VideoReader

_PICTURE_MARKS = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"II*\0", b"MM\0*")
PICTURE_NAMES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".avif"})
_DECODERS: Mapping[str, Callable[[Video, np.ndarray], np.ndarray]] = {
    "torchcodec": torchcodec.decode,
    "decord": decord.decode,
}


class AutoReader(VideoReader):
    """Chooses by what the file says of itself and by what is installed, never by what happened before.

    A folder is read as frames; what lies in an LMDB (``clips.lmdb/KEY``) is taken out of it first. A file that begins
    or is named like JPEG, PNG, BMP, TIFF, WebP or AVIF is a picture. Everything else, GIF too, is a video, read by the
    first of ``decoders_for`` that can.
    """

    name = "auto"

    def __init__(self) -> None:
        self._image, self._frames = ImageReader(), FramesReader()
        self._installed = tuple(_versions())
        self._lmdb: FrameReader | None = None
        self.empty: pyav.Empty = np.empty

    @classmethod
    def probe(cls) -> str:
        """The decoders that it chooses from, with their versions."""
        return ", ".join(f"{name} {found}" for name, found in _versions().items())

    def read(self, source: Source, pick: Pick) -> Clip:
        """Raise ``DataError`` when the file cannot be decoded: that of the first decoder."""
        other = self._no_video(source)
        return other.read(source, pick) if other is not None else super().read(source, pick)

    def facts(self, source: Source) -> Mapping[str, Json]:
        """What the file says of itself, and ``decoder``, the first choice for eight frames of it."""
        other = self._no_video(source)
        if other is not None:
            facts: Mapping[str, Json] = getattr(other, "facts")(source)  # noqa: B009
            return facts
        facts = super().facts(source)
        return {**facts, "decoder": decoders_for(facts, installed=self._installed)[0]}

    def _no_video(self, source: Source) -> FrameReader | None:
        if source.is_file and any(parent.suffix == ".lmdb" for parent in source.path.parents):
            from antmmf_vision.readers.lmdb import LmdbReader  # which decodes with this reader

            self._lmdb = self._lmdb or LmdbReader(reader=self)
            return self._lmdb
        if source.is_file and source.path.is_dir():
            return self._frames
        return self._image if is_picture(source) else None

    def _decode(self, video: Video, indices: np.ndarray) -> np.ndarray:
        first: DataError | PluginError | None = None
        for name in decoders_for({"container": video.container.format.name}, installed=self._installed):
            if name == "decord" and isinstance(first, DataError) and first.reason != "unsupported":
                continue  # it can hang on damage
            video.reader = name
            try:
                return pyav.decode(video, indices, self.empty) if name == "pyav" else _DECODERS[name](video, indices)
            except (DataError, PluginError) as error:
                first = first or error
        assert first is not None
        raise first


def decoders_for(facts: Mapping[str, Json], *, installed: Sequence[str]) -> list[str]:
    """The decoders to try on a video, best first; a pure function of its facts.

    PyAV leaves out frames that nothing else needs, which no other back end does: whatever the codec, the distance of
    key frames and the number of picked frames, it is the fastest (benchmarks/decode.py), and the others are for what
    it cannot decode. decord finds no frames in some containers.
    """
    known = set(str(facts["container"]).split(","))
    fits = {"pyav": True, "torchcodec": True, "decord": bool(known & decord.CONTAINERS)}
    return [name for name in fits if fits[name] and name in installed]


def _versions() -> dict[str, str]:
    """Decoder -> version, of those that are installed; whether they load is seen when one is needed."""
    found = {}
    for name, distribution in (("pyav", "av"), ("torchcodec", "torchcodec"), ("decord", "decord")):
        try:
            found[name] = version(distribution)
        except PackageNotFoundError:
            continue
    return found


def is_picture(source: Source) -> bool:
    """Whether the file begins or is named like a still picture; raise ``DataError`` when it cannot be opened."""
    try:
        with source.open() as file:
            head = file.read(16)
    except OSError as error:
        raise fault(source, error, reader="auto") from error
    boxed = head[4:12] in (b"ftypavif", b"ftypavis") or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    return boxed or head.startswith(_PICTURE_MARKS) or source.suffix in PICTURE_NAMES
