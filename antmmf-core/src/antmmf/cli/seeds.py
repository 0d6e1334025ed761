"""Several runs that differ in the seed alone: where they go, and what they say together."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antmmf.cli.options import table
from antmmf.errors import ConfigError


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds of a config: mean and standard deviation (of n - 1; None for one seed); ``low`` and
    ``high`` are the means of their ends of the 95 % intervals, which are over cases."""

    mean: float
    std: float | None
    low: float | None
    high: float | None
    num_seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.std is None else f" ± {self.std:.2f}")

    @property
    def interval(self) -> str:
        """The interval in brackets, or nothing."""
        return "" if self.low is None or self.high is None else f"[{self.low:.2f}, {self.high:.2f}]"


def parse_seeds(text: str) -> list[int]:
    """The numbers of ``0,1,2``; raises ``ConfigError``."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len({int(part) for part in parts}) < len(parts):
        raise ConfigError(f"--seeds must be different whole numbers such as 0,1,2, is {text!r}")
    return [int(part) for part in parts]


def seed_overrides(base: Path, seed: int) -> list[str]:
    """The arguments that make a run the one of ``seed``, in a folder of its own."""
    return [f"training_parameters.seed={seed}", f"training_parameters.save_dir={base / f'seed{seed}'}"]


def read_results(folder: Path) -> dict[str, Any]:
    """``results.json`` of a run that came to its end; raises ``ConfigError``."""
    try:
        found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} must be a run folder whose run came to its end; results.json: {error}") from error
    return found


def spreads(figures: Sequence[Mapping[str, Any]]) -> dict[str, Spread]:
    """Each figure that all runs have, over these runs; ``figures`` are those of their ``results.json``."""
    found = {}
    for name in figures[0]:
        if all(name in run for run in figures):
            values = [run[name]["value"] for run in figures]
            low, high = (_mean([run[name][end] for run in figures]) for end in ("low", "high"))
            std = statistics.stdev(values) if len(values) > 1 else None
            found[name] = Spread(statistics.fmean(values), std, low, high, len(values))
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def seeds_table(folders: Sequence[Path]) -> str:
    """Every figure over the runs in ``folders``, one line each."""
    found = spreads([read_results(folder)["figures"] for folder in folders])
    rows = [(name, str(spread), spread.interval) for name, spread in found.items()]
    heading = ("figure", f"mean ± std of {len(folders)} seeds", "95 % interval over cases")
    return table([heading, *rows]) if rows else "no figures: run_type has no val"
