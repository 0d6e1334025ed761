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
from antmmf.registry import KINDS, Component, Registry


@click.command("doctor")
@json_option
@plugin_options
def command(as_json: bool, without_plugin: tuple[str, ...], plugin_files: tuple[Path, ...]) -> None:
    """Load every component of every package; exit 1 when one is broken."""
    registry = make_registry(without_plugin, plugin_files)
    report = examine(registry)
    print_json(report) if as_json else click.echo(_text(report))
    if report["broken"]:
        raise SystemExit(1)


def examine(registry: Registry) -> dict[str, Any]:
    """What is installed, what loads in how many seconds, what is broken and why, which names clash."""
    environment = _environment()  # imports torch first, so that its time is not charged to a plugin
    packages: dict[str, dict[str, Any]] = {}
    broken: list[dict[str, str]] = []
    for component in (component for kind in KINDS for component in registry.components(kind)):
        package = packages.setdefault(
            component.distribution, {"version": component.version, "components": 0, "seconds": 0.0}
        )
        package["components"] += 1
        started = time.monotonic()
        reason = _try(component)
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
    for distribution, group in registry.unknown_groups:
        broken.append(
            {
                "distribution": distribution,
                "kind": group,
                "name": "",
                "reason": f"{distribution}: {group} is not a group of ours",
            }
        )
    clashes = [[component.full_name for component in offers] for offers in registry.clashes()]
    return {"environment": environment, "packages": packages, "clashes": clashes, "broken": broken}


def _try(component: Component) -> str | None:
    """The reason why a component is broken, or None."""
    from antmmf.bind import signature_model
    from antmmf.plugins import new_manager, register
    from antmmf.recipes import package_folder

    try:
        if component.kind == "recipes":
            return None if package_folder(component.value) else f"{component}: there is no such folder"
        loaded = component.load()
        if component.kind == "plugins":
            register(new_manager(), loaded, name=f"{component.distribution} {component.version}")
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
    except ImportError as error:
        found["torch"] = f"cannot be imported: {error}"
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
    if report["clashes"]:
        lines += [
            bold("names offered twice (write distribution:name)"),
            *(f"  {' | '.join(c)}" for c in report["clashes"]),
        ]
    if report["broken"]:
        lines += [bold(f"broken: {len(report['broken'])}"), *(f"  {entry['reason']}" for entry in report["broken"])]
    else:
        lines.append("everything loads")
    return "\n".join(lines)
