"""What several commands share: options about plugins, JSON output, bold text that respects NO_COLOR."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from antmmf.registry import Registry

Command = TypeVar("Command", bound=Callable[..., Any])

OVERRIDES = {"ignore_unknown_options": True, "allow_interspersed_args": True}


def plugin_options(command: Command) -> Command:
    """``--without-plugin NAME`` and ``--plugin FILE.py``; both may be repeated."""
    command = click.option(
        "--without-plugin", multiple=True, metavar="NAME", help="Act as if NAME were not installed."
    )(command)
    return click.option(
        "--plugin", "plugin_files", multiple=True, type=click.Path(path_type=Path), metavar="FILE.py",
        help="Use components of a Python file that is not packaged yet.",
    )(command)  # fmt: skip


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def make_registry(without_plugin: tuple[str, ...], plugin_files: tuple[Path, ...]) -> Registry:
    """The registry that a command's options ask for."""
    return Registry(disabled=without_plugin, files=plugin_files)


def print_json(value: object) -> None:
    """Print a value as JSON, one document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def bold(text: str) -> str:
    """``text`` in bold on a terminal, plain elsewhere and under NO_COLOR."""
    return click.style(text, bold=True) if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


def table(rows: Sequence[Sequence[str]], *, indent: str = "  ") -> str:
    """Columns as wide as their widest cell; the last one is not padded."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    lines = (
        indent + "  ".join([*(cell.ljust(w) for cell, w in zip(row[:-1], widths, strict=False)), row[-1]])
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
