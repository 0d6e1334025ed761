"""What went wrong with a file, as a class that can be counted."""

from __future__ import annotations

from pathlib import Path

import av
from antmmf.contracts import Source
from antmmf.errors import DataError, is_transient

_UNKNOWN = (av.DecoderNotFoundError, av.DemuxerNotFoundError, av.ProtocolNotFoundError, av.PatchWelcomeError)
_MP4 = (b"ftyp", b"moov", b"mdat", b"wide")  # after the size of the first part


def fault(source: Source, error: Exception, *, reader: str, reason: str = "damaged") -> Exception:
    """The ``DataError`` to raise for what a decoder said of ``source``; a fault that may pass is returned as it is."""
    if is_transient(error) or isinstance(error, DataError):
        return error
    said = str(getattr(error, "strerror", None) or error).strip()
    said = said.splitlines()[-1] if said else type(error).__name__
    if isinstance(error, FileNotFoundError):
        reason = "missing"
    elif isinstance(error, _UNKNOWN):
        reason = "unsupported"
    return DataError(f"{source}: {said} (reader {reader})", reason=reason)


def unopened(source: Source) -> tuple[str, str]:
    """Reason and message for a file that no demuxer opens, by its first bytes."""
    with source.open() as file:
        head = file.read(16)
    if not head:
        return "empty", "it has no bytes"
    starts = (head[4:8] in _MP4, head[:4] in (b"RIFF", b"\x1aE\xdf\xa3", b"FLV\x01"))
    if any(starts):
        return "truncated", "it begins like a video, but its index or its end is missing"
    return "not_media", "it is no video that FFmpeg knows"


def is_mp4(source: Source) -> bool:
    """Whether the file begins like MP4 or QuickTime."""
    with source.open() as file:
        return file.read(8)[4:] in _MP4


def checked(source: Source, *, reader: str) -> None:
    """Raise ``DataError`` where there is nothing to decode: no file, no bytes."""
    if source.content is None and source.size is None:
        status = Path(source.path).stat() if source.path.exists() else None
        if status is None:
            raise DataError(f"{source}: no such file (reader {reader})", reason="missing")
        if status.st_size == 0:
            raise DataError(f"{source}: it has no bytes (reader {reader})", reason="empty")
