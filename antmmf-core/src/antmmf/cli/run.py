"""``antmmf run``: train and evaluate what a config says."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from antmmf.cli.options import OVERRIDES, make_registry, plugin_options

if TYPE_CHECKING:
    from antmmf.plan import RunPlan

log = logging.getLogger("antmmf")


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from antmmf.recipes import recipe_files
    from antmmf.registry import Registry

    return [CompletionItem(name) for name in sorted(recipe_files(Registry())) if name.startswith(incomplete)]


@click.command("run", context_settings=OVERRIDES)
@click.argument("source", shell_complete=_complete)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--data", type=click.Path(path_type=Path), metavar="FOLDER", help="Your own videos with a captions file.")
@click.option("--smoke", is_flag=True, help="3 steps, 2 evaluation batches, save, resume; leaves no run folder.")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and the result.")
@plugin_options
def command(
    source: str,
    overrides: tuple[str, ...],
    data: Path | None,
    smoke: bool,
    quiet: bool,
    without_plugin: tuple[str, ...],
    plugin_files: tuple[Path, ...],
) -> None:
    """Run SOURCE, a config file or a recipe (antmmf list recipes).

    OVERRIDES are key=value, or pairs of a key and a value, such as training_parameters.max_iterations=100.
    """
    from antmmf.plan import plan_run

    plan = plan_run(source, overrides, registry=make_registry(without_plugin, plugin_files), data=data)
    show_log(quiet=quiet)
    for plugin in plan.broken:
        log.warning("left out: %s", plugin.reason)
    if smoke:
        from antmmf.smoke import smoke_run

        click.echo(smoke_run(plan))
        return
    _run(plan)


def _run(plan: RunPlan) -> None:
    from antmmf.run import assemble

    started = time.monotonic()
    run = assemble(plan)
    handler = logging.FileHandler(run.folder / "log.rank0.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        run.execute()
    except Exception:
        log.debug("the run failed", exc_info=True)
        raise
    finally:
        log.removeHandler(handler)
        handler.close()
    click.echo(f"{_duration(time.monotonic() - started)} in all; everything lies in {run.folder}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def show_log(*, quiet: bool) -> None:
    """Print log messages plainly; the run folder's file gets all of them with times."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING if quiet else logging.INFO)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.DEBUG)
    log.propagate = False
