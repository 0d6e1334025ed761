"""``antmmf version``: versions, read from package metadata."""

from __future__ import annotations

import platform

import click
import importlib_metadata as metadata

from antmmf.cli.options import json_option, print_json, table

PACKAGES = ("antmmf-core", "antmmf-vision", "antmmf-text", "antmmf-tasks", "torch")


def versions() -> dict[str, str]:
    """Version of each of our packages, torch and Python; ``not installed`` where it is missing."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "python": platform.python_version()}


@click.command("version")
@json_option
def command(as_json: bool) -> None:
    """Print the versions of AntMMF's packages, torch and Python."""
    found = versions()
    print_json(found) if as_json else click.echo(table(list(found.items()), indent=""))
