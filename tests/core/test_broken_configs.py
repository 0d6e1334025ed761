"""Every file in ``broken/`` is one edit away from a valid config, and its one mistake is named with its line."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from antmmf.check import check_run
from antmmf.errors import ConfigError, Problem
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.testing import fake_distribution, on_path

FOLDER = Path(__file__).parent / "broken"
VALID = sorted(FOLDER.glob("_valid*.yml"))
BROKEN = sorted(FOLDER.glob("[!_]*.yml"))
READER = "class Reader:\n    def read(self, source, pick): ..."


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """All that is installed, and a package that also has a reader called ``auto``."""
    points = {"antmmf.readers": {"auto": "acme_reader:Reader"}}
    folder = tmp_path_factory.mktemp("acme")
    with on_path(fake_distribution(folder, name="acme", entry_points=points, modules={"acme_reader": READER})):
        yield Registry()


@pytest.fixture(autouse=True)
def _in_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.chdir(FOLDER)
    monkeypatch.delenv("ANTMMF_TEST_NOT_SET", raising=False)


def expectation(path: Path) -> tuple[str, str]:
    """The text and the place that the first line of a broken config expects."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    match = re.fullmatch(r"# expect: (.+) @ line (\d+)", first)
    assert match, f"{path.name} must begin with '# expect: <text> @ line N'"
    return match[1], f"{path.name}:{match[2]}"


def problems_of(path: Path, registry: Registry) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        check_run(plan_run(path.name, registry=registry))
    return caught.value.problems


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_the_mistake_is_the_only_problem_and_is_named_with_its_line(path: Path, registry: Registry) -> None:
    text, where = expectation(path)
    (problem,) = problems_of(path, registry)
    assert text in problem.message
    assert problem.where == where
    assert "\n" not in str(problem)


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_the_unedited_config_is_sound(path: Path, registry: Registry) -> None:
    assert check_run(plan_run(path.name, registry=registry))


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_broken_config_differs_from_a_valid_one_in_one_line(path: Path) -> None:
    edited = path.read_text(encoding="utf-8").splitlines()[1:]
    bases = [base.read_text(encoding="utf-8").splitlines()[1:] for base in VALID]
    numbers = [sum(a != b for a, b in zip(edited, base, strict=True)) for base in bases if len(base) == len(edited)]
    assert 1 in numbers


def test_there_are_many_mistakes_and_no_two_messages_are_equal() -> None:
    texts = [expectation(path)[0] for path in BROKEN]
    assert len(texts) >= 40
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", ["unknown_key", "tab", "dims_differ"])
def test_the_command_line_prints_one_line_and_exits_with_2(name: str) -> None:
    text, where = expectation(FOLDER / f"{name}.yml")
    command = [sys.executable, "-m", "antmmf", "check", f"{name}.yml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"antmmf: {where}: .*{re.escape(text)}.*\n", done.stderr)
