"""Compare the public signatures with ``api.json``; ``--write`` renews it. Run it by ``nox -s api``.

Public is what a plugin or a config may rely on: the names that ``antmmf`` re-exports, the hooks, the config's schema,
the conformance kit, and the constructor of every component. A change must be named in the section "Unreleased" of its
distribution's CHANGELOG.md: by the name of what changed (``AdamW``) or of its module.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import griffe
from tree import ROOT, SOURCES, entry_points

SNAPSHOT = Path(__file__).with_name("api.json")
WHOLE_MODULES = ("antmmf.hookspecs", "antmmf.config.schema", "antmmf.testing")


def main(arguments: list[str]) -> int:
    """0 when nothing changed, or every change is in a changelog; 1 otherwise."""
    now = public_api()
    before: dict[str, str] = json.loads(SNAPSHOT.read_text(encoding="utf-8")) if SNAPSHOT.exists() else now
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    silent = [name for name in changed if not in_changelog(name)]
    for name in changed:
        print(f"{'  ' if name not in silent else '! '}{name}\n      {before.get(name)}\n   -> {now.get(name)}")
    if silent:
        print(f"{len(silent)} changes (!) must be named in the section Unreleased of their package's CHANGELOG.md")
        return 1
    if "--write" in arguments:
        SNAPSHOT.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    advice = "" if "--write" in arguments or not changed else "; renew the snapshot: nox -s api -- --write"
    print(f"{len(now)} public names, {len(changed)} changed{advice}")
    return 0


def public_api() -> dict[str, str]:
    """Dotted name -> signature of everything public."""
    loader = griffe.GriffeLoader(search_paths=[str(folder.parent) for folder in SOURCES.values()])
    for folder in SOURCES.values():
        loader.load(folder.name)
    loader.resolve_aliases(external=False)
    found: dict[str, str] = {}
    for name in sorted({*_exported(), *(value.replace(":", ".") for _, _, _, value in entry_points())}):
        thing = loader.modules_collection[name]
        found.update(describe(thing.final_target if thing.is_alias else thing))
    for module in WHOLE_MODULES:
        found.update(describe(loader.modules_collection[module]))
    return found


def _exported() -> Iterator[str]:
    """The lazily re-exported names of ``antmmf``, where they live."""
    tree = ast.parse((SOURCES["antmmf-core"] / "__init__.py").read_text(encoding="utf-8"))
    homes = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_HOMES"
    )
    for module, names in ast.literal_eval(homes).items():
        yield from (f"{module}.{name}" for name in names)


def describe(thing: griffe.Object | griffe.Alias) -> Iterator[tuple[str, str]]:
    """(dotted name, signature) of an object and its public members; what it imports is not its own."""
    if thing.is_alias:
        return
    if thing.is_function:
        yield thing.path, f"({', '.join(_parameter(p) for p in thing.parameters)}) -> {thing.returns}"
    elif thing.is_attribute and (thing.annotation or "instance-attribute" not in thing.labels):
        yield thing.path, f"{thing.annotation} = {thing.value}"
    elif thing.is_class:
        yield thing.path, f"class({', '.join(str(base) for base in thing.bases)})"
    for name, member in thing.members.items():
        if not name.startswith("_") or name in ("__init__", "__call__"):
            yield from describe(member)


def _parameter(parameter: griffe.Parameter) -> str:
    kind = {"keyword-only": "*", "positional-only": "/"}.get(str(parameter.kind and parameter.kind.value), "")
    default = "" if parameter.default is None else f" = {parameter.default}"
    return f"{kind}{parameter.name}: {parameter.annotation}{default}"


def in_changelog(name: str) -> bool:
    """Does the section Unreleased of the package's changelog name the object, its class or its module?"""
    package, *parts = name.split(".")
    distribution = next(dist for dist, folder in SOURCES.items() if folder.name == package)
    text = (ROOT / distribution / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(r"^## Unreleased\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    words = set(re.findall(r"[\w.]+", section[1])) if section else set()
    return bool(words & {*parts, *(".".join([package, *parts[:i]]) for i in range(1, len(parts) + 1))})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
