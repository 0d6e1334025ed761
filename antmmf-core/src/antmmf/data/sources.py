"""Where the bytes of a record's media are: on a disk of this machine, or brought there from elsewhere."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from antmmf.contracts import Source
from antmmf.data.lock import locked
from antmmf.errors import DataError, PluginError, is_transient

_MEMBER = re.compile(r"(?P<file>.+)#offset=(?P<offset>\d+)&size=(?P<size>\d+)&name=(?P<name>.+)")
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://")
_DOWNLOADS = 4  # at a time
_BROKEN_OFF = {
    "ClientConnectionError",
    "ClientPayloadError",
    "HTTPClientError",
    "IncompleteReadError",
    "TimeoutError",  # asyncio's, which before Python 3.11 is not the built-in one
}  # libraries' own
_WAITS = (0.2, 0.8, 3.2, 12.8)  # seconds between the tries of what a network or a disk is to blame for
_SILENCE = 45.0  # seconds after which a server that sends nothing is given up
_IN_USE = 60.0  # seconds after its last use before a file may be removed; more than a download is silent

T = TypeVar("T")

_shard = functools.lru_cache(maxsize=1024)(Path)  # making a path takes as long as reading 4 KB


def member(file: str, *, name: str, offset: int, size: int) -> str:
    """How a record's ``media`` names a part of a file: ``file#offset=512&size=1024&name=a.mp4``."""
    return f"{file}#offset={offset}&size={size}&name={quote(name, errors='surrogateescape')}"


def file_of(media: str) -> str:
    """The file that ``media`` is, or is a part of."""
    found = _MEMBER.fullmatch(media)
    return found["file"] if found else media


def is_remote(media: str) -> bool:
    """Whether ``media`` is a URL (``https://``, ``s3://``, ...) rather than a path."""
    return _REMOTE.match(media) is not None


def source_of(media: str, file: Path | None = None) -> Source:
    """The bytes of ``media``: a path, or a part of a file; ``file`` is where a remote one was put."""
    found = _MEMBER.fullmatch(media)
    if found is None:
        return Source(file or Path(media), media if is_remote(media) else "")
    shard, offset, size, name = found.groups()
    return Source(file or _shard(shard), f"{shard}:{unquote(name)}", int(offset), int(size))


class UnreachableError(DataError):
    """What a network or a machine is to blame for, and not the file, after the last try."""


def patiently(attempt: Callable[[], T], *, of: Callable[[], str]) -> T:
    """What ``attempt`` returns, tried again while a network or a disk is to blame for its failure.

    Raises ``UnreachableError``, which names what it is ``of``, when that does not pass.
    """
    for wait in (*_WAITS, None):
        try:
            return attempt()
        except Exception as error:
            if not is_transient(error):
                raise
            if wait is None:
                raise UnreachableError(
                    f"{of()}: {type(error).__name__}: {error}, {len(_WAITS) + 1} times in {sum(_WAITS):.0f} s: the "
                    "network's or the machine's fault, so it is not quarantined; training_parameters.resume auto goes "
                    "on from here"
                ) from error
            time.sleep(wait)
    raise AssertionError


class Sources:
    """Turns a record's ``media`` into a ``Source``, and fetches what is remote through fsspec.

    With ``whole`` a remote file is downloaded once a machine into ``folder``, which keeps to ``max_gb`` by removing
    what was used longest ago; else only the wanted part of it is read, each time anew. Picklable.
    """

    def __init__(self, folder: Path, *, max_gb: float = 50.0, whole: bool = True) -> None:
        self._folder, self._max_bytes, self._whole = folder, max_gb * 1e9, whole
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[str, Future[Path]] = {}
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None, "_coming": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())

    def __call__(self, media: str) -> Source:
        """Where the bytes are. Raises ``DataError`` for what is missing, and what the network raises."""
        if not is_remote(media):
            return source_of(media)
        found = _MEMBER.fullmatch(media)
        if found is not None and not self._whole:
            start = int(found["offset"])
            content = self._part(found["file"], start, start + int(found["size"]))
            return Source(Path(found["name"]), f"{found['file']}:{unquote(found['name'])}", content=content)
        return source_of(media, self.local(file_of(media)))

    def prefetch(self, files: list[str]) -> None:
        """Begin to download ``files`` in the background; what goes wrong is seen when they are used."""
        with self._lock:
            for file in files:
                before = self._coming.get(file)
                if is_remote(file) and self._whole and (before is None or before.done()):  # it may be gone again
                    self._pool = self._pool or ThreadPoolExecutor(_DOWNLOADS, thread_name_prefix="download")
                    self._coming[file] = self._pool.submit(self.local, file)

    def close(self) -> None:
        """Give up the downloads that have not begun."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def local(self, file: str) -> Path:
        """The copy of a remote file on this machine, downloaded by one process while the others wait."""
        path = self._place(file)
        if not _used(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            with locked(path.with_name(f".{path.name}.lock")):
                if not _used(path):
                    self._download(file, path)
                    self._make_room(path)
        return path

    def _place(self, file: str) -> Path:
        digest = hashlib.blake2b(file.encode(), digest_size=12).hexdigest()
        return self._folder / f"{digest}-{Path(file).name[-60:]}"

    def _download(self, file: str, path: Path) -> None:
        system, name = _system(file)
        part = path.with_name(f".{path.name}.part")
        try:
            system.get_file(name, str(part))
        except Exception as error:
            part.unlink(missing_ok=True)
            raise _explained(file, error) from error
        os.replace(part, path)

    def _part(self, file: str, start: int, end: int) -> bytes:
        system, name = _system(file)
        try:
            content: bytes = system.cat_file(name, start=start, end=end)
        except Exception as error:
            raise _explained(file, error) from error
        if len(content) >= end:  # the server knows no ranges and sent everything
            content = content[start:end]
        if len(content) != end - start:
            raise ConnectionError(f"{file}: {len(content)} of {end - start} bytes came")
        return content

    def _make_room(self, newest: Path) -> None:
        """Remove what was used longest ago, halves of a killed download too; never what somebody may just be opening or
        writing."""
        files = []
        for path in self._folder.iterdir():
            with suppress(OSError):
                if not path.name.endswith(".lock"):
                    files.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in files)
        for used, size, path in sorted(files):
            if total <= self._max_bytes or path == newest or used > time.time() - _IN_USE:
                break
            path.unlink(missing_ok=True)
            total -= size


def _used(path: Path) -> bool:
    """Whether the file is there; it counts as used now."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _system(file: str) -> tuple[Any, str]:
    try:
        import fsspec  # type: ignore[import-untyped, import-not-found, unused-ignore]

        system, name = fsspec.core.url_to_fs(file, **_patience(file, fsspec.config.conf))
        return system, str(name)
    except ImportError as error:
        raise PluginError(f"{file}: to read it, pip install 'antmmf-core[fsspec]' ({error})") from error


def _patience(file: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Of a web server, unless fsspec's ``own`` config says more: by default a file that takes five minutes fails, and
    a server that says nothing is waited for as long."""
    if not file.startswith(("http://", "https://")) or own.get("http") or own.get("https"):
        return {}
    import aiohttp  # type: ignore[import-not-found, unused-ignore]

    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=_SILENCE)}}


def _explained(file: str, error: Exception) -> Exception:
    """What is transient as it is; a missing file as such."""
    if is_transient(error) or isinstance(error, PluginError):
        return error
    if any(kind.__name__ in _BROKEN_OFF for kind in type(error).__mro__):
        return ConnectionError(f"{file}: {type(error).__name__}: {error}")
    reason = "missing" if isinstance(error, FileNotFoundError) else "damaged"
    return DataError(f"{file}: {type(error).__name__}: {error}", reason=reason)
