"""``antmmf report``: a page about a run."""

from __future__ import annotations

from pathlib import Path

import click
from antmmf.cli.options import make_registry, plugin_options


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--failures", type=click.IntRange(0, 200), default=8, show_default=True, help="So many are shown.")
@plugin_options
def report(run: Path, failures: int, without_plugin: tuple[str, ...], plugin_files: tuple[Path, ...]) -> None:
    """Write RUN/report.html, which opens offline: figures, recall curves, ranks, confusions and failures with pictures.

    Failures are shown of splits that the run predicted (training_parameters.run_type).
    """
    from antmmf_tasks.report.write import write_report

    path = write_report(run, registry=make_registry(without_plugin, plugin_files), num_failures=failures)
    click.echo(path.resolve().as_uri())
