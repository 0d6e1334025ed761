"""Recipes: folders of YAML configs that a distribution offers, found without importing it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from antmmf.errors import ConfigError, did_you_mean
from antmmf.registry import Registry


def recipe_files(registry: Registry) -> dict[str, tuple[Path, str]]:
    """Recipe name -> (YAML file, distribution); names are paths below the folder, ``pretrain/webvid_videoswin``.

    A name that several distributions offer stands there once for each of them, as ``distribution:name``. Files whose
    name starts with ``_`` are parts for ``includes``, not recipes.
    """
    offers: dict[str, dict[str, Path]] = {}
    for component in registry.components("recipes"):
        folder = package_folder(component.value)
        for path in sorted(folder.rglob("*.yml")) if folder else ():
            if not path.name.startswith("_"):
                name = path.relative_to(folder or path).with_suffix("").as_posix()
                offers.setdefault(name, {}).setdefault(component.distribution, path)
    return {
        name if len(by_distribution) == 1 else f"{distribution}:{name}": (path, distribution)
        for name, by_distribution in offers.items()
        for distribution, path in by_distribution.items()
    }


def find_config(source: str, registry: Registry) -> tuple[str, Path]:
    """(name, file) of a config given as a path, or as a recipe's ``name`` or ``distribution:name``.

    Raises ``ConfigError``, also for the bare name of a recipe that several distributions offer.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path.stem, path
    recipes = recipe_files(registry)
    distribution, _, bare = source.rpartition(":")
    same = [name for name in recipes if name.rpartition(":")[2] == bare and distribution in ("", recipes[name][1])]
    if len(same) > 1:
        choices = " or ".join(sorted(same))
        raise ConfigError(f"{source}: the recipe is offered by {len(same)} packages; write {choices}")
    if same:
        return bare, recipes[same[0]][0]
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
