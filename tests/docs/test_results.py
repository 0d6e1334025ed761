"""The commands of docs/results.md are of recipes and scripts that exist, and their settings are sound."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from antmmf.plan import plan_run
from antmmf.registry import Registry

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
NAMES = dict(re.findall(r"`([MPW])=('[^'`]+'|[^`' ]+)`", TEXT))
COMMANDS = sorted(set(re.findall(r"\bantmmf run ([^`\n]+)", TEXT)))


def test_every_script_that_is_named_exists() -> None:
    named = set(re.findall(r"\bsh (tests/scripts/\S+\.sh)", TEXT))
    assert len(named) > 15
    assert all((ROOT / script).is_file() for script in named)


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith("finetune/RECIPE")])
def test_a_command_can_be_planned(command: str) -> None:
    for name, value in NAMES.items():
        command = command.replace(f'"${name}"', value).replace(f"${name}", value)
    recipe, *arguments = shlex.split(command)
    plan_run(recipe, arguments, registry=Registry())
