"""plugins/antmmf-example works in this tree; ``nox -s isolated`` proves the same of its wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.testing import fake_distribution, on_path

EXAMPLE = Path(__file__).parents[2] / "plugins" / "antmmf-example"


def entry_points() -> dict[str, dict[str, str]]:
    """The entry points of the example's pyproject.toml (Python 3.10 reads no TOML)."""
    groups: dict[str, dict[str, str]] = {}
    group = ""
    for line in (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        heading = re.match(r'\[(project\.entry-points\."(.+)")?', line)
        if heading:
            group = heading[2] or ""
        elif group and "=" in line:
            name, value = (part.strip().strip('"') for part in line.split("="))
            groups.setdefault(group, {})[name] = value
    return groups


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[Path]:
    fake_distribution(tmp_path, name="antmmf-example", version="0.1.0", entry_points=entry_points())
    with on_path(EXAMPLE / "src"), on_path(tmp_path):
        yield tmp_path


@pytest.mark.usefixtures("metadata")
def test_its_encoder_can_be_named_in_the_quickstart() -> None:
    plan = plan_run("quickstart", ["model_attributes.vision_encoder=mean_colour"], registry=Registry())
    assert plan.encoders["vision_encoder"].full_name == "antmmf-example:mean_colour"
    assert plan.hooks.has_plugin("antmmf-example:disk_space")
    assert plan.broken == ()


@pytest.mark.usefixtures("metadata")
def test_its_readme_names_what_it_offers() -> None:
    readme = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    offered = {name for names in entry_points().values() for name in names}
    assert set(re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE)) == offered


def test_it_uses_the_public_api_only() -> None:
    for path in (EXAMPLE / "src").rglob("*.py"):
        assert not re.findall(r"^\s*(?:from|import) antmmf[._](?!example)", path.read_text(), re.MULTILINE), path


def test_its_own_tests_pass(metadata: Path) -> None:
    paths = [str(EXAMPLE / "src"), str(metadata), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, cwd=metadata, env=env, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout
