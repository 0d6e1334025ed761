"""``antmmf data check`` and ``stats``: can every file be read, and what is there."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from antmmf.cli.options import OVERRIDES, bold, json_option, make_registry, plugin_options, print_json, table

if TYPE_CHECKING:
    from antmmf.data.media import SampleReader
    from antmmf.plan import DataPlan

    from antmmf_vision.commands.survey import Outcome

_NUM_NAMED = 5


def source_options(function: Any) -> Any:
    """What the commands that read data share. SOURCE is a config, a recipe, or a data set's name with its parameters
    as KEY=VALUE."""
    function = click.option("--split", type=click.Choice(["train", "val", "test"]), help="Only this split.")(function)
    function = click.option("--limit", type=click.IntRange(1), help="Only so many files of each split.")(function)
    function = click.option("--jobs", type=click.IntRange(1), help="Files at a time.  [default: one a core]")(function)
    function = click.argument("overrides", nargs=-1, type=click.UNPROCESSED)(function)
    return click.argument("source")(plugin_options(function))


def planned(source: str, overrides: Sequence[str], without: tuple[str, ...], files: tuple[Path, ...]) -> DataPlan:
    """The plan of SOURCE. Raises ``ConfigError``."""
    from antmmf.plan import plan_data

    return plan_data(source, overrides, registry=make_registry(without, files))


def read_splits(plan: DataPlan, split: str | None, jobs: int | None) -> Iterator[tuple[str, list[SampleReader]]]:
    """Each split with readers for so many jobs; indexes are built where they are missing."""
    from antmmf.errors import ConfigError
    from antmmf.run_data import open_indexes, sample_reader

    if split is not None and split not in plan.datasets:
        raise ConfigError(f"{plan.name} has no {split} split; it has: {', '.join(plan.datasets)}")
    for name in [split] if split else plan.datasets:
        index = open_indexes(plan, [name])[0][name]
        count = jobs or os.cpu_count() or 1
        yield name, [sample_reader(plan, name, index, train=False) for _ in range(count)]


@click.command("check", context_settings=OVERRIDES)
@source_options
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write a JSON line for each file here.")
@json_option
def check(
    source: str,
    overrides: tuple[str, ...],
    split: str | None,
    limit: int | None,
    jobs: int | None,
    out: Path | None,
    as_json: bool,
    without_plugin: tuple[str, ...],
    plugin_files: tuple[Path, ...],
) -> None:
    """Decode from every file of SOURCE what an evaluation would; exit 1 when some cannot be read.

    SOURCE is a config, a recipe, or a data set's name with its parameters as KEY=VALUE.
    """
    plan = planned(source, overrides, without_plugin, plugin_files)
    report: dict[str, Any] = {}
    with out.open("w", encoding="utf-8") if out else _nowhere() as file:
        for name, readers in read_splits(plan, split, jobs):
            bad, counts = [], Counter[str]()
            for outcome in outcomes(name, readers, limit):
                counts[outcome.reason or "read"] += 1
                if outcome.reason:
                    bad.append(outcome)
                if file is not None:
                    file.write(json.dumps({"split": name, **_plain(outcome)}, ensure_ascii=False) + "\n")
            report[name] = {
                "records": len(readers[0]),
                "files": counts.total(),
                "outcomes": dict(counts.most_common()),
                "bad": [_plain(outcome) for outcome in bad],
            }
    print_json(report) if as_json else click.echo("\n".join(_lines(report)))
    if any(part["bad"] for part in report.values()):
        raise SystemExit(1)


def outcomes(name: str, readers: list[SampleReader], limit: int | None, *, decode: bool = True) -> Iterator[Outcome]:
    """The outcome of each file of a split, with a progress bar on a terminal."""
    from itertools import islice

    from antmmf_vision.commands.survey import distinct_files, survey

    rows = list(islice(distinct_files(readers[0].index), limit))
    found = survey(readers, rows, decode=decode)
    with click.progressbar(
        found, length=len(rows), label=name, file=sys.stderr, hidden=not sys.stderr.isatty(), show_pos=True
    ) as shown:
        yield from shown


@contextmanager
def _nowhere() -> Iterator[IO[str] | None]:
    yield None


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {key: value for key, value in asdict(outcome).items() if value not in (None, {})}


def _lines(report: dict[str, Any]) -> Iterator[str]:
    from antmmf.errors import REASONS

    for split, part in report.items():
        yield f"{bold(split)}: {part['records']:,} records, {part['files']:,} files"
        yield table([(name, f"{count:,}", REASONS.get(name, "")) for name, count in part["outcomes"].items()])
        for bad in part["bad"][:_NUM_NAMED]:
            yield f"  {bad['file']}: {bad['message']}"
        if len(part["bad"]) > _NUM_NAMED:
            yield f"  and {len(part['bad']) - _NUM_NAMED:,} more: --out FILE or --json names all"


@click.command("stats", context_settings=OVERRIDES)
@source_options
@json_option
def stats(
    source: str,
    overrides: tuple[str, ...],
    split: str | None,
    limit: int | None,
    jobs: int | None,
    as_json: bool,
    without_plugin: tuple[str, ...],
    plugin_files: tuple[Path, ...],
) -> None:
    """Count records, texts, durations, sizes and codecs of SOURCE; files are opened, no frame is decoded.

    SOURCE is a config, a recipe, or a data set's name with its parameters as KEY=VALUE.
    """
    from antmmf_vision.commands.survey import statistics

    plan = planned(source, overrides, without_plugin, plugin_files)
    report = {
        name: statistics(readers[0].index, outcomes(name, readers, limit, decode=False))
        for name, readers in read_splits(plan, split, jobs)
    }
    if as_json:
        print_json(report)
        return
    for name, values in report.items():
        click.echo(bold(name))
        click.echo(table([(key, _said(value)) for key, value in values.items() if value not in (None, {})]))


def _said(value: Any) -> str:
    if not isinstance(value, dict):
        return f"{value:,}"
    if "median" in value:
        total = f", {value['sum']:,.10g} in all" if "sum" in value else ""
        return f"{value['min']:,.6g} to {value['max']:,.6g}, median {value['median']:,.6g}{total}"
    return ", ".join(f"{name} ({count:,})" for name, count in value.items())
