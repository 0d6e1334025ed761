"""A reader in a process of its own: a file that makes a decoder hang, crash or leak hurts only that process.

Why beside each loader worker and not instead of them: docs/adr/0012-decode-process.md. Nothing here imports torch, so
the process starts in a fraction of a second.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socketpair
from typing import Any

import numpy as np

from antmmf.contracts import Clip, FrameReader, Json, Pick, Source
from antmmf.errors import AntmmfError, DataError, PluginError
from antmmf.stopping import helpers_deaf

_START_SECONDS = 300.0  # to import the reader's packages, from a slow disk at worst
_KEPT_BYTES = 256 << 20
_MIN_READS = 20  # between two restarts for memory
_COMMAND = "import sys; from antmmf.data.reader_process import serve; serve(*map(int, sys.argv[1:]))"

Setup = Callable[[], None]


class ReaderProcess:
    """A ``FrameReader`` whose ``reader`` works in a child process, which starts with the first file.

    A file that takes more than ``timeout`` seconds, or kills the process, is tried once more in a new process; then it
    is a ``DataError`` with the reason ``hung`` or ``crashed``. A process that has grown by ``max_growth`` bytes is
    replaced between two files. ``setup`` runs in it before the reader is unpickled there.
    """

    def __init__(
        self, reader: FrameReader, *, timeout: float, max_growth: int = 256 << 20, setup: Setup | None = None
    ) -> None:
        self._reader, self._timeout, self._max_growth, self._setup = reader, timeout, max_growth, setup
        self._child: _Child | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_child": None}

    def read(self, source: Source, pick: Pick) -> Clip:
        """What the reader returns or raises; ``pick`` is called in this process.

        The frames lie in memory that the next file is written to: whoever wants to keep them must copy them.
        """
        clip: Clip = self._ask("read", source, pick)
        return clip

    def facts(self, source: Source) -> Mapping[str, Json]:
        """What the reader says of the file without decoding it; nothing where it has no ``facts``."""
        facts: Mapping[str, Json] = self._ask("facts", source)
        return facts

    def close(self) -> None:
        """End the process; the next file starts a new one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    def __del__(self) -> None:
        try:  # noqa: SIM105  # when the interpreter ends suppress, like parts of the standard library, is gone
            self.close()
        except Exception:
            pass

    def _ask(self, what: str, source: Source, pick: Pick | None = None) -> Any:
        for _ in range(2 if what == "read" else 1):  # facts of a bad file are not worth waiting for twice
            if self._child is None:
                self._child = _Child(self._reader, self._setup)
            try:
                answer = self._child.ask(what, source, pick, seconds=self._timeout)
            except _LostError as error:
                lost = error
                self.close()
                continue
            except BaseException:  # of ``pick``, or a signal: the child still waits for indices
                self.close()
                raise
            if self._child.growth > self._max_growth and self._child.num_answers >= _MIN_READS:
                self.close()
            if isinstance(answer, BaseException):
                raise answer
            return answer
        raise DataError(f"{source}: {lost}", reason=lost.reason)


def protected(reader: FrameReader, *, timeout: float | None, setup: Setup | None = None) -> FrameReader:
    """``reader``, or the part of it that asks for it, in a process of its own; as it is where there is no timeout."""
    if timeout is None:
        return reader

    def wrap(inner: FrameReader) -> FrameReader:
        return ReaderProcess(inner, timeout=timeout, setup=setup)

    around: Callable[[Callable[[FrameReader], FrameReader]], FrameReader] | None = getattr(reader, "around", None)
    return around(wrap) if around is not None else wrap(reader)


class _LostError(Exception):
    """The child hangs or is gone."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Child:
    """The other process: small messages go through a socket, frames through memory that both have mapped.

    Raises ``PluginError`` when the reader cannot be used there.
    """

    def __init__(self, reader: FrameReader, setup: Setup | None) -> None:
        self.num_answers = 0
        self.growth = 0  # bytes
        ours, theirs = socketpair()
        self._connection = Connection(ours.detach())
        self._poll = select.poll()  # Connection.poll makes one anew each time, which takes longer than a message
        self._poll.register(self._connection.fileno(), select.POLLIN)
        self._memory = _Memory(_anonymous_file())
        with helpers_deaf(), theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, str(theirs.fileno()), str(self._memory.file), str(os.getpid())],
                pass_fds=(theirs.fileno(), self._memory.file),
                stdin=subprocess.DEVNULL,
            )
        try:
            self._connection.send(sys.path)
            self._connection.send_bytes(pickle.dumps(setup))
            self._connection.send_bytes(pickle.dumps(reader))
            ready, self._first_bytes = self._receive(time.monotonic() + _START_SECONDS)
        except (_LostError, OSError) as error:
            self.kill()
            late = isinstance(error, _LostError) and error.reason == "hung"
            said = f"no word of it in {_START_SECONDS:.0f} s, the machine may be overloaded" if late else error
            raise PluginError(f"the process of reader {type(reader).__name__} did not start: {said}") from error
        except BaseException:
            self.kill()
            raise
        if isinstance(ready, BaseException):
            self.kill()
            hint = "its class must be importable, and not stand in __main__; or set input_attributes.read_timeout: null"
            message = f"reader {type(reader).__name__} cannot be used in a process of its own: {ready}; {hint}"
            raise PluginError(message) from ready

    def ask(self, what: str, source: Source, pick: Pick | None, *, seconds: float) -> Any:
        """The answer, or the error that the reader raised. Raises ``_LostError``, and what ``pick`` raises."""
        deadline = time.monotonic() + seconds
        try:
            self._connection.send((what, source))
            kind, value = self._receive(deadline)
            while kind == "times":
                assert pick is not None
                self._connection.send(np.asarray(pick(value)))
                kind, value = self._receive(deadline)
        except OSError as error:
            raise self._gone() from error
        value, num_bytes = value
        self.num_answers += 1
        self.growth = num_bytes - self._first_bytes
        if kind == "clip":
            shape, dtype, num_total = value
            return Clip(frames=self._memory.array(shape, dtype), num_total=num_total)
        return value

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._memory.close()

    def _receive(self, deadline: float) -> Any:
        """Wait for the next message."""
        try:
            if not self._poll.poll(1000 * max(0.0, deadline - time.monotonic())):
                raise _LostError("its decoder did not finish in time (input_attributes.read_timeout)", "hung")
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._gone() from error

    def _gone(self) -> _LostError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return _LostError(f"its decoder's process died ({how})", "crashed")


class _Memory:
    """A file without a name that two processes map. It grows to what the largest clip needs, and never shrinks: what
    is still looked at must not vanish."""

    def __init__(self, file: int) -> None:
        self.file = file
        os.ftruncate(file, mmap.PAGESIZE)
        self._size = 0
        self._mapped: mmap.mmap | None = None

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """Its first bytes as an array."""
        size = os.fstat(self.file).st_size
        if size != self._size or self._mapped is None:
            self._mapped, self._size = mmap.mmap(self.file, size), size
        count = math.prod(shape)
        return np.frombuffer(self._mapped, dtype, count=count).reshape(shape)

    def empty(self, shape: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray:  # noqa: ARG002
        """Its first bytes as an array of bytes to be written."""
        if math.prod(shape) > os.fstat(self.file).st_size:
            os.ftruncate(self.file, math.prod(shape))
        return self.array(shape, np.dtype(np.uint8))

    def put(self, array: np.ndarray) -> None:
        """Write an array where ``array`` finds it, unless it is there already."""
        here = self.empty((array.nbytes,))
        if here.ctypes.data != array.ctypes.data:
            np.copyto(here.view(array.dtype).reshape(array.shape), array)

    def close(self) -> None:
        self._mapped = None
        os.close(self.file)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):  # not in /dev/shm, which containers keep small
        return os.memfd_create("antmmf-frames", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


# --- in the child -----------------------------------------------------------------------------------------------------


def serve(socket: int, memory_file: int, parent: int) -> None:
    """Answer requests until the parent is gone."""
    _die_with(parent)
    _keep_memory()
    connection, memory = Connection(socket), _Memory(memory_file)
    try:
        sys.path[:] = connection.recv()
        try:
            setup: Setup | None = pickle.loads(connection.recv_bytes())
            if setup is not None:
                setup()
            reader: FrameReader = pickle.loads(connection.recv_bytes())
        except Exception as error:
            connection.send((_portable(error), 0))
            return
        if hasattr(reader, "empty"):
            reader.empty = memory.empty
        connection.send((None, _resident_bytes()))
        while True:
            what, source = connection.recv()
            kind, value = _answer(reader, what, source, connection, memory)
            connection.send((kind, (value, _resident_bytes())))
    except (EOFError, OSError):
        return


def _answer(reader: FrameReader, what: str, source: Source, connection: Connection, memory: _Memory) -> tuple[str, Any]:
    def pick(times: np.ndarray) -> np.ndarray:
        connection.send(("times", times))
        indices: np.ndarray = connection.recv()
        return indices

    try:
        if what == "facts":
            own = getattr(reader, "facts", None)
            return "facts", dict(own(source)) if own is not None else {}
        clip = reader.read(source, pick)
        frames = np.asarray(clip.frames)
        memory.put(frames)
        return "clip", (frames.shape, frames.dtype, clip.num_total)
    except Exception as error:
        return "error", _portable(error)


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        said = f"{type(error).__name__}: {error}"
        return AntmmfError(said) if isinstance(error, AntmmfError) else RuntimeError(said)
    return error


def _die_with(parent: int) -> None:
    """Have Linux end this process with its parent, even inside a decoder that hangs; elsewhere a closed socket does."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)


def _keep_memory() -> None:
    """Have glibc reuse what large frames were in: asking the system for it again and again takes longer than a copy."""
    with suppress(Exception):
        trim_threshold, mmap_threshold = -1, -3
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, _KEPT_BYTES)
        libc.mallopt(trim_threshold, _KEPT_BYTES)


def _resident_bytes() -> int:
    """The memory that this process has in use; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0
