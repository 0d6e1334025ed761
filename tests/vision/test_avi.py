"""AVI stores no times of presentation: MPEG-4's pictures tell them, and where they do not, all is decoded."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from antmmf.contracts import Source
from antmmf_vision.readers.mpeg4 import shown_at
from antmmf_vision.readers.pyav import PyAVReader
from antmmf_vision.readers.video import opened

FIRST, LATER, BETWEEN = 0, 1, 2  # kinds of pictures: their two bits


def packet(kind: int) -> bytes:
    return b"\x00\x00\x01\xb6" + bytes([kind << 6]) + bytes(40)


def avi(path: Path, *, between: int, gap: int) -> Path:
    """30 frames of noise that gets brighter, ``between`` of them between any two that are needed."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(
            "mpeg4", rate=10, options={"bf": str(between), "g": str(gap), "qmin": "1", "qmax": "3"}
        )
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for k in range(30):
            pixels = rng.integers(5 * k, 5 * k + 40, (64, 96, 3)).astype(np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return path


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def test_a_picture_between_two_is_shown_before_the_second() -> None:
    kinds = [FIRST, LATER, BETWEEN, BETWEEN, LATER, LATER, BETWEEN, FIRST]
    assert shown_at(map(packet, kinds)) == [0, 3, 1, 2, 4, 6, 5, 7]


@pytest.mark.parametrize(
    "packets",
    [
        [packet(FIRST), packet(LATER) + packet(BETWEEN)],  # as DivX packs them
        [packet(FIRST), packet(BETWEEN), packet(LATER)],
        [packet(FIRST), packet(LATER)[:8]],  # as the one before
        [packet(FIRST), bytes(60)],
        [],
    ],
)
def test_packets_that_do_not_tell_are_not_believed(packets: list[bytes]) -> None:
    assert shown_at(packets) is None


@pytest.mark.parametrize("between", [1, 2])
def test_each_frame_alone_is_that_of_a_full_decode(tmp_path: Path, between: int) -> None:
    path = avi(tmp_path / "clip.avi", between=between, gap=9)
    full = decoded(path)
    assert len(full) == 30
    for index in range(30):
        alone = PyAVReader().read(Source(path), lambda _, index=index: np.array([index]))
        np.testing.assert_array_equal(alone.frames[0], full[index])
        assert alone.num_total == 30


def test_decoding_begins_at_key_frames(tmp_path: Path) -> None:
    with opened(Source(avi(tmp_path / "clip.avi", between=2, gap=9)), reader="pyav") as video:
        assert video.timed
        assert not video.stores_times
        assert len(video.keys) > 2
        np.testing.assert_allclose(video.times(), np.arange(30) / 10)


def test_two_pictures_in_a_packet_are_taken_apart(real_data: Path) -> None:
    path = real_data / "videos/mmaction2/test.avi"
    with opened(Source(path), reader="pyav") as video:
        assert video.timed
    full = decoded(path)
    picked = np.array([0, 1, 2, 50, 51, 52, 53, 162, 163])
    np.testing.assert_array_equal(PyAVReader().read(Source(path), lambda _: picked).frames, full[picked])
