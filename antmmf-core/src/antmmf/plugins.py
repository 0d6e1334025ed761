"""Hook plugins: load them, say which are broken and why, and hand out one pluggy manager for each run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pluggy

from antmmf import hookspecs
from antmmf.errors import AntmmfError, ConfigError, PluginError, did_you_mean
from antmmf.registry import Registry, normalized


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

    Raises ``PluginError`` when one of ``required`` (distribution names) is broken or not there, and when a ``--plugin``
    file is broken: whoever names one wants it.
    """
    manager, broken = new_manager(), []
    needed = {normalized(name): name for name in required}
    components = registry.components("plugins")
    offered = {normalized(component.distribution) for component in components}
    for name in (needed[key] for key in sorted(needed.keys() - offered)):
        if normalized(name) in registry.disabled:
            raise PluginError(f"plugins.required: {name} must take part in this run, but is disabled")
        hint = did_you_mean(name, [component.distribution for component in components])
        raise PluginError(f"plugins.required: {name} must be installed and offer hooks{hint}; pip install {name}")
    for component in components:
        try:
            register(manager, component.load(), name=component.full_name)
        except PluginError as error:
            if normalized(component.distribution) in needed:
                raise PluginError(f"plugins.required: {error}") from error
            broken.append(Broken(component.distribution, str(error)))
    for module in registry.files:
        if marked_hooks(manager, module) or _unmarked_hooks(manager, module):
            register(manager, module, name=str(module.__file__))
    return manager, broken


def register(manager: pluggy.PluginManager, plugin: object, *, name: str) -> None:
    """Register ``plugin``, whose failures will then carry ``name``.

    Raises ``PluginError`` when it has no hook, one that is misspelt, or one with an argument that we do not offer.
    """
    problem = _problem(manager, plugin)
    if problem:
        raise PluginError(f"{name}: {problem}; for the hooks: antmmf list hooks")
    try:
        manager.register(plugin, name=name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        if manager.get_plugin(name) is plugin:
            manager.unregister(name=name)
        raise PluginError(f"{name}: {' '.join(str(error).split())}") from error
    for caller in manager.get_hookcallers(plugin) or ():
        for implementation in caller.get_hookimpls():
            if implementation.plugin is plugin and not (implementation.wrapper or implementation.hookwrapper):
                implementation.function = _attributed(  # type: ignore[misc]  # pluggy does not say whose hook failed
                    implementation.function, f"{name} failed in {caller.name}"
                )


def marked_hooks(manager: pluggy.PluginManager, plugin: object) -> dict[str, str]:
    """Attribute -> hook, of everything in ``plugin`` that is marked with ``@hookimpl``."""
    options = {name: manager.parse_hookimpl_opts(plugin, name) for name in dir(plugin)}
    return {name: found.get("specname") or name for name, found in options.items() if found is not None}


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


def _problem(manager: pluggy.PluginManager, plugin: object) -> str:
    """What is wrong with the hooks of ``plugin``; empty where they are sound."""
    marked, unmarked = marked_hooks(manager, plugin), _unmarked_hooks(manager, plugin)
    if unmarked:
        return f"{unmarked[0]} lacks the decorator @hookimpl"
    if not marked:
        return "it has no hook: nothing in it is marked with @hookimpl"
    for attribute, hook in marked.items():
        if hook not in hook_names():
            return f"no hook is called {hook!r}{did_you_mean(hook, hook_names())}"
        offered = list(inspect.signature(getattr(hookspecs, hook)).parameters)
        for argument in inspect.signature(getattr(plugin, attribute)).parameters.values():
            if argument.name not in offered:
                return f"{hook} has no argument {argument.name!r}; it may take: {', '.join(offered)}"
            if argument.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
                return f"the argument {argument.name!r} of its {hook} must be a plain one"
    return ""


def _unmarked_hooks(manager: pluggy.PluginManager, plugin: object) -> list[str]:
    """Functions that are called like a hook but would never be called by one."""
    marked = marked_hooks(manager, plugin)
    candidates = [
        name for name in hook_names() if name not in marked and inspect.isroutine(getattr(plugin, name, None))
    ]
    return [name for name in candidates if not hasattr(getattr(plugin, name), "antmmf_spec")]


def _attributed(function: Callable[..., Any], who: str) -> Callable[..., Any]:
    """``function``, whose failures say ``who`` failed; errors raised on purpose stay what they are."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except AntmmfError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            raise PluginError(f"{who}: {type(error).__name__}{f': {text}' if text else ''}") from error

    return call
