"""Runs that came to their end, as their folders tell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from antmmf.cli.seeds import read_results
from antmmf.config.reader import read_file
from antmmf.errors import ConfigError
from numpy.typing import NDArray

from antmmf_tasks.metrics.rows import Ids

Floats = NDArray[np.float64]
Words = NDArray[np.str_]


@dataclass(frozen=True)
class FigureCases:
    """The n cases of one figure, sorted by ``key`` and ``part``, which together name a case; each with its media."""

    key: Words
    part: Ids
    media: Words
    value: Floats

    def same_cases(self, other: FigureCases) -> bool:
        """Whether both are of the same queries or questions."""
        return bool(np.array_equal(self.key, other.key) and np.array_equal(self.part, other.part))


@dataclass(frozen=True)
class FinishedRun:
    """A run's folder; raises ``ConfigError`` for one that is none, or whose run did not come to its end."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config."""
        path = self.folder / "config.yml"
        if not path.is_file():
            raise ConfigError(f"{self.folder} must be a run folder, has no config.yml; it is what antmmf run wrote")
        return cast(dict[str, Any], read_file(path, name=str(path)).values)

    @cached_property
    def results(self) -> dict[str, Any]:
        """What stands in ``results.json``."""
        return read_results(self.folder)

    @property
    def figures(self) -> dict[str, dict[str, Any]]:
        """Each figure's value, low, high and n, by name."""
        return cast(dict[str, dict[str, Any]], self.results["figures"])

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.config["training_parameters"]["seed"])

    @cached_property
    def cases(self) -> dict[str, FigureCases]:
        """What the figures are means of, by their names; nothing where the run kept no cases."""
        found: dict[str, FigureCases] = {}
        for path in sorted((self.folder / "cases").glob("*.parquet")):
            table = pq.read_table(path).combine_chunks()
            figure = table["figure"].chunk(0)
            columns = [table[name].to_numpy() for name in ("key", "part", "media", "value")]
            for number, name in enumerate(figure.dictionary.to_pylist()):
                rows = np.flatnonzero(figure.indices.to_numpy() == number)
                key, part, media, value = (column[rows] for column in columns)
                key = key.astype(str)
                order = np.lexsort((part, key))
                found[f"{path.stem}/{name}"] = FigureCases(
                    key[order], part[order], media.astype(str)[order], value[order]
                )
        return found

    def predictions(self, split: str) -> list[dict[str, Any]]:
        """The lines of ``predictions/<split>.jsonl``; none where the run did not predict."""
        path = self.folder / "predictions" / f"{split}.jsonl"
        if not path.is_file():
            return []
        with path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]


def finished_runs(places: Sequence[Path]) -> list[FinishedRun]:
    """The runs in ``places``: folders of runs, or folders of ``--seeds``, which have one for each seed."""
    found = []
    for place in places:
        inside = [path.parent for path in place.glob("seed*/config.yml")]
        alone = (place / "config.yml").is_file() or not inside
        found += [place] if alone else sorted(inside, key=lambda path: (len(path.name), path.name))
    return [FinishedRun(folder) for folder in found]
