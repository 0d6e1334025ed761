"""Trained once for all tests of inference."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from antmmf.run import Run

sys.path.insert(0, str(Path(__file__).parent))
from inferring import QUESTIONS, execute


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of retrieval, whose model in memory is that of its best checkpoint."""
    return execute(tmp_path_factory.mktemp("inference") / "retrieval")


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of question answering."""
    return execute(tmp_path_factory.mktemp("inference") / "vqa", *QUESTIONS)
