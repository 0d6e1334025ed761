"""``antmmf config``: the resolved config, where each value came from, or the schema for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from antmmf.cli.options import OVERRIDES, json_option, make_registry, plugin_options, print_json, table


@click.command("config", context_settings=OVERRIDES)
@click.argument("source", required=False)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--explain", is_flag=True, help="Say for each value which layer set it and what it shadowed.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a config, for editors.")
@json_option
@plugin_options
def command(
    source: str | None,
    overrides: tuple[str, ...],
    explain: bool,
    schema: bool,
    as_json: bool,
    without_plugin: tuple[str, ...],
    plugin_files: tuple[Path, ...],
) -> None:
    """Print the config SOURCE (a file or a recipe) with every default filled in.

    OVERRIDES are key=value, or pairs of a key and a value.
    """
    registry = make_registry(without_plugin, plugin_files)
    if schema:
        from antmmf.config.json_schema import json_schema

        print_json(json_schema(registry))
        return
    if source is None:
        raise click.UsageError("a config file or recipe must be named, or --schema given")
    from antmmf.plan import plan_run

    plan = plan_run(source, overrides, registry=registry)
    if explain:
        from antmmf.config.explain import explain as explain_values

        rows = list(explain_values(plan.resolved, plan.layers))
        print_json(rows) if as_json else click.echo(_explain_text(rows))
    elif as_json:
        print_json(plan.resolved)
    else:
        from antmmf.config.reader import write

        click.echo(write(plan.resolved), nl=False)


def _explain_text(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        shadowed = "".join(f"; over {json.dumps(s['value'])} ({s['where']})" for s in reversed(row["shadowed"]))
        lines.append((row["key"], json.dumps(row["value"], ensure_ascii=False), row["where"] + shadowed))
    return table(lines, indent="")
