"""``antmmf list [KIND]``: what there is, from package metadata alone."""

from __future__ import annotations

import re
from pathlib import Path

import click

from antmmf.cli.options import bold, json_option, make_registry, plugin_options, print_json, table
from antmmf.errors import ConfigError, did_you_mean
from antmmf.registry import KINDS, Registry


@click.command("list")
@click.argument("kind", required=False)
@json_option
@plugin_options
def command(kind: str | None, as_json: bool, without_plugin: tuple[str, ...], plugin_files: tuple[Path, ...]) -> None:
    """List components by kind, recipes and hooks. KIND: one of them, as in: antmmf list recipes."""
    registry = make_registry(without_plugin, plugin_files)
    wanted = [_kind(kind)] if kind else [*KINDS, "hooks"]
    rows = [row for name in wanted for row in _rows(registry, name)]
    if as_json:
        print_json(rows)
        return
    for name in wanted:
        own = [row for row in rows if row["kind"] == name]
        if own:
            click.echo(bold(name.replace("_", " ")))
            click.echo(table([(row["name"], row["distribution"]) for row in own]))
        elif kind:
            click.echo(f"no {name.replace('_', ' ')} here")


def _kind(name: str) -> str:
    """``reader``, ``readers`` and ``vision-encoders`` all name a kind."""
    known = [*KINDS, "hooks"]
    plain = name.replace("-", "_").replace(" ", "_")
    for candidate in (plain, f"{plain}s", f"{plain}es"):
        if candidate in known:
            return candidate
    raise ConfigError(f"no kind is called {name!r}{did_you_mean(plain, known) or '; kinds: ' + ', '.join(known)}")


def _rows(registry: Registry, kind: str) -> list[dict[str, str]]:
    if kind == "hooks":
        return [{"kind": "hooks", "name": name, "distribution": "antmmf-core", "value": ""} for name in _hooks()]
    if kind == "recipes":
        return [
            {"kind": kind, "name": name, "distribution": distribution, "value": str(path)}
            for name, (path, distribution) in sorted(_recipes(registry).items())
        ]
    return [
        {"kind": kind, "name": component.name, "distribution": component.distribution, "value": component.value}
        for component in registry.components(kind)
    ]


def _hooks() -> list[str]:
    """Names of the hooks, read from the source: importing pluggy would cost more than the listing."""
    source = Path(__file__).parent.with_name("hookspecs.py").read_text(encoding="utf-8")
    return re.findall(r"^def (antmmf_\w+)", source, re.MULTILINE)


def _recipes(registry: Registry) -> dict[str, tuple[Path, str]]:
    from antmmf.recipes import recipe_files

    return recipe_files(registry)
