"""Annotation files, real ones and made up, and media that are as good as there."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from antmmf_tasks.datasets.media import MediaFinder
from antmmf_tasks.datasets.release import Release

sys.path.insert(0, str(Path(__file__).parent))

from real_annotations import ANNOTATIONS, Real

Put = Callable[..., Path]


@pytest.fixture
def real(tmp_path: Path) -> Real:
    """Makes a root of copies of real files: name there = name among the annotations."""
    if not ANNOTATIONS.is_dir():
        pytest.skip("the real annotations in ../shared/data are not here")

    def make(files: dict[str, str]) -> Path:
        for name, original in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ANNOTATIONS / original, tmp_path / name)
        return tmp_path

    return make


@pytest.fixture
def all_media(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name that stays inside the root is found."""
    monkeypatch.setattr(MediaFinder, "find", lambda _, name: f"/media/{name}")


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes a file: text, bytes, or anything else as JSON; a list of lines as jsonl."""

    def write(name: str, content: Any = b"media") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jsonl") and isinstance(content, list):
            content = "".join(json.dumps(line) + "\n" for line in content)
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return tmp_path

    return write


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[Release], tuple[list[Any], str]]:
    """Reads a data set: its records and what was said."""

    def read(dataset: Release) -> tuple[list[Any], str]:
        with caplog.at_level(logging.WARNING, logger="antmmf"):
            return list(dataset.records()), caplog.text

    return read
