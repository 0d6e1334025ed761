"""What becomes of a sample that cannot be read: the run ends, or it is left out or replaced, and written down.

Nothing here changes the order of the other samples.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from antmmf.contracts import Json
from antmmf.errors import DataError

Policy = Literal["fail", "skip", "substitute"]

_FILES = "quarantine.rank*.jsonl"
_NUM_NAMED = 3
_MIN_SEEN = 100  # a rate over fewer samples says nothing


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that could not be read: ``reason`` is its class (``antmmf.errors.REASONS``), ``message`` says more,
    ``facts`` are of the file: its size and time, and what its container says, as far as that could be read.
    """

    id: int
    key: str
    media: str
    reader: str
    reason: str
    message: str
    facts: Mapping[str, Json] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.media} ({self.message})"


class Quarantine:
    """The bad samples of a run, each written once (JSON lines), over all loaders that share it.

    Every process writes a file of its own in ``folder`` and knows what is in all of them. ``max_bad_rate`` is the share
    of reads that may fail, counted over at least 100 reads; beyond it the run ends, because then something else is
    wrong: a folder, a codec, a transform.
    """

    def __init__(
        self, folder: Path | None = None, *, rank: int = 0, policy: Policy = "fail", max_bad_rate: float = 0.05
    ) -> None:
        self.folder = folder
        self.policy: Policy = policy
        self.max_bad_rate = max_bad_rate
        self._rank = rank
        self._known = read_quarantine(folder) if folder is not None else {}
        self._num_bad = 0
        self._num_seen = 0

    @property
    def count(self) -> int:
        """How many different samples were bad, those of the run that is being continued included."""
        return len(self._known)

    def take(self, bad: Sequence[BadSample], *, num_seen: int) -> None:
        """Note what came with ``num_seen`` samples; raise ``DataError`` where the policy or the rate ends the run."""
        self._num_seen += num_seen
        for sample in bad:
            self._write(sample)
            if self.policy == "fail":
                raise DataError(
                    f"{sample.media}: {sample.message} (reader {sample.reader}, key {sample.key!r}); "
                    "mend or remove it, or set input_attributes.on_bad_sample to skip",
                    reason=sample.reason,
                )
        self._num_bad += len(bad)
        if bad and self._num_bad > self.max_bad_rate * max(self._num_seen, _MIN_SEEN):
            raise DataError(
                f"{self._num_bad} of {self._num_seen} samples could not be read, more than max_bad_rate "
                f"{self.max_bad_rate:g} of them; the last: {bad[-1].media}: {bad[-1].message}{self._where()}",
                reason=bad[-1].reason,
            )

    def summary(self) -> str | None:
        """One line for the end of a run, over all processes; None when every sample was good."""
        known = self._known | (read_quarantine(self.folder) if self.folder is not None else {})
        if not known:
            return None
        what = {"fail": "the run ended", "skip": "left out", "substitute": "replaced by others in training"}
        count = "1 bad sample" if len(known) == 1 else f"{len(known)} bad samples"
        named = "; ".join(map(str, list(known.values())[:_NUM_NAMED]))
        return f"{count} ({reasons(known.values())}), {what[self.policy]}: {named}{self._where()}"

    def _where(self) -> str:
        return f"; listed by: antmmf data quarantine list {self.folder}" if self.folder is not None else ""

    def _write(self, sample: BadSample) -> None:
        if sample.id in self._known:
            return
        self._known[sample.id] = sample
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / _FILES.replace("*", str(self._rank))
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(sample), ensure_ascii=False) + "\n")


def reasons(samples: Iterable[BadSample]) -> str:
    """How many there are of each reason, most frequent first: ``2 hung, 1 empty``."""
    return ", ".join(f"{count} {reason}" for reason, count in Counter(s.reason for s in samples).most_common())


def read_quarantine(folder: Path) -> dict[int, BadSample]:
    """The bad samples that the processes of a run wrote down, by sample id; lines cut short by a kill are left out."""
    known: dict[int, BadSample] = {}
    for path in sorted(folder.glob(_FILES)):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                sample = BadSample(**json.loads(line))
            except (ValueError, TypeError):
                continue
            known.setdefault(sample.id, sample)
    return known


def write_quarantine(folder: Path, samples: Iterable[BadSample]) -> None:
    """Put ``samples`` in the place of all that the run wrote down."""
    lines = "".join(json.dumps(asdict(sample), ensure_ascii=False) + "\n" for sample in samples)
    first = folder / _FILES.replace("*", "0")
    beside = first.with_suffix(".part")
    beside.write_text(lines, encoding="utf-8")
    beside.replace(first)  # before the others go, so that a kill loses nothing
    for path in folder.glob(_FILES):
        if path != first or not lines:
            path.unlink()
