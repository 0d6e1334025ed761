"""``antmmf show NAME``: a component's parameters, or a recipe's file."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click

from antmmf.cli.options import bold, json_option, make_registry, plugin_options, print_json, table
from antmmf.errors import ComponentError, did_you_mean
from antmmf.recipes import recipe_files
from antmmf.registry import KINDS, Component, Registry, singular


@click.command("show")
@click.argument("name")
@json_option
@plugin_options
def command(name: str, as_json: bool, without_plugin: tuple[str, ...], plugin_files: tuple[Path, ...]) -> None:
    """Show what NAME is: a component (also distribution:name, or kind/name) or a recipe."""
    registry = make_registry(without_plugin, plugin_files)
    recipes = recipe_files(registry)
    found = _find(registry, name)
    if name in recipes and not found:
        path, distribution = recipes[name]
        description = {"kind": "recipes", "name": name, "distribution": distribution, "file": str(path)}
        print_json(description) if as_json else click.echo(_recipe_text(name, path, distribution))
        return
    if not found:
        known = [*recipes, *(component.name for kind in KINDS for component in registry.components(kind))]
        offered = [registry.missing(kind, name) for kind in KINDS if "pip install" in registry.missing(kind, name)]
        raise ComponentError(offered[0] if offered else f"nothing is called {name!r}{did_you_mean(name, known)}")
    descriptions = [_describe(component) for component in found]
    if as_json:
        print_json(descriptions)
        return
    for description in descriptions:
        click.echo(_text(description))


def _find(registry: Registry, name: str) -> list[Component]:
    kinds, _, bare = name.rpartition("/")
    found: list[Component] = []
    for kind in [kinds] if kinds in KINDS else KINDS:
        distribution, _, last = (bare if kinds in KINDS else name).rpartition(":")
        found += [
            component
            for component in registry.components(kind)
            if component.name == last and distribution in ("", component.distribution)
        ]
    return [component for component in found if component.kind != "recipes"]


def _describe(component: Component) -> dict[str, Any]:
    loaded = component.load()
    parameters = [] if component.kind in ("plugins", "commands") else _parameters(loaded)
    return {
        "kind": component.kind,
        "name": component.name,
        "distribution": component.distribution,
        "version": component.version,
        "value": component.value,
        "description": inspect.getdoc(loaded) or "",
        "parameters": parameters,
    }


def _parameters(loaded: Any) -> list[dict[str, Any]]:
    from antmmf.bind import PROVIDED

    rows: list[dict[str, Any]] = []
    for name, parameter in inspect.signature(loaded).parameters.items():
        if name in PROVIDED or parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        required = parameter.default is inspect.Parameter.empty
        annotation = parameter.annotation
        hint = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        rows.append(
            {"name": name, "type": hint, "required": required, "default": None if required else parameter.default}
        )
    return rows


def _text(description: dict[str, Any]) -> str:
    package = f"{description['distribution']} {description['version']}"
    head = f"{description['name']}  {singular(description['kind'])} of {package}"
    lines = [bold(head), f"  {description['value']}", ""]
    lines += [f"  {line}".rstrip() for line in description["description"].splitlines()]
    rows = [
        (p["name"], p["type"], "required" if p["required"] else f"default {p['default']!r}")
        for p in description["parameters"]
    ]
    if rows:
        lines += ["", "  params:", table(rows, indent="    ")]
    return "\n".join(lines)


def _recipe_text(name: str, path: Path, distribution: str) -> str:
    return f"{bold(f'{name}  recipe of {distribution}')}\n  {path}\n\n{path.read_text(encoding='utf-8')}"
