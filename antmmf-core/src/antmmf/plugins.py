"""Hook plugins: load them, say which are broken and why, and hand out one pluggy manager for each run."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import pluggy

from antmmf import hookspecs
from antmmf.errors import ConfigError, PluginError
from antmmf.registry import Registry, normalized

log = logging.getLogger("antmmf")


@dataclass(frozen=True)
class Broken:
    """A hook plugin that was left out: its distribution and the reason."""

    distribution: str
    reason: str


def new_manager() -> pluggy.PluginManager:
    """A manager that knows our hooks and no plugin."""
    manager = pluggy.PluginManager("antmmf")
    manager.add_hookspecs(hookspecs)
    return manager


def load_plugins(registry: Registry, *, required: Iterable[str] = ()) -> tuple[pluggy.PluginManager, list[Broken]]:
    """A manager with every hook plugin that works, and the ones that do not.

    Raises ``PluginError`` when one of ``required`` (distribution names) is broken or not there.
    """
    manager, broken = new_manager(), []
    needed = {normalized(name) for name in required}
    for component in registry.components("plugins"):
        try:
            register(manager, component.load(), name=f"{component.distribution}:{component.name}")
        except PluginError as error:
            if normalized(component.distribution) in needed:
                raise
            broken.append(Broken(component.distribution, str(error)))
    for module in registry.files:
        register(manager, module, name=module.__name__)
    offered = {normalized(component.distribution) for component in registry.components("plugins")}
    absent = sorted(needed - offered)
    if absent:
        raise PluginError(
            f"plugins.required: {', '.join(absent)} must be installed with a hook plugin; pip install {absent[0]}"
        )
    return manager, broken


def register(manager: pluggy.PluginManager, plugin: object, *, name: str) -> None:
    """Register ``plugin``; raise ``PluginError`` when one of its hooks is misspelt or takes an argument we do not offer."""
    try:
        manager.register(plugin, name=name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        if manager.has_plugin(name):
            manager.unregister(name=name)
        reason = " ".join(str(error).split())
        raise PluginError(f"{name}: {reason}; the hooks are listed by: antmmf list hooks") from error


def hook_names() -> list[str]:
    """The names of all hooks, in a run's order."""
    return [name for name in vars(hookspecs) if name.startswith("antmmf_")]


def apply_defaults(manager: pluggy.PluginManager, config: dict[str, object]) -> list[tuple[str, str, object]]:
    """(plugin, dotted key, value) offered by ``antmmf_config_defaults``, later filled where nobody wrote a value."""
    offers: list[tuple[str, str, object]] = []
    for implementation in manager.hook.antmmf_config_defaults.get_hookimpls():
        arguments = [config] if implementation.argnames else []
        values = implementation.function(*arguments)
        if values is not None and not isinstance(values, dict):
            raise ConfigError(f"{implementation.plugin_name}: antmmf_config_defaults must return a dict, is {values!r}")
        offers += [(implementation.plugin_name, key, value) for key, value in (values or {}).items()]
    return offers
