"""Find components by name without importing anything, and import one when a config names it.

A component is an entry point in the group ``antmmf.<kind>`` of an installed distribution; the core registers its own
in the same way. A bare name that two distributions offer is an error only for whoever uses it: ``distribution:name``
always says which one is meant.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import importlib_metadata as metadata

from antmmf.errors import ComponentError, PluginError, did_you_mean
from antmmf.known import offered_by

log = logging.getLogger("antmmf")

KINDS: dict[str, tuple[str, ...]] = {
    # kind: what a class of that kind must have, so that a wrong one is named when it is loaded
    "vision_encoders": ("__call__", "blocks"),
    "text_encoders": ("__call__", "blocks"),
    "readers": ("read",),
    "samplers": ("__call__",),
    "transforms": ("__call__",),
    "datasets": ("sources", "records"),
    "tasks": ("collator", "forward", "evaluate_split"),
    "losses": ("__call__",),
    "metrics": ("update", "compute", "reset"),
    "callbacks": (),
    "optimizers": ("__call__",),
    "schedules": ("__call__",),
    "recipes": (),
    "commands": (),
    "plugins": (),
}
_TORCH_FREE = {"callbacks", "recipes", "commands", "plugins"}
FILE_ATTRIBUTE = "ANTMMF_COMPONENTS"


def normalized(distribution: str) -> str:
    """A distribution's name as packaging compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def singular(kind: str) -> str:
    """``vision_encoders`` -> ``vision encoder``, for messages."""
    return {"losses": "loss"}.get(kind, kind.removesuffix("s")).replace("_", " ")


@dataclass(frozen=True)
class Component:
    """A name that a distribution (or a ``--plugin`` file) offers; ``value`` is ``module:attribute``."""

    kind: str
    name: str
    distribution: str
    value: str
    origin: metadata.Distribution | ModuleType

    @property
    def full_name(self) -> str:
        """``distribution:name``, as saved configs write it."""
        return f"{self.distribution}:{self.name}"

    @cached_property
    def version(self) -> str:
        """The distribution's version; ``file`` for a component of a ``--plugin`` file."""
        return "file" if isinstance(self.origin, ModuleType) else self.origin.version

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}: {singular(self.kind)} {self.name!r} ({self.value})"

    def load(self) -> Any:
        """Import the component and check its kind; raise ``PluginError`` that names the distribution and the reason."""
        if isinstance(self.origin, ModuleType):
            loaded = getattr(self.origin, self.value.rpartition(":")[2], None)
            if loaded is None:
                raise PluginError(f"{self}: the file defines no such name")
        else:
            loaded = self._load_entry_point()
        self._check_kind(loaded)
        return loaded

    def _load_entry_point(self) -> Any:
        if self.kind not in _TORCH_FREE:
            from antmmf import torchvision_shim

            torchvision_shim.apply()
        try:
            return metadata.EntryPoint(self.name, self.value, f"antmmf.{self.kind}").load()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise PluginError(f"{self} cannot be loaded: {reason}") from error

    def _check_kind(self, loaded: Any) -> None:
        if self.kind in ("plugins", "recipes"):
            return
        if not callable(loaded):
            raise PluginError(f"{self} must be a class or a function, is {type(loaded).__name__}")
        if isinstance(loaded, type):
            missing = [name for name in KINDS[self.kind] if not hasattr(loaded, name)]
            if missing:
                raise PluginError(
                    f"{self} is not a {singular(self.kind)}: {loaded.__name__} lacks {', '.join(missing)}"
                )


class Registry:
    """All components of this environment; scanned once, at construction.

    ``disabled`` distributions (also those in ``ANTMMF_DISABLE_PLUGINS``) are treated as if not installed.
    ``files`` are Python files with components that are not packaged yet.
    """

    def __init__(self, *, disabled: Iterable[str] = (), files: Iterable[Path] = ()) -> None:
        env = os.environ.get("ANTMMF_DISABLE_PLUGINS", "").split(",")
        self.disabled = frozenset(normalized(name.strip()) for name in (*disabled, *env) if name.strip())
        self.files = tuple(load_file(path) for path in files)
        self._components: dict[str, dict[str, list[Component]]] = {kind: {} for kind in KINDS}
        self.unknown_groups: list[tuple[str, str]] = []
        for component in (*self._scan(), *self._scan_files()):
            self._components[component.kind].setdefault(component.name, []).append(component)

    def components(self, kind: str) -> list[Component]:
        """Every component of a kind, sorted by name and distribution; imports nothing."""
        offers = [component for offers in self._components[kind].values() for component in offers]
        return sorted(offers, key=lambda component: (component.name.lower(), component.distribution))

    def clashes(self) -> list[list[Component]]:
        """Names offered by more than one distribution."""
        return [offers for names in self._components.values() for offers in names.values() if len(offers) > 1]

    def find(self, kind: str, name: str) -> Component | None:
        """The component called ``name`` or ``distribution:name``; None where nobody offers it.

        Raises ``ComponentError`` when several distributions offer a bare name.
        """
        distribution, _, bare = name.rpartition(":")
        offers = self._components[kind].get(bare, [])
        if distribution:
            offers = [offer for offer in offers if normalized(offer.distribution) == normalized(distribution)]
        if len(offers) > 1:
            choices = " or ".join(repr(offer.full_name) for offer in offers)
            raise ComponentError(f"{singular(kind)} {name!r} is offered by {len(offers)} packages; write {choices}")
        return offers[0] if offers else None

    def missing(self, kind: str, name: str) -> str:
        """What to tell somebody who asked for a name that nobody offers here."""
        distribution, _, bare = name.rpartition(":")
        package = offered_by(kind, bare)
        disabled = {normalized(package or ""), normalized(distribution)} & self.disabled
        if disabled:
            return f"no {singular(kind)} is called {name!r} here: its package {disabled.pop()} is disabled"
        if package and (not distribution or normalized(distribution) == package) and not self._offers(package):
            return f"no {singular(kind)} is called {name!r} here; {package} offers it: pip install {package}"
        known = [offer.full_name if distribution else offer.name for offer in self.components(kind)]
        hint = did_you_mean(name, known) or (f"; there are: {', '.join(sorted(set(known))[:12])}" if known else "")
        if distribution and not self._offers(distribution):
            hint = f"; its package {distribution} is not installed: pip install {distribution}"
        return f"no {singular(kind)} is called {name!r}{hint}"

    def _offers(self, distribution: str) -> bool:
        return any(
            normalized(offer.distribution) == normalized(distribution)
            for kind in KINDS
            for offer in self.components(kind)
        )

    def _scan(self) -> Iterator[Component]:
        seen: set[str] = set()
        for distribution in metadata.distributions():
            text = distribution.read_text("entry_points.txt")
            if not text or "[antmmf." not in text:
                continue
            name = distribution.name
            if normalized(name) in seen:  # shadowed by a folder that stands earlier on sys.path
                continue
            seen.add(normalized(name))
            if normalized(name) in self.disabled:
                continue
            yield from self._read(name, distribution, text)

    def _read(self, name: str, distribution: metadata.Distribution, text: str) -> Iterator[Component]:
        for group, entry, value in _entry_points(text):
            kind = group.removeprefix("antmmf.")
            if kind not in KINDS:
                self.unknown_groups.append((name, group))
            else:
                yield Component(kind, entry, name, value, distribution)

    def _scan_files(self) -> Iterator[Component]:
        for module in self.files:
            declared: Mapping[str, Mapping[str, object]] = getattr(module, FILE_ATTRIBUTE, {})
            for kind, names in declared.items():
                if kind not in KINDS:
                    raise PluginError(
                        f"{module.__file__}: {FILE_ATTRIBUTE} has no kind {kind!r}{did_you_mean(kind, KINDS)}"
                    )
                for name, target in names.items():
                    attribute = target if isinstance(target, str) else getattr(target, "__name__", name)
                    yield Component(
                        kind,
                        name,
                        module.__name__.removeprefix("antmmf_file_"),
                        f"{module.__file__}:{attribute}",
                        module,
                    )


def _entry_points(text: str) -> Iterator[tuple[str, str, str]]:
    """(group, name, value) of the ``antmmf.*`` sections of an entry_points.txt."""
    group = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            group = line.strip("[]").strip()
        elif group.startswith("antmmf.") and "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            yield group, name.strip(), value.strip()


def load_file(path: Path) -> ModuleType:
    """Import a ``--plugin`` file under a stable module name, so that worker processes can do the same.

    The file declares ``ANTMMF_COMPONENTS = {"readers": {"mine": MyReader}}``; hooks in it are registered too.
    """
    import importlib.util
    import sys

    path = Path(path).resolve()
    name = f"antmmf_file_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}"
    present = sys.modules.get(name)
    if present is not None and present.__file__ == str(path):
        return present
    if not path.is_file():
        raise PluginError(f"--plugin {path}: there is no such file")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"--plugin {path}: must be a Python file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise PluginError(f"--plugin {path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module


def prepare_process(files: Iterable[str]) -> None:
    """Make a worker process ready to unpickle components: torchvision's shim, and the ``--plugin`` files."""
    from antmmf import torchvision_shim

    torchvision_shim.apply()
    for path in files:
        load_file(Path(path))
