"""Tiny clips made on the spot, whose every frame says which one it is."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from antmmf import torchvision_shim

torchvision_shim.apply()
torch.set_num_threads(1)

REAL = Path(__file__).parents[3] / "shared" / "data"


def brightness(frame: np.ndarray) -> int:
    """The number that ``write_clip`` wrote into a frame: its mean level in steps of 8."""
    return round(float(frame.mean()) / 8)


@pytest.fixture
def write_clip(tmp_path: Path) -> Callable[..., Path]:
    """Write a video whose k-th frame has the gray level 8 k; by default with B-frames and a key frame every 8."""

    def write(name: str = "clip.mp4", *, count: int = 24, fps: int = 8, size: tuple[int, int] = (64, 48)) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            codec = "mpeg4" if path.suffix == ".avi" else "libx264"
            options = (
                {"crf": "1", "bf": "2"} if codec == "libx264" else {"bf": "2", "qmin": "1", "qmax": "1", "mbd": "rd"}
            )
            stream = container.add_stream(codec, rate=fps, options=options)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.codec_context.gop_size = 8
            stream.time_base = Fraction(1, fps)
            for k in range(count):
                level = np.full((size[1], size[0], 3), k * 8, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(level, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clips; the test is skipped where it is missing."""
    if not REAL.is_dir():
        pytest.skip(f"the real clips are not here: {REAL} is missing")
    return REAL
