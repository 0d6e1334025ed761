"""``antmmf check``: a config's mistakes, before the device is asked for."""

from __future__ import annotations

import time
from pathlib import Path

import click

from antmmf.cli.options import OVERRIDES, json_option, make_registry, plugin_options, print_json, table
from antmmf.errors import ConfigError


@click.command("check", context_settings=OVERRIDES)
@click.argument("source")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--no-files", is_flag=True, help="Do not look whether data and checkpoints exist.")
@click.option("--data", type=click.Path(path_type=Path), metavar="FOLDER", help="Your own videos with a captions file.")
@json_option
@plugin_options
def command(
    source: str,
    overrides: tuple[str, ...],
    no_files: bool,
    data: Path | None,
    as_json: bool,
    without_plugin: tuple[str, ...],
    plugin_files: tuple[Path, ...],
) -> None:
    """Plan the run SOURCE (a file or a recipe) and check that its parts fit; nothing is trained or written."""
    from antmmf.plan import plan_run

    started = time.monotonic()
    try:
        plan = plan_run(source, overrides, registry=make_registry(without_plugin, plugin_files), data=data)
        from antmmf.check import check_run

        seen = check_run(plan, files=not no_files)
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"ok": False, "problems": [vars_of(problem) for problem in error.problems]})
        raise SystemExit(2) from error
    seconds = time.monotonic() - started
    components = [(plan_.full_name, ".".join(map(str, plan_.path))) for plan_ in plan.components()]
    if as_json:
        print_json(
            {
                "ok": True,
                "seconds": round(seconds, 2),
                "components": {path: name for name, path in components},
                "seen": seen,
            }
        )
        return
    click.echo(table([(path, name) for name, path in components]))
    for line in seen:
        click.echo(f"  {line}")
    for plugin in plan.broken:
        click.echo(f"  left out: {plugin.reason}", err=True)
    click.echo(f"{source} is sound ({seconds:.1f} s)")


def vars_of(problem: object) -> dict[str, str]:
    """A problem's fields, for JSON."""
    return {name: getattr(problem, name) for name in ("path", "where", "message")}
