"""Recipes: folders of YAML configs that a distribution offers, found without importing it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from antmmf.errors import ConfigError, did_you_mean
from antmmf.registry import Registry


def recipe_files(registry: Registry) -> dict[str, tuple[Path, str]]:
    """Recipe name -> (YAML file, distribution); names are paths below the folder, ``pretrain/webvid_videoswin``.

    Files whose name starts with ``_`` are parts for ``includes``, not recipes.
    """
    found: dict[str, tuple[Path, str]] = {}
    for component in registry.components("recipes"):
        folder = package_folder(component.value)
        if folder is None:
            continue
        for path in sorted(folder.rglob("*.yml")):
            if not path.name.startswith("_"):
                name = path.relative_to(folder).with_suffix("").as_posix()
                found.setdefault(name, (path, component.distribution))
    return found


def find_config(source: str, registry: Registry) -> tuple[str, Path]:
    """(name, file) of a config given as a path or as a recipe's name; raises ``ConfigError``."""
    path = Path(source).expanduser()
    if path.is_file():
        return path.stem, path
    recipes = recipe_files(registry)
    if source in recipes:
        return source, recipes[source][0]
    hint = did_you_mean(source, recipes)
    if not hint:
        hint = (
            f"; recipes: {', '.join(recipes)}"
            if recipes
            else "; recipes come with antmmf-tasks: pip install antmmf-tasks"
        )
    kind = "file" if path.suffix in (".yml", ".yaml") else "file or recipe"
    raise ConfigError(f"{source}: there is no such {kind}{hint}")


def package_folder(value: str) -> Path | None:
    """The folder of ``package.sub``; only its top package is looked up, nothing is imported."""
    package, *rest = value.partition(":")[0].split(".")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)), *rest)
    return folder if folder.is_dir() else None
