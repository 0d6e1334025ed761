"""The other readers: pictures, decord, and the one that chooses."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from antmmf.errors import DataError, PluginError
from antmmf_vision.readers import decord as decord_module
from antmmf_vision.readers.auto import AutoReader
from antmmf_vision.readers.decord import DecordReader
from antmmf_vision.readers.image import ImageReader
from antmmf_vision.readers.pyav import PyAVReader
from PIL import Image

WriteClip = Callable[..., Path]
needs_decord = pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord is not installed")


def first(times: np.ndarray) -> np.ndarray:  # noqa: ARG001
    return np.zeros(1, dtype=np.int64)


def spread(times: np.ndarray) -> np.ndarray:
    return np.linspace(0, len(times) - 1, 5).round().astype(np.int64)


def test_a_picture_is_a_video_of_one_frame_at_time_zero(tmp_path: Path) -> None:
    seen: list[np.ndarray] = []

    def twice(times: np.ndarray) -> np.ndarray:
        seen.append(times)
        return np.array([0, 0])

    Image.new("RGB", (8, 6), (10, 20, 30)).save(tmp_path / "a.png")
    clip = ImageReader().read(tmp_path / "a.png", twice)
    assert seen[0].tolist() == [0.0]
    assert clip.num_total == 1
    np.testing.assert_array_equal(clip.frames, np.broadcast_to(np.uint8([10, 20, 30]), (2, 6, 8, 3)))


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate a quarter turn clockwise to show"
    picture = Image.new("RGB", (8, 4), "black")
    picture.paste((255, 255, 255), (0, 0, 4, 4))  # white on the left: on top when upright
    picture.save(tmp_path / "a.png", exif=exif)
    frame = ImageReader().read(tmp_path / "a.png", first).frames[0]
    assert frame.shape == (8, 4, 3)
    assert frame[:4].min() == 255
    assert frame[4:].max() == 0


def test_sixteen_bit_gray_is_scaled_not_cut(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 0x8000, dtype=np.uint16)).save(tmp_path / "a.png")
    assert ImageReader().read(tmp_path / "a.png", first).frames.tolist() == np.full((1, 2, 2, 3), 128).tolist()


def test_a_broken_picture_is_a_data_error(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:80])
    with pytest.raises(DataError, match=r"a\.png: .*\(reader image\)"):
        ImageReader().read(tmp_path / "a.png", first)


def test_auto_knows_a_picture_whatever_its_name(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), "red").save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.mp4")
    assert AutoReader().read(tmp_path / "a.mp4", first).num_total == 1


def test_auto_reads_a_video_as_pyav_does(write_clip: WriteClip) -> None:
    path = write_clip()
    np.testing.assert_array_equal(AutoReader().read(path, spread).frames, PyAVReader().read(path, spread).frames)


def test_auto_gives_the_error_of_pyav_when_nothing_can_read_a_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="reader pyav"):
        AutoReader().read(tmp_path / "a.mp4", first)


def test_auto_reports_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.mp4: No such file"):
        AutoReader().read(tmp_path / "a.mp4", first)


def test_without_decord_its_reader_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decord_module, "find_spec", lambda _: None)
    with pytest.raises(PluginError, match=r"decord is not installed: pip install decord .*use reader pyav"):
        DecordReader()


@needs_decord
def test_decord_refuses_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"a\.mp4.*\(reader decord\)"):
        DecordReader().read(tmp_path / "a.mp4", first)


@needs_decord
@pytest.mark.parametrize(
    "name",
    [
        "msrvtt/video7010.mp4",
        "vatex/G0mjFqytJt4_000152_000162.mp4",
        "webvid/6543449.mp4",
        "misc/realshort.mp4",
        "mmaction2/test.avi",  # B-frames, for which FFmpeg makes up times in the wrong order
    ],
)
def test_pyav_and_decord_agree_on_real_clips(real_data: Path, name: str) -> None:
    path = real_data / "videos" / name
    ours, theirs = PyAVReader().read(path, spread), DecordReader().read(path, spread)
    assert ours.num_total == theirs.num_total
    assert np.abs(ours.frames.astype(int) - theirs.frames).mean() <= 2
