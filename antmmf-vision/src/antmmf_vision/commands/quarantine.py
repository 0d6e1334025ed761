"""``antmmf data quarantine``: the samples that a run could not read."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click
from antmmf.cli.options import json_option, make_registry, plugin_options, print_json, table
from antmmf.errors import DataError

if TYPE_CHECKING:
    from antmmf.data.quarantine import BadSample

_RUN = click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
_COLUMNS = ("media", "key", "reason", "message", "reader", "id")


@click.group("quarantine")
def command() -> None:
    """List, try again or export the samples that could not be read; RUN is a run's folder."""


@command.command("list")
@_RUN
@json_option
def list_(run: Path, as_json: bool) -> None:
    """Say which samples of RUN were bad, and why."""
    from antmmf.data.quarantine import reasons

    bad = _read(run)
    if as_json:
        print_json([asdict(sample) for sample in bad])
        return
    if bad:
        click.echo(table([(sample.reason, sample.media, sample.message) for sample in bad], indent=""))
    click.echo(f"{len(bad)} bad samples: {reasons(bad)}" if bad else f"{run}: every sample could be read")


@command.command("retry")
@_RUN
@plugin_options
def retry(run: Path, without_plugin: tuple[str, ...], plugin_files: tuple[Path, ...]) -> None:
    """Read the bad samples of RUN again, and take from the list what can be read now; exit 1 while any is left."""
    from antmmf.contracts import Sample
    from antmmf.data.fetch import read_sample
    from antmmf.data.quarantine import write_quarantine
    from antmmf.plan import plan_run
    from antmmf.run_data import open_indexes, sample_reader

    bad = {sample.id: sample for sample in _read(run)}
    plan = plan_run(str(run / "config.yml"), registry=make_registry(without_plugin, plugin_files))
    seen: dict[int, BadSample | Sample] = {}
    for split, index in open_indexes(plan, plan.datasets)[0].items() if bad else ():
        reader = sample_reader(plan, split, index, train=False)
        for row, id in enumerate(index.ids.tolist()):
            if id in bad:
                seen[id] = read_sample(reader, row, epoch=0)
    still = [found for id, old in bad.items() if not isinstance(found := seen.get(id, old), Sample)]
    write_quarantine(run, still)
    for sample in still:
        click.echo(f"{sample.reason}  {sample.media}  {sample.message}")
    click.echo(f"{len(bad) - len(still)} of {len(bad)} can be read now")
    if still:
        raise SystemExit(1)


@command.command("export")
@_RUN
@click.option("--format", "kind", type=click.Choice(["files", "csv", "jsonl"]), default="files", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write here.  [default: standard output]")
def export(run: Path, kind: str, out: Path | None) -> None:
    """Write the bad samples of RUN for other tools; files: one path a line."""
    bad = _read(run)
    if out is None:
        _write(bad, kind, sys.stdout)
        return
    with out.open("w", encoding="utf-8", newline="") as file:
        _write(bad, kind, file)
    click.echo(f"{len(bad)} bad samples: {out}", err=True)


def _write(bad: Iterable[BadSample], kind: str, file: IO[str]) -> None:
    rows = [asdict(sample) for sample in bad]
    if kind == "csv":
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    file.writelines((row["media"] if kind == "files" else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)


def _read(run: Path) -> list[BadSample]:
    from antmmf.data.quarantine import read_quarantine

    if not (run / "config.yml").is_file():
        raise DataError(f"{run}: is no run's folder: there is no config.yml in it")
    return list(read_quarantine(run).values())
