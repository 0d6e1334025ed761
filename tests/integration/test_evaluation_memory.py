"""What an evaluation holds in memory beside the model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from evaluation_memory import DIM, FRAMES, SIDE, VIDEOS

SCRIPT = Path(__file__).with_name("evaluation_memory.py")


@pytest.mark.soak
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="only Linux counts the most that was held anew")
def test_a_thousand_videos_of_sixteen_frames_are_evaluated_and_ranked_again_within_one_gigabyte(tmp_path: Path) -> None:
    """Their frames are 2.4 GB as bytes and 9.6 GB as numbers; the cross encoder's tokens of them all are 49 MB."""
    assert (VIDEOS, FRAMES, VIDEOS * FRAMES * 3 * SIDE**2 * 4) == (1000, 16, 9_633_792_000)
    done = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tokens = VIDEOS * FRAMES * DIM * 4 >> 20
    assert tokens < int(done.stdout.splitlines()[-1]) <= 1024
