"""The project's commands: ``nox -l`` lists them, ``nox -s NAME`` runs one. Versions come from constraints.txt."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from datetime import datetime, timezone
from pathlib import Path

import nox

nox.options.default_venv_backend = "virtualenv"  # comes with nox
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "lint", "types", "layers"]

CONSTRAINTS = "constraints.txt"
DISTRIBUTIONS = {
    "antmmf-core": "antmmf",
    "antmmf-vision": "antmmf_vision",
    "antmmf-text": "antmmf_text",
    "antmmf-tasks": "antmmf_tasks",
}
TEST_TOOLS = ("pytest", "hypothesis", "jsonschema")
PLUGINS = ("plugins/antmmf-example", "plugins/antmmf-wandb")
SOURCES = [f"{folder}/src" for folder in DISTRIBUTIONS]
PARTS = ["tests/core", "tests/vision", "tests/text", "tests/tasks"]


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, all or those named after --, in two processes."""
    _install_packages(session, *TEST_TOOLS, "pytest-xdist", "wandb", "lmdb", "HanTa", "jieba", "fsspec", "aiohttp")
    session.run("pytest", "-n", "2", "--dist", "loadfile", *session.posargs)


@nox.session
def quickstart(session: nox.Session) -> None:
    """Train and evaluate on the embedded clips, or on your own folder: nox -s quickstart -- PATH."""
    _install_packages(session)
    session.run("antmmf", "run", "quickstart", *_quickstart_arguments(session.posargs))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff; arguments after -- go to ruff check (--fix)."""
    _install(session, "ruff")
    session.run("ruff", "check", ".", *session.posargs)
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy --strict in the four source trees."""
    _install_packages(session, "mypy", "types-PyYAML")
    packages = [argument for name in DISTRIBUTIONS.values() for argument in ("-p", name)]
    session.run("mypy", "--strict", *packages, *session.posargs)


@nox.session
def layers(session: nox.Session) -> None:
    """Check with import-linter which package may import which."""
    _install(session, "import-linter")
    session.run("lint-imports", "--no-cache", *session.posargs, env={"PYTHONPATH": os.pathsep.join(SOURCES)})


@nox.session
def isolated(session: nox.Session) -> None:
    """Build wheels; install and use them in a fresh environment, as a user would."""
    wheels = _folder(session) / "wheels"
    for old in wheels.glob("*.whl"):
        old.unlink()
    folders = [f"./{name}" for name in (*DISTRIBUTIONS, *PLUGINS)]
    session.run("pip", "wheel", "-q", "-c", CONSTRAINTS, "--no-deps", "-w", str(wheels), *folders)
    session.run("python", "tests/integration/isolated.py", str(wheels), *session.posargs)


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the parts' tests with the lowest versions that the packages allow; with -- torch, torch's too."""
    with_torch = session.posargs[:1] == ["torch"]
    lowest = _folder(session) / "minimums.txt"
    lowest.write_text("".join(f"{line}\n" for line in _minimums(with_torch=with_torch)), encoding="utf-8")
    _install(session, "hatchling", "editables", *TEST_TOOLS)
    editable = [argument for name in DISTRIBUTIONS for argument in ("-e", f"./{name}")]
    session.install("--no-compile", "--no-build-isolation", "-c", str(lowest), *editable)
    session.run("pip", "list", "--format=freeze")
    session.run("pytest", *(session.posargs[with_torch:] or [part for part in PARTS if Path(part).is_dir()]))


@nox.session
def api(session: nox.Session) -> None:
    """Compare the public signatures with the snapshot; -- --write renews it."""
    _install(session, "griffe")
    session.run("python", "tests/architecture/api.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks, all or those named after --; each prints a table and one JSON line."""
    _install_packages(session)
    names = session.posargs or sorted(path.stem for path in Path("benchmarks").glob("*.py"))
    for name in names:
        session.run("python", f"benchmarks/{Path(name).stem}.py")


@nox.session
def soak(session: nox.Session) -> None:
    """Run what is too long for the suite and write docs/soak.json with commit and counts."""
    _install_packages(session, *TEST_TOOLS)
    report = _folder(session) / "soak.xml"
    session.run("pytest", "-m", "soak", f"--junitxml={report}", *session.posargs, success_codes=[0, 1, 5])
    summary = _soak_summary(report)
    if not summary["tests"]:
        session.warn("there are no soak tests; docs/soak.json was not written")
        return
    Path("docs/soak.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if summary["failed"]:
        session.error(f"{summary['failed']} of {summary['tests']} soak tests failed; see docs/soak.json")


@nox.session(venv_params=["--system-site-packages"])
def gpu(session: nox.Session) -> None:
    """Run the tests and the benchmark that need an accelerator, with the torch that this machine already has."""
    session.install("hatchling", "editables", *TEST_TOOLS)
    session.install("--no-build-isolation", *(argument for name in DISTRIBUTIONS for argument in ("-e", f"./{name}")))
    session.run("python", "-m", "pytest", "-m", "gpu", *session.posargs)
    session.run("python", "benchmarks/accelerator.py")


def _install(session: nox.Session, *what: str) -> None:
    """Install at the versions of constraints.txt; byte code is left to the first import, which is much less of it."""
    session.install("--no-compile", "-c", CONSTRAINTS, *what)


def _install_packages(session: nox.Session, *tools: str) -> None:
    """Install our packages editable, with everything they need, and ``tools``."""
    _install(session, "hatchling", "editables", *tools)
    editable = [argument for name in DISTRIBUTIONS for argument in ("-e", f"./{name}{_extras(name)}")]
    _install(session, "--no-build-isolation", *editable)


def _folder(session: nox.Session) -> Path:
    """A folder for the session's files; ``session.create_tmp`` would also move the tests' temporary files there."""
    folder = Path(session.virtualenv.location) / "files"
    folder.mkdir(exist_ok=True)
    return folder


def _extras(name: str) -> str:
    return "[tensorboard]" if name == "antmmf-core" else ""


def _quickstart_arguments(posargs: list[str]) -> list[str]:
    """A leading PATH becomes ``--data PATH``; everything else is passed on as it is."""
    first = posargs[0] if posargs else ""
    is_path = bool(first) and not first.startswith("-") and "=" not in first
    if is_path and (Path(first).exists() or os.sep in first):
        return ["--data", *posargs]
    return posargs


def _minimums(*, with_torch: bool) -> list[str]:
    """``name==lowest`` for every direct requirement; torch and torchvision belong together and keep their pins."""
    lowest: dict[str, str] = {}
    for name in DISTRIBUTIONS:
        project = nox.project.load_toml(f"{name}/pyproject.toml")["project"]
        for requirement in project["dependencies"]:
            found = re.match(r"([\w.-]+)(?:\[.*\])?\s*>=\s*([\w.]+)", requirement)
            if found and found[1] not in DISTRIBUTIONS:
                lowest[found[1]] = found[2]
    pinned = [] if with_torch else ["torch", "torchvision"]
    pins = [line for line in Path(CONSTRAINTS).read_text().splitlines() if line.partition("==")[0] in pinned]
    return [*pins, *(f"{name}=={version}" for name, version in sorted(lowest.items()) if name not in pinned)]


def _soak_summary(report: Path) -> dict[str, object]:
    """Commit, counts and seconds of a junit report."""
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    counts = {"tests": 0, "failed": 0, "skipped": 0, "seconds": 0.0}
    for suite in suites:
        counts["tests"] += int(suite.get("tests", 0))
        counts["failed"] += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        counts["skipped"] += int(suite.get("skipped", 0))
        counts["seconds"] += float(suite.get("time", 0))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    dirty = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout != ""
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"commit": commit, "uncommitted_changes": dirty, "when": when, "python": sys.version.split()[0], **counts}
