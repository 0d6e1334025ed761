"""``antmmf config``: the resolved config, where each value came from, or the schema for editors."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
        rows = list(_explain(plan.resolved, plan.layers))
        print_json(rows) if as_json else click.echo(_explain_text(rows))
    elif as_json:
        print_json(plan.resolved)
    else:
        import yaml

        click.echo(yaml.safe_dump(plan.resolved, sort_keys=False, allow_unicode=True), nl=False)


def _explain(resolved: dict[str, Any], layers: Any) -> Iterator[dict[str, Any]]:
    from antmmf.config.reader import dotted

    for path, value in _leaves(resolved, ()):
        settings = layers.history.get(path) or layers.history.get(path[:-1] if path[-1] == "type" else path) or []
        yield {
            "key": dotted(path),
            "value": value,
            "where": settings[-1].where if settings else layers_default(path, layers),
            "shadowed": [{"value": setting.value, "where": setting.where} for setting in settings[:-1]],
        }


def layers_default(path: tuple[Any, ...], layers: Any) -> str:
    """The place of a list that holds the value, or ``default``."""
    for end in range(len(path) - 1, 0, -1):
        setting = layers.history.get(path[:end])
        if setting and isinstance(setting[-1].value, list) and _holds(setting[-1].value, path[end:]):
            return str(setting[-1].where)
    return "default"


def _holds(value: Any, path: tuple[Any, ...]) -> bool:
    for part in path:
        if isinstance(value, str):
            return bool(part == "type")
        if (isinstance(value, list) and isinstance(part, int) and part < len(value)) or (
            isinstance(value, dict) and part in value
        ):
            value = value[part]
        else:
            return False
    return True


def _leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from _leaves(child, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, child in enumerate(value):
            yield from _leaves(child, (*path, index))
    else:
        yield path, value


def _explain_text(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        shadowed = "".join(f"; over {json.dumps(s['value'])} ({s['where']})" for s in reversed(row["shadowed"]))
        lines.append((row["key"], json.dumps(row["value"], ensure_ascii=False), row["where"] + shadowed))
    return table(lines, indent="")
