"""Find components by name without importing anything, and import one when a config names it.

A component is an entry point in the group ``antmmf.<kind>`` of an installed distribution; the core registers its own
in the same way. A bare name that two distributions offer is an error only for whoever uses it: ``distribution:name``
always says which one is meant.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import importlib_metadata as metadata

from antmmf.errors import ComponentError, PluginError, did_you_mean
from antmmf.known import offered_by
from antmmf.scan import normalized as normalized
from antmmf.scan import offers as scan_offers

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
_REFERENCE = re.compile(r"[\w.]+\s*(:\s*[\w.]+\s*)?(\[.*\])?")
_IN_FILES = [kind for kind in KINDS if kind not in ("recipes", "commands", "plugins")]


def singular(kind: str) -> str:
    """``vision_encoders`` -> ``vision encoder``, for messages."""
    return {"losses": "loss"}.get(kind, kind.removesuffix("s")).replace("_", " ")


@dataclass(frozen=True)
class Component:
    """A name that a distribution offers; ``value`` is ``module:attribute``.

    ``file`` is the module of a ``--plugin`` file, whose components have the file's name as their distribution.
    """

    kind: str
    name: str
    distribution: str
    version: str
    value: str
    file: ModuleType | None = None

    @property
    def full_name(self) -> str:
        """``distribution:name``, as saved configs write it."""
        return f"{self.distribution}:{self.name}"

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}: {singular(self.kind)} {self.name!r} ({self.value})"

    def load(self) -> Any:
        """Import the component and check its kind; raise ``PluginError`` that names the distribution and the reason."""
        loaded = self._from_file() if self.file else self._from_entry_point()
        reason = _wrong_kind(self.kind, loaded)
        if reason:
            raise PluginError(f"{self} {reason}")
        return loaded

    def _from_file(self) -> Any:
        attribute = self.value.rpartition(":")[2]
        try:
            return getattr(self.file, attribute)
        except AttributeError as error:
            raise PluginError(f"{self}: the file defines no {attribute!r}") from error

    def _from_entry_point(self) -> Any:
        if not _REFERENCE.fullmatch(self.value):
            raise PluginError(f"{self} cannot be loaded: its entry point must be module:attribute")
        try:
            with contextlib.redirect_stdout(sys.stderr):  # a module that prints must not spoil --json
                if self.kind not in _TORCH_FREE:
                    from antmmf import torchvision_shim

                    torchvision_shim.apply()
                return metadata.EntryPoint(self.name, self.value, f"antmmf.{self.kind}").load()
        except (Exception, SystemExit) as error:
            raise PluginError(f"{self} cannot be loaded: {_reason(error, self.value)}") from error


class Registry:
    """All components of this environment; scanned once, at construction.

    ``disabled`` distributions (also those in ``ANTMMF_DISABLE_PLUGINS``) are treated as if not installed.
    ``files`` are Python files with components that are not packaged yet. ``problems`` are (distribution, reason) of
    metadata that offers less than it says; they hurt nobody but those who ask for what is missing.
    """

    def __init__(self, *, disabled: Iterable[str] = (), files: Iterable[Path] = ()) -> None:
        env = os.environ.get("ANTMMF_DISABLE_PLUGINS", "").split(",")
        self.disabled = frozenset(normalized(name.strip()) for name in (*disabled, *env) if name.strip())
        self.problems: list[tuple[str, str]] = []
        self._components: dict[str, dict[str, list[Component]]] = {kind: {} for kind in KINDS}
        self._distributions: set[str] = set()
        self._add(self._scan())
        modules = load_files(files)
        self.files = tuple(modules.values())
        self._add(component for name, module in modules.items() for component in _declared(name, module))

    def components(self, kind: str) -> list[Component]:
        """Every component of a kind, sorted by name and distribution; imports nothing."""
        found = [component for offers in self._components[kind].values() for component in offers]
        return sorted(found, key=lambda component: (component.name.lower(), component.distribution))

    def clashes(self) -> list[list[Component]]:
        """Names offered by more than one distribution; hook plugins and recipe folders are never asked for by name."""
        named = [names for kind, names in self._components.items() if kind not in ("plugins", "recipes")]
        found = (offers for names in named for offers in names.values() if len(offers) > 1)
        return [sorted(offers, key=lambda component: component.distribution) for offers in found]

    def find(self, kind: str, name: str) -> Component | None:
        """The component called ``name`` or ``distribution:name``; None where nobody offers it.

        Raises ``ComponentError`` when several distributions offer a bare name.
        """
        distribution, _, bare = name.rpartition(":")
        offers = self._components[kind].get(bare, [])
        if distribution:
            offers = [offer for offer in offers if normalized(offer.distribution) == normalized(distribution)]
        if len(offers) > 1:
            choices = " or ".join(sorted(repr(offer.full_name) for offer in offers))
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
        return normalized(distribution) in self._distributions

    def _add(self, components: Iterable[Component]) -> None:
        for component in components:
            self._components[component.kind].setdefault(component.name, []).append(component)
            self._distributions.add(normalized(component.distribution))

    def _scan(self) -> Iterator[Component]:
        for offer in scan_offers():
            if normalized(offer.distribution) in self.disabled:
                continue
            self.problems += [(offer.distribution, problem) for problem in offer.problems]
            for entry in offer.entries:
                kind = entry.group.removeprefix("antmmf.")
                if kind in KINDS:
                    yield Component(kind, entry.name, offer.distribution, offer.version, entry.value)
                else:
                    hint = did_you_mean(kind, KINDS) or f"; there are: {', '.join(KINDS)}"
                    reason = f"offers {entry.name!r} in the group {entry.group}, which does not exist{hint}"
                    self.problems.append((offer.distribution, reason))


def load_files(paths: Iterable[Path]) -> dict[str, ModuleType]:
    """The modules of ``--plugin`` files by the file's name, which stands for a distribution; raises ``PluginError``."""
    modules: dict[str, ModuleType] = {}
    for path in paths:
        module = load_file(path)
        name = Path(path).stem
        if modules.setdefault(name, module) is not module:
            raise PluginError(f"--plugin {path}: a --plugin file called {name}.py is given already; rename one of them")
    return modules


def load_file(path: Path) -> ModuleType:
    """Import a ``--plugin`` file under a name that depends on its path only, so that every worker can do the same.

    The file declares ``ANTMMF_COMPONENTS = {"readers": {"mine": MyReader}}``; hooks in it are registered too.
    """
    path = Path(path).expanduser().resolve()
    mark = hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()
    name = f"antmmf_file_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{mark}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file() or path.suffix != ".py":
        there = "is something else" if path.exists() else "does not exist"
        raise PluginError(f"--plugin {path}: must be a Python file that ends in .py, {there}")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.filename == str(path) else ""
        raise PluginError(f"--plugin {path}{line} cannot be loaded: {_reason(error)}") from error
    return module


def prepare_process(files: Iterable[str]) -> None:
    """Make a worker process ready to unpickle components: torchvision's shim, and the ``--plugin`` files."""
    from antmmf import torchvision_shim

    torchvision_shim.apply_when_needed()
    for path in files:
        load_file(Path(path))


def _declared(distribution: str, module: ModuleType) -> Iterator[Component]:
    """The components that a ``--plugin`` file declares; targets are objects of the file, or their names."""
    declared = getattr(module, FILE_ATTRIBUTE, {})
    shape = f"{module.__file__}: {FILE_ATTRIBUTE} must look like {{'readers': {{'mine': MyReader}}}}"
    if not isinstance(declared, dict):
        raise PluginError(f"{shape}, is {declared!r}")
    for kind, names in declared.items():
        if kind not in _IN_FILES:
            hint = did_you_mean(kind, _IN_FILES) or f"; there are: {', '.join(_IN_FILES)}"
            raise PluginError(f"{module.__file__}: {FILE_ATTRIBUTE} has no kind {kind!r}{hint}")
        if not isinstance(names, dict):
            raise PluginError(f"{shape}, has {names!r} for {kind!r}")
        for name, target in names.items():
            attribute = target if isinstance(target, str) else getattr(target, "__name__", str(target))
            yield Component(kind, name, distribution, "file", f"{module.__file__}:{attribute}", module)


def _wrong_kind(kind: str, loaded: Any) -> str:
    """Why ``loaded`` cannot be a component of that kind; empty where it can."""
    if kind in ("plugins", "recipes"):
        return ""
    if kind == "commands":
        import click

        return "" if isinstance(loaded, click.Command) else f"must be a click command, is {_what(loaded)}"
    if not callable(loaded):
        return f"must be a class or a function, is {_what(loaded)}"
    if not isinstance(loaded, type):
        return ""
    own = {name for base in loaded.__mro__ for name in vars(base)}  # hasattr would find type.__call__
    missing = [name for name in KINDS[kind] if name not in own]
    if missing:
        return f"is not a {singular(kind)}: {loaded.__name__} lacks {', '.join(missing)}"
    if kind == "callbacks" and not any(hasattr(getattr(loaded, name, None), "antmmf_impl") for name in own):
        return f"is not a callback: {loaded.__name__} has no method marked with @hookimpl"
    return ""


def _what(loaded: Any) -> str:
    return f"the {type(loaded).__name__} {getattr(loaded, '__name__', repr(loaded)[:60])}"


def _reason(error: BaseException, value: str = "") -> str:
    """Why an import failed, in one line."""
    if (
        isinstance(error, ModuleNotFoundError)
        and error.name
        and not f"{value.partition(':')[0]}.".startswith(f"{error.name}.")
    ):
        return f"it needs the module {error.name!r}, which is not installed"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
