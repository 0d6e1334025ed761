"""Every error that AntMMF raises on purpose.

An ``AntmmfError`` is the user's to mend: the command line prints it as one line and exits with 2.
Anything else that escapes is a defect of ours and keeps its traceback (exit code 1).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any


class AntmmfError(Exception):
    """Base of all errors raised on purpose; the message says where, what must hold, what is there, what to do."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a config: dotted ``path``, ``where`` (file:line or argument), and the message."""

    path: str
    where: str
    message: str

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.where, self.path) if part)
        return f"{place}: {self.message}" if place else self.message


class ConfigError(AntmmfError):
    """A config that cannot be planned; carries every problem found, not only the first."""

    def __init__(self, problems: Sequence[Problem] | Problem | str) -> None:
        if isinstance(problems, str):
            problems = [Problem("", "", problems)]
        elif isinstance(problems, Problem):
            problems = [problems]
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ComponentError(AntmmfError):
    """A component that does not exist, is ambiguous, or breaks its contract."""


class PluginError(AntmmfError):
    """A distribution whose entry point cannot be loaded; names the distribution and the reason."""


class DataError(AntmmfError):
    """Data that cannot be used: a missing folder, a broken annotation line, a clip that does not decode.

    For a clip or picture, ``reason`` is one of ``REASONS``: the class of its fault, which is counted and listed.
    """

    def __init__(self, message: str = "", *, reason: str = "damaged") -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return _data_error, (type(self), str(self), self.reason)


REASONS = {
    "missing": "there is no such file",
    "empty": "the file has no bytes",
    "not_media": "no video or picture format is recognised",
    "truncated": "the end is missing, and with it what is needed to read the rest",
    "no_video": "it holds no pictures, such as sound alone",
    "no_frames": "not one frame can be decoded",
    "damaged": "a wanted frame cannot be decoded",
    "unsupported": "no installed decoder knows its codec or pixel format",
    "outside": "there are no frames between its start and end",
    "hung": "its decoder did not finish in time",
    "crashed": "its decoder's process died",
    "defect": "a sampler, transform or reader failed in a way that it should not",
}
"""Classes of faults of media, with what they mean."""


class CheckpointError(AntmmfError):
    """A checkpoint that is missing, damaged, or does not fit."""


_PASSING = {
    errno.EIO,
    errno.ENOSPC,
    errno.EAGAIN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ECONNREFUSED,
    errno.ETIMEDOUT,
}


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: the fault of a network, a disk or the machine, never of the file itself.

    Time-outs, resets, HTTP 408, 429 and 5xx, and the system's EIO, ENOSPC and their like. A missing file is not.
    """
    status = getattr(error, "status", None) or getattr(error, "code", None)
    if isinstance(status, int) and (status in (408, 429) or 500 <= status < 600):
        return True
    if isinstance(error, (TimeoutError, ConnectionError)):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING


def _data_error(kind: type[DataError], message: str, reason: str) -> DataError:
    return kind(message, reason=reason)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the nearest known name, or an empty string."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
