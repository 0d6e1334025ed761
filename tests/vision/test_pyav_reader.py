from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from antmmf.contracts import Source
from antmmf.errors import ComponentError, DataError
from antmmf_vision.readers.pyav import PyAVReader

WriteClip = Callable[..., Path]


def levels(frames: np.ndarray) -> list[int]:
    return [round(float(frame.mean()) / 8) for frame in frames]


def every(times: np.ndarray) -> np.ndarray:
    return np.arange(len(times))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi", "clip.h264"])
def test_all_frames_come_in_the_order_in_which_they_are_shown(write_clip: WriteClip, name: str) -> None:
    clip = PyAVReader().read(Source(write_clip(name)), every)
    assert levels(clip.frames) == list(range(24))


def test_times_start_at_zero_and_are_seconds(write_clip: WriteClip) -> None:
    seen: list[np.ndarray] = []

    def pick(times: np.ndarray) -> np.ndarray:
        seen.append(times)
        return np.array([0])

    PyAVReader().read(Source(write_clip(fps=8, count=24)), pick)
    np.testing.assert_allclose(seen[0], np.arange(24) / 8, atol=1e-6)


@pytest.mark.parametrize("picked", [[0], [23], [5, 6, 20], [20, 3, 3], [7, 8, 9, 23]])
def test_picked_frames_are_those_of_a_full_decode(write_clip: WriteClip, picked: list[int]) -> None:
    path = write_clip()
    full = PyAVReader().read(Source(path), every).frames
    np.testing.assert_array_equal(PyAVReader().read(Source(path), lambda _: np.array(picked)).frames, full[picked])


def test_num_total_counts_all_frames(write_clip: WriteClip) -> None:
    assert PyAVReader().read(Source(write_clip()), lambda _: np.array([3])).num_total == 24


def test_frames_are_rgb_bytes(write_clip: WriteClip) -> None:
    frames = PyAVReader().read(Source(write_clip()), lambda _: np.array([3, 4])).frames
    assert frames.dtype == np.uint8
    assert frames.shape == (2, 48, 64, 3)


def test_a_file_that_is_no_video_is_a_data_error_with_path_and_reader(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"clip\.mp4: .*\(reader pyav\)"):
        PyAVReader().read(Source(path), every)


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        PyAVReader().read(Source(tmp_path / "none.mp4"), every)


def test_picking_a_frame_that_is_not_there_is_a_component_error(write_clip: WriteClip) -> None:
    with pytest.raises(ComponentError, match="must choose frames 0 to 23, chose 24"):
        PyAVReader().read(Source(write_clip()), lambda _: np.array([24]))


def test_a_rotated_video_comes_upright(real_data: Path) -> None:
    rotated = PyAVReader().read(Source(real_data / "odd/made/rot90_metadata.mp4"), lambda _: np.array([0])).frames
    assert rotated.shape == (1, 320, 240, 3)  # stored as 320 x 240


def test_frames_hidden_by_an_edit_list_do_not_count(real_data: Path) -> None:
    assert PyAVReader().read(Source(real_data / "odd/real/clip_vid1_editlist.mp4"), every).num_total == 56


def test_a_damaged_frame_is_replaced_by_its_neighbour(real_data: Path) -> None:
    clip = PyAVReader().read(Source(real_data / "odd/made/bitflips_in_mdat.mp4"), every)
    assert len(clip.frames) == clip.num_total == 390


@pytest.mark.parametrize("name", ["odd/made/bitflips_in_mdat.mp4", "odd/real/MOV00006.3gp", "videos/asl/bird.mkv"])
def test_a_frame_is_the_same_whatever_else_is_picked(real_data: Path, name: str) -> None:
    """The second file marks frames as key frames that are none; in the first, a key frame is damaged."""
    full = PyAVReader().read(Source(real_data / name), every).frames
    for index in (len(full) // 3, len(full) // 2, len(full) - 1):
        alone = PyAVReader().read(Source(real_data / name), lambda _, index=index: np.array([index])).frames
        np.testing.assert_array_equal(alone[0], full[index])


def test_audio_alone_is_a_data_error(real_data: Path) -> None:
    with pytest.raises(DataError, match="no video stream"):
        PyAVReader().read(Source(real_data / "odd/made/audio_only.mp4"), every)
