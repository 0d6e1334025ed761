"""Puts this folder on the path, and offers the command line inside this process and outside of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@dataclass(frozen=True)
class Done:
    """What a command line left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def antmmf(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run ``antmmf ARGUMENTS`` in this process."""
    from antmmf.cli.main import main

    def run(*arguments: str) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capfd.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture(scope="session")
def antmmf_process() -> Callable[..., Done]:
    """Run ``python -m antmmf ARGUMENTS`` with ``folder`` on PYTHONPATH."""

    def run(*arguments: str, folder: Path | None = None, **environment: str) -> Done:
        paths = [str(folder)] if folder else []
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]), **environment}
        command = [sys.executable, "-m", "antmmf", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    return run
