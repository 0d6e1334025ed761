"""``antmmf show NAME``: a component's parameters, or a recipe's file."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from antmmf.cli.options import bold, json_option, make_registry, plugin_options, print_json, table
from antmmf.errors import ComponentError, PluginError, did_you_mean
from antmmf.recipes import recipe_files
from antmmf.registry import KINDS, Component, Registry, normalized, singular


@click.command("show")
@click.argument("name")
@json_option
@plugin_options
def command(name: str, as_json: bool, without_plugin: tuple[str, ...], plugin_files: tuple[Path, ...]) -> None:
    """Show what NAME is: a component (also distribution:name, or kind/name) or a recipe."""
    registry = make_registry(without_plugin, plugin_files)
    recipes = recipe_files(registry)
    descriptions = [_describe_recipe(*found) for found in _find_recipes(recipes, name)]
    components = _find(registry, name)
    if not descriptions and not components:
        descriptions = list(_resolved(registry, name))
    if not descriptions and not components:
        raise ComponentError(_missing(registry, name, list(recipes)))
    errors: list[PluginError] = []
    for component in components:  # several, when packages share a name: a broken one hides no other
        try:
            descriptions.append(_describe(component))
        except PluginError as error:
            errors.append(error)
    if as_json and descriptions:
        print_json(descriptions)
    elif descriptions:
        click.echo("\n\n".join(map(_text, descriptions)))
    if errors:
        raise errors[0]


def _missing(registry: Registry, name: str, recipes: list[str]) -> str:
    """What to tell somebody who asked for a name that nobody offers here."""
    for kind in KINDS:
        told = registry.missing(kind, name)
        if "pip install" in told or told.endswith("is disabled"):
            return told
    known = [*recipes, *(component.name for kind in KINDS for component in registry.components(kind))]
    return f"nothing is called {name!r}{did_you_mean(name, known) or '; for what there is: antmmf list'}"


def _find(registry: Registry, name: str) -> list[Component]:
    kinds, _, bare = name.rpartition("/")
    found: list[Component] = []
    for kind in [kinds] if kinds in KINDS else KINDS:
        distribution, _, last = (bare if kinds in KINDS else name).rpartition(":")
        found += [
            component
            for component in registry.components(kind)
            if component.name == last and normalized(distribution) in ("", normalized(component.distribution))
        ]
    return [component for component in found if component.kind != "recipes"]


def _resolved(registry: Registry, name: str) -> Iterator[dict[str, Any]]:
    """What hooks answer for a name that no entry point offers, such as ``timm/resnet50``."""
    from antmmf.plugins import load_plugins

    first, _, rest = name.partition("/")
    kinds, name = ([first], rest) if first in KINDS else (list(KINDS), name)
    implementations = load_plugins(registry)[0].hook.antmmf_resolve.get_hookimpls()
    for kind in kinds:
        asked = {"kind": kind, "name": name}
        for implementation in reversed(implementations):  # the order in which pluggy calls them
            target: Any = implementation.function(*(asked[argument] for argument in implementation.argnames))
            if target is not None:
                distribution = implementation.plugin_name.partition(":")[0]
                version = next(
                    (c.version for c in registry.components("plugins") if c.distribution == distribution), ""
                )
                value = f"{target.__module__}:{target.__name__}"
                yield _describe(Component(kind, name, distribution, version, value), target)
                break


def _find_recipes(recipes: dict[str, tuple[Path, str]], name: str) -> list[tuple[str, Path, str]]:
    """(name, file, distribution) of the recipes called ``name`` or ``distribution:name``."""
    distribution, _, bare = name.rpartition(":")
    found = ((key.rpartition(":")[2], path, offered_by) for key, (path, offered_by) in recipes.items())
    return [recipe for recipe in found if recipe[0] == bare and distribution in ("", recipe[2])]


def _describe_recipe(name: str, path: Path, distribution: str) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    return {"kind": "recipes", "name": name, "distribution": distribution, "value": str(path), "description": text}


def _describe(component: Component, loaded: Any = None) -> dict[str, Any]:
    loaded = component.load() if loaded is None else loaded
    parameters: list[dict[str, Any]] = []
    if component.kind == "plugins":
        from antmmf.plugins import new_manager, register

        register(new_manager(), loaded, name=component.full_name)
    elif component.kind != "commands":
        parameters = _parameters(component, loaded)
    return {
        "kind": component.kind,
        "name": component.name,
        "distribution": component.distribution,
        "version": component.version,
        "value": component.value,
        "description": inspect.getdoc(loaded) or "",
        "parameters": parameters,
    }


def _parameters(component: Component, loaded: Any) -> list[dict[str, Any]]:
    from antmmf.bind import PROVIDED, signature_model

    try:
        model, nested = signature_model(loaded)
    except ComponentError as error:
        raise PluginError(f"{component}: {error}") from error
    shown = {name: f"{singular(kind)}: its name, or type and params" for name, (kind, _) in nested.items()}
    shown |= {name: _limited(info.annotation, info.metadata) for name, info in model.model_fields.items()}
    rows: list[dict[str, Any]] = []
    for name, parameter in inspect.signature(loaded).parameters.items():
        if name not in PROVIDED:
            required = parameter.default is inspect.Parameter.empty
            default = None if required else parameter.default
            rows.append({"name": name, "type": shown[name], "required": required, "default": default})
    return rows


_SIGNS = {
    # class of annotated_types: (its attribute, how it reads)
    "Gt": ("gt", ">"),
    "Ge": ("ge", ">="),
    "Lt": ("lt", "<"),
    "Le": ("le", "<="),
    "MultipleOf": ("multiple_of", "a multiple of"),
    "MinLen": ("min_length", "of length >="),
    "MaxLen": ("max_length", "of length <="),
}


def _limited(hint: Any, limits: Sequence[Any]) -> str:
    """A type with its bounds in words: ``int > 0``, ``'train' | 'val'``, ``path | None``."""
    known = ((*_SIGNS[type(limit).__name__], limit) for limit in limits if type(limit).__name__ in _SIGNS)
    text = " and ".join(f"{sign} {getattr(limit, name)}" for name, sign, limit in known)
    return f"{_type_text(hint)} {text}".rstrip()


def _type_text(hint: Any) -> str:
    parts = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        metadata = [limit for part in parts[1:] for limit in getattr(part, "metadata", [part])]
        return _limited(parts[0], metadata)
    if origin is typing.Literal:
        return " | ".join(map(repr, parts))
    if origin in (types.UnionType, typing.Union):
        return " | ".join(map(_type_text, parts))
    if parts:
        inner = ", ".join("..." if part is ... else _type_text(part) for part in parts)
        return f"{getattr(origin, '__name__', origin)} of {inner}".removesuffix(", ...")
    plain = {type(None): "None", Path: "path", str: "text"}
    return plain[hint] if hint in plain else str(getattr(hint, "__name__", hint))


def _text(description: dict[str, Any]) -> str:
    package = f"{description['distribution']} {description.get('version', '')}".rstrip()
    head = f"{description['name']}  {singular(description['kind'])} of {package}"
    lines = [bold(head), f"  {description['value']}", ""]
    indent = "" if description["kind"] == "recipes" else "  "
    lines += [f"{indent}{line}".rstrip() for line in description["description"].splitlines()]
    rows = [
        (p["name"], p["type"], "required" if p["required"] else f"default {p['default']!r}")
        for p in description.get("parameters", ())
    ]
    if rows:
        lines += ["", "  params:", table(rows, indent="    ")]
    return "\n".join(lines)
