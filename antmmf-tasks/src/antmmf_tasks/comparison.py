"""Runs that are equal but for the seed, beside others on the same data: means, spreads and paired tests."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from antmmf.cli.seeds import Spread, spreads
from antmmf.errors import ConfigError
from antmmf.run_folder import flat

from antmmf_tasks.finished import FigureCases, FinishedRun, Floats
from antmmf_tasks.paired import difference_interval, holm, sign_flip

_NO_MATTER = r"training_parameters\.(seed|save_dir|resume)|callbacks\b.*|.*\.(data_root_dir|weights_dir)"


@dataclass(frozen=True)
class Group:
    """Runs whose configs are equal but for the seed, called by a letter."""

    name: str
    runs: Sequence[FinishedRun]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the config says, by dotted key, without what may differ."""
        return _settings(self.runs[0])

    @cached_property
    def seeds(self) -> list[int]:
        """The runs' seeds."""
        return [run.seed for run in self.runs]

    @cached_property
    def spreads(self) -> dict[str, Spread]:
        """Every figure over the seeds."""
        return spreads([run.figures for run in self.runs])

    def cases(self, figure: str) -> FigureCases | None:
        """The cases of a figure with their means over the seeds; None where a run kept none."""
        found = [run.cases[figure] for run in self.runs if figure in run.cases]
        if len(found) < len(self.runs):
            return None
        values = np.mean([cases.value for cases in found], axis=0)
        return FigureCases(found[0].key, found[0].part, found[0].media, values)


@dataclass(frozen=True)
class PairedTest:
    """What another group has more than the first: the difference of the means with its 95 % interval, and ``p``.

    ``over`` says what was paired: cases, of which those of one video keep together, or seeds. ``corrected`` is p after
    Holm's correction for all groups that are held against the first.
    """

    difference: float
    low: float | None
    high: float | None
    p: float
    corrected: float
    over: str
    n: int


@dataclass(frozen=True)
class Row:
    """A figure: its spread in each group, and a test of each group but the first (None where nothing can be paired)."""

    figure: str
    spreads: Sequence[Spread]
    tests: Sequence[PairedTest | None]


def group_runs(runs: Sequence[FinishedRun]) -> list[Group]:
    """Groups in the order of their first runs. Raises ``ConfigError`` for a run that is there twice, for runs of
    different data, and for those that have no figure in common."""
    found: dict[str, list[FinishedRun]] = {}
    for run in runs:
        found.setdefault(repr(_settings(run)), []).append(run)
    for same in found.values():
        seeds: dict[int, FinishedRun] = {}
        for run in same:
            other = seeds.setdefault(run.seed, run)
            if other is not run:
                raise ConfigError(
                    f"{other.folder} and {run.folder} must differ, they are one config with one seed, {run.seed}: "
                    "leave one out"
                )
    if not set.intersection(*(set(run.figures) for run in runs)):
        raise ConfigError(f"{', '.join(str(run.folder) for run in runs)} must have a figure in common, they have none")
    for run in runs[1:]:
        _refuse_other_data(runs[0], run)
    names = [*string.ascii_uppercase, *map(str, range(len(found)))]
    return [Group(name, same) for name, same in zip(names, found.values(), strict=False)]


def compare(groups: Sequence[Group]) -> list[Row]:
    """Every figure that all runs have; groups are held against the first."""
    names = [name for name in groups[0].spreads if all(name in group.spreads for group in groups)]
    rows = []
    for name in names:
        tests = [_tested(name, groups[0], group) for group in groups[1:]]
        corrected = iter(holm([test.p for test in tests if test is not None]))
        tests = [test and PairedTest(**{**vars(test), "corrected": next(corrected)}) for test in tests]
        rows.append(Row(name, [group.spreads[name] for group in groups], tests))
    return rows


def differing(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Dotted keys of the config that are not the same in all groups, with the value in each ("-": not there)."""
    keys = {key: None for group in groups for key in group.settings}
    found = {key: [group.settings.get(key, "-") for group in groups] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def _settings(run: FinishedRun) -> dict[str, Any]:
    found = {key: value for key, value in flat(run.config).items() if not re.fullmatch(_NO_MATTER, key)}
    key = "training_parameters.resume_file"
    if isinstance(found.get(key), str):  # each seed may start from its own first part
        found[key] = re.sub(rf"\bseed{run.seed}\b", "seed*", found[key])
    return dict(sorted(found.items()))


def _refuse_other_data(first: FinishedRun, run: FinishedRun) -> None:
    for name in first.figures.keys() & run.figures.keys():
        split = name.partition("/")[0]
        kinds = [_data(one.config, split) for one in (first, run)]
        numbers = [one.figures[name]["n"] for one in (first, run)]
        cases = [one.cases.get(name) for one in (first, run)]
        known = cases[0] is not None and cases[1] is not None
        if (
            kinds[0]["type"] != kinds[1]["type"]
            or numbers[0] != numbers[1]
            or (cases[0] is not None and cases[1] is not None and not cases[0].same_cases(cases[1]))
            or (not known and kinds[0] != kinds[1])
        ):
            said = " and ".join(
                f"{one.folder} has {number} cases of {kind['type']}"
                for one, number, kind in zip((first, run), numbers, kinds, strict=True)
            )
            raise ConfigError(
                f"{split} must be the same data and split in all runs: of {name}, {said}"
                + (", but not the same ones" if numbers[0] == numbers[1] else "")
            )


def _data(config: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Type and parameters of a split's data set, without where it lies."""
    (block,) = config["dataset_attributes"][split]
    return {"type": block["type"], **{k: v for k, v in (block["params"] or {}).items() if not k.endswith("_dir")}}


def _tested(name: str, first: Group, group: Group) -> PairedTest | None:
    one, other = first.cases(name), group.cases(name)
    difference = group.spreads[name].mean - first.spreads[name].mean
    if one is not None and other is not None:
        sums, counts = _by_media(one, other.value - one.value)
        low, high = difference_interval(sums, counts)
        return PairedTest(difference, low, high, sign_flip(sums), 1.0, "cases", len(one.key))
    if len(first.seeds) < 2 or set(first.seeds) != set(group.seeds):
        return None
    values = [{run.seed: run.figures[name]["value"] for run in each.runs} for each in (first, group)]
    differences = np.array([values[1][seed] - values[0][seed] for seed in first.seeds])
    return PairedTest(difference, None, None, sign_flip(differences), 1.0, "seeds", len(differences))


def _by_media(cases: FigureCases, values: Floats) -> tuple[Floats, Floats]:
    """Sum of the values and number of the cases of each video."""
    media = np.unique(cases.media, return_inverse=True)[1]
    return np.bincount(media, weights=values).astype(np.float64), np.bincount(media).astype(np.float64)
