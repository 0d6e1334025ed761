"""What becomes of a sample that cannot be read: the run ends, or it is left out or replaced, and written down.

Nothing here changes the order of the other samples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from antmmf.errors import DataError

Policy = Literal["fail", "skip", "substitute"]

_NUM_NAMED = 3
_MIN_SEEN = 100  # a rate over fewer samples says nothing


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that could not be read, and why."""

    id: int
    key: str
    media: str
    reader: str
    reason: str


class Quarantine:
    """The bad samples of a run, each written once to ``path`` (JSON lines), over all loaders that share it.

    ``max_bad_rate`` is the share of reads that may fail, counted over at least 100 reads; beyond it the run ends,
    because then something else is wrong: a folder, a codec, a transform.
    """

    def __init__(self, path: Path | None = None, *, policy: Policy = "fail", max_bad_rate: float = 0.05) -> None:
        self.path = path
        self.policy: Policy = policy
        self.max_bad_rate = max_bad_rate
        self._known = _read_known(path)  # id -> what to say of it
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
                    f"{sample.media}: {sample.reason} (reader {sample.reader}, key {sample.key!r}); "
                    "mend or remove it, or set input_attributes.on_bad_sample to skip"
                )
        self._num_bad += len(bad)
        if bad and self._num_bad > self.max_bad_rate * max(self._num_seen, _MIN_SEEN):
            last = bad[-1]
            raise DataError(
                f"{self._num_bad} of {self._num_seen} samples could not be read, more than max_bad_rate "
                f"{self.max_bad_rate:g} of them; the last: {last.media}: {last.reason}{self._where()}"
            )

    def summary(self) -> str | None:
        """One line for the end of a run, None when every sample was good."""
        if not self._known:
            return None
        what = {"fail": "the run ended", "skip": "left out", "substitute": "replaced by others in training"}
        count = "1 bad sample" if self.count == 1 else f"{self.count} bad samples"
        named = "; ".join(list(self._known.values())[:_NUM_NAMED])
        return f"{count}, {what[self.policy]}: {named}{self._where()}"

    def _where(self) -> str:
        return f"; listed in {self.path}" if self.path is not None else ""

    def _write(self, sample: BadSample) -> None:
        if sample.id in self._known:
            return
        self._known[sample.id] = f"{sample.media} ({sample.reason})"
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(sample), ensure_ascii=False) + "\n")


def _read_known(path: Path | None) -> dict[int, str]:
    if path is None or not path.exists():
        return {}
    known: dict[int, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            sample = BadSample(**json.loads(line))
        except (ValueError, TypeError):
            continue  # a line that was cut short when the run was killed
        known[sample.id] = f"{sample.media} ({sample.reason})"
    return known
