"""A disk that is full: a clear error, the checkpoint before it whole, and nothing half written."""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from antmmf.checkpoint import Checkpoints, load_checkpoint
from antmmf.contracts import RunState
from antmmf.errors import CheckpointError

SMALL, LARGE = torch.zeros(10_000), torch.zeros(400_000)  # 40 kB, 1.6 MB


@contextmanager
def limited_files() -> Iterator[None]:
    """No file may be larger than 1 MB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        reason = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        reason = str(error)
    if reason:
        pytest.skip(f"this user cannot mount a small disk: {reason}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def check_full_disk(
    folder: Path, full: Callable[[], AbstractContextManager[None]], *, reason: str, in_background: bool
) -> None:
    """Save a small checkpoint, then one that does not fit, then a small one again."""
    checkpoints = Checkpoints(folder)
    one = checkpoints.save(RunState(step=1), model={"x": SMALL})

    def save_large() -> None:
        checkpoints.save(RunState(step=2), model={"x": LARGE}, in_background=in_background)
        checkpoints.wait()

    with full(), pytest.raises(CheckpointError) as caught:
        save_large()
    numbers = r"it needs 1\.6 MB, [\d,]+\.\d MB are free; step_000001 is there to go on from"
    assert re.fullmatch(rf"{folder}/step_000002 could not be written: {reason}; {numbers}", str(caught.value))
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "step_000001"]
    assert Checkpoints(folder).newest_whole() == one
    assert torch.equal(load_checkpoint(one).model["x"], SMALL)
    two = checkpoints.save(RunState(step=2), model={"x": SMALL})
    assert Checkpoints(folder).newest_whole() == two


@pytest.mark.parametrize("in_background", [False, True])
def test_a_full_disk_is_an_error_that_leaves_the_checkpoint_before_it(small_disk: Path, in_background: bool) -> None:
    check_full_disk(small_disk / "c", nullcontext, reason="No space left on device", in_background=in_background)


@pytest.mark.parametrize("in_background", [False, True])
def test_a_limit_on_file_sizes_is_an_error_that_leaves_the_checkpoint_before_it(
    tmp_path: Path, in_background: bool
) -> None:
    check_full_disk(tmp_path / "c", limited_files, reason="File too large", in_background=in_background)


def test_remains_of_a_killed_save_make_room_for_the_next(small_disk: Path) -> None:
    remains = small_disk / ".tmp-step_000001"
    remains.mkdir()
    (remains / "model.safetensors").write_bytes(bytes(900_000))
    assert os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize < 200_000
    path = Checkpoints(small_disk).save(RunState(step=1), model={"x": torch.zeros(100_000)})
    assert Checkpoints(small_disk).newest_whole() == path
