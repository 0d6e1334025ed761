"""Every error that AntMMF raises on purpose.

An ``AntmmfError`` is the user's to mend: the command line prints it as one line and exits with 2.
Anything else that escapes is a defect of ours and keeps its traceback (exit code 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


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
    """Data that cannot be used: a missing folder, a broken annotation line, a clip that does not decode."""


class CheckpointError(AntmmfError):
    """A checkpoint that is missing, damaged, or does not fit."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the nearest known name, or an empty string."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
