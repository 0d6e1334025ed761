"""``antmmf doctor``: load everything, and say of each package what works, what does not, and why."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import click

from antmmf.cli.options import bold, json_option, make_registry, plugin_options, print_json, table
from antmmf.cli.version import versions
from antmmf.errors import ComponentError, PluginError
from antmmf.registry import KINDS, Component, Registry, singular


@click.command("doctor")
@json_option
@plugin_options
def command(as_json: bool, without_plugin: tuple[str, ...], plugin_files: tuple[Path, ...]) -> None:
    """Load every component of every package; exit 1 when one is broken or a name is offered twice."""
    registry = make_registry(without_plugin, plugin_files)
    report = examine(registry)
    print_json(report) if as_json else click.echo(_text(report))
    if report["broken"] or report["clashes"]:
        raise SystemExit(1)


def examine(registry: Registry) -> dict[str, Any]:
    """What is installed, what loads in how many seconds, what is broken and why, which names clash."""
    environment = _environment()  # imports torch first, so that its time is not charged to a plugin
    packages: dict[str, dict[str, Any]] = {}
    broken: list[dict[str, str]] = []
    probed: dict[str, str] = {}
    if "broken" in environment:
        broken.append({"distribution": "torch", "kind": "", "name": "", "reason": environment["broken"]})
    for component in (component for kind in KINDS for component in registry.components(kind)):
        package = packages.setdefault(
            component.distribution, {"version": component.version, "components": 0, "seconds": 0.0}
        )
        package["components"] += 1
        started = time.monotonic()
        reason = None if "broken" in environment else _try(component)
        if reason is None and component.kind == "readers" and "broken" not in environment:
            probed |= _probed(component)
        package["seconds"] = round(package["seconds"] + time.monotonic() - started, 3)
        if reason:
            broken.append(
                {
                    "distribution": component.distribution,
                    "kind": component.kind,
                    "name": component.name,
                    "reason": reason,
                }
            )
    broken += [
        {"distribution": distribution, "kind": "", "name": "", "reason": f"{distribution}: {problem}"}
        for distribution, problem in registry.problems
    ]
    clashes = [
        {"kind": offers[0].kind, "name": offers[0].name, "offers": [component.full_name for component in offers]}
        for offers in registry.clashes()
    ]
    return {"environment": environment, "packages": packages, "probed": probed, "clashes": clashes, "broken": broken}


def _probed(component: Component) -> dict[str, str]:
    """What a reader decodes with, or why it cannot be used: it is optional, so that this is no fault."""
    probe = getattr(component.load(), "probe", None)
    if probe is None:
        return {}
    try:
        return {component.name: str(probe())}
    except PluginError as error:
        return {component.name: f"not usable: {error}"}


def _try(component: Component) -> str | None:
    """The reason why a component is broken, or None."""
    try:
        from antmmf.bind import signature_model
        from antmmf.plugins import new_manager, register
        from antmmf.recipes import package_folder

        if component.kind == "recipes":
            return None if package_folder(component.value) else f"{component}: there is no such folder"
        loaded = component.load()
        if component.kind == "plugins":
            register(new_manager(), loaded, name=component.full_name)
        elif component.kind != "commands":
            signature_model(loaded)
    except PluginError as error:
        return str(error)
    except ComponentError as error:
        return f"{component}: {error}"
    return None


def _environment() -> dict[str, str]:
    found = {**versions(), "platform": platform.platform()}
    try:
        import torch

        from antmmf import torchvision_shim
        from antmmf.device import unseen_accelerator

        torchvision_shim.apply()
        seen = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        found["device"] = str(seen or "cpu")
        found["torchvision"] = torchvision_shim.describe()
        unseen = unseen_accelerator()
        if unseen:
            found["warning"] = f"{unseen} is here but torch cannot use it"
    except Exception as error:  # also what another package's unreadable metadata raises there
        found["broken"] = f"torch cannot be imported: {type(error).__name__}: {error}"
    return found


def _text(report: dict[str, Any]) -> str:
    lines = [bold("environment"), table(list(report["environment"].items())), bold("packages")]
    lines.append(
        table(
            [
                (name, entry["version"], f"{entry['components']} components", f"loaded in {entry['seconds']:.2f} s")
                for name, entry in sorted(report["packages"].items())
            ]
        )
    )
    if report["probed"]:
        lines += [bold("readers and what they decode with"), table(list(report["probed"].items()))]
    if report["clashes"]:
        lines.append(bold("names offered twice"))
        for clash in report["clashes"]:
            what = f"{singular(clash['kind'])} {clash['name']!r}"
            lines.append(
                f"  {what} is offered by {len(clash['offers'])} packages; write {' or '.join(clash['offers'])}"
            )
    if report["broken"]:
        lines += [bold(f"broken: {len(report['broken'])}"), *(f"  {entry['reason']}" for entry in report["broken"])]
    if not report["broken"] and not report["clashes"]:
        lines.append("everything loads")
    return "\n".join(lines)
