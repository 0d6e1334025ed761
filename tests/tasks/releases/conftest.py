"""Real annotation files, and media that are as good as there."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from antmmf_tasks.datasets.media import MediaFinder

sys.path.insert(0, str(Path(__file__).parent))

from real_annotations import ANNOTATIONS, Real


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
