"""Files that chance has damaged: each gives frames or a reason, and nothing of it stays behind."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from antmmf.contracts import Source
from antmmf.data.reader_process import ReaderProcess
from antmmf.errors import REASONS, DataError
from antmmf_vision.readers.auto import AutoReader

WriteClip = Callable[..., Path]
SECONDS = 20.0
MEGABYTE = 1 << 20


def mutated(originals: list[bytes], seed: int) -> bytes:
    """One of the files with some bytes changed, its end cut off, a hole in it, or another one behind it."""
    rng = np.random.default_rng(seed)
    content = bytearray(originals[int(rng.integers(len(originals)))])
    kind = seed % 4
    if kind == 0:
        for place in rng.integers(0, len(content), int(rng.integers(1, 200))):
            content[place] ^= int(rng.integers(1, 256))
    elif kind == 1:
        del content[int(rng.integers(1, len(content))) :]
    elif kind == 2:
        start = int(rng.integers(0, len(content) - 1))
        content[start : start + int(rng.integers(1, 4096))] = bytes(int(rng.integers(0, 4096)))
    else:
        other = originals[int(rng.integers(len(originals)))]
        cut = int(rng.integers(1, len(content)))
        content = content[:cut] + bytearray(other) + content[cut:]
    return bytes(content)


@pytest.fixture
def originals(write_clip: WriteClip, real_data: Path) -> list[bytes]:
    """Files of several formats: made ones, and real ones that are small."""
    made = [
        write_clip(f"a{number}{suffix}", count=24) for number, suffix in enumerate((".mp4", ".mkv", ".avi", ".mov"))
    ]
    real = [path for path in sorted((real_data / "odd/made").iterdir()) if 0 < path.stat().st_size < 100_000]
    pictures = sorted((real_data / "images/odd/made").iterdir())[:6]
    return [path.read_bytes() for path in (*made, *real, *pictures) if path.stat().st_size > 100]


def read_all(originals: list[bytes], seeds: range, folder: Path) -> Counter[str]:
    """The outcome of each mutated file; a hang or a crash of the decoder is an outcome too, one of the test is not."""
    reader = ReaderProcess(AutoReader(), timeout=SECONDS)
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        path = folder / f"{seed}.mp4"
        path.write_bytes(mutated(originals, seed))
        try:
            clip = reader.read(Source(path), lambda times: np.linspace(0, len(times) - 1, 8).astype(int))
        except DataError as error:
            outcomes[error.reason if str(path) in str(error) else "nameless"] += 1
        else:
            assert clip.frames.shape[0] == 8
            assert clip.frames.dtype == np.uint8
            outcomes["frames"] += 1
        path.unlink()
    reader.close()
    return outcomes


def children() -> set[int]:
    """The readers' processes that this one has started and that live."""
    lists = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    pids = [int(pid) for line in lists for pid in line.split()]
    return {pid for pid in pids if b"reader_process" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def check(originals: list[bytes], seeds: range, folder: Path) -> None:
    before = children()
    outcomes = read_all(originals, seeds, folder)
    assert outcomes.total() == len(seeds)
    assert outcomes.keys() <= {"frames", *REASONS}
    assert outcomes["frames"] > 0
    assert len(outcomes) > 2, outcomes
    assert outcomes["defect"] == 0
    time.sleep(0.2)
    assert children() <= before


def test_40_mutated_files_give_frames_or_a_reason(originals: list[bytes], tmp_path: Path) -> None:
    check(originals, range(40), tmp_path)


@pytest.mark.soak
def test_500_mutated_files_give_frames_or_a_reason(originals: list[bytes], tmp_path: Path) -> None:
    check(originals, range(1000, 1500), tmp_path)


# --- memory -----------------------------------------------------------------------------------------------------------


def growth(clips: list[Path], count: int) -> float:
    """Megabytes that the reader's process and this one have grown after a tenth of ``count`` clips were read."""
    reader = ReaderProcess(AutoReader(), timeout=600)  # what hangs is not the question, and a busy machine is slow
    first = 0.0
    for number in range(count):
        path = clips[number % len(clips)]
        reader.read(Source(path), lambda times: np.linspace(0, len(times) - 1, 8).astype(int))
        if number == count // 10:
            assert reader._child is not None
            pid = reader._child._process.pid
            first = resident(pid) + resident(os.getpid())
    assert reader._child is not None
    assert reader._child._process.pid == pid, "its process was replaced"
    last = resident(pid) + resident(os.getpid())
    reader.close()
    return last - first


def resident(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / MEGABYTE


@pytest.fixture
def small_clips(real_data: Path) -> list[Path]:
    every = sorted(path for path in (real_data / "videos").rglob("*") if path.suffix in {".mp4", ".avi", ".mkv"})
    return [path for path in every if path.stat().st_size < 500_000][:24]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="only Linux tells what a process holds")
def test_memory_stays_flat_over_200_clips(small_clips: list[Path]) -> None:
    assert growth(small_clips, 200) < 50


@pytest.mark.soak
def test_memory_stays_flat_over_10000_clips(small_clips: list[Path]) -> None:
    assert growth(small_clips[:8], 10_000) < 50
