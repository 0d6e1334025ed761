"""The other readers: pictures, decord, and the one that chooses."""

from __future__ import annotations

import importlib.util
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from antmmf.contracts import Clip, Source
from antmmf.errors import DataError, PluginError
from antmmf_vision.readers import auto as auto_module
from antmmf_vision.readers import decord as decord_module
from antmmf_vision.readers import pyav as pyav_module
from antmmf_vision.readers import video as video_module
from antmmf_vision.readers.auto import AutoReader, decoders_for
from antmmf_vision.readers.decord import DecordReader
from antmmf_vision.readers.frames import FramesReader
from antmmf_vision.readers.image import ImageReader
from antmmf_vision.readers.lmdb import LmdbReader
from antmmf_vision.readers.pyav import PyAVReader
from antmmf_vision.readers.video import Video, opened
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
    clip = ImageReader().read(Source(tmp_path / "a.png"), twice)
    assert seen[0].tolist() == [0.0]
    assert clip.num_total == 1
    np.testing.assert_array_equal(clip.frames, np.broadcast_to(np.uint8([10, 20, 30]), (2, 6, 8, 3)))


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate a quarter turn clockwise to show"
    picture = Image.new("RGB", (8, 4), "black")
    picture.paste((255, 255, 255), (0, 0, 4, 4))  # white on the left: on top when upright
    picture.save(tmp_path / "a.png", exif=exif)
    frame = ImageReader().read(Source(tmp_path / "a.png"), first).frames[0]
    assert frame.shape == (8, 4, 3)
    assert frame[:4].min() == 255
    assert frame[4:].max() == 0


def test_sixteen_bit_gray_is_scaled_not_cut(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 0x8000, dtype=np.uint16)).save(tmp_path / "a.png")
    assert ImageReader().read(Source(tmp_path / "a.png"), first).frames.tolist() == np.full((1, 2, 2, 3), 128).tolist()


def test_a_broken_picture_is_a_data_error(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:80])
    with pytest.raises(DataError, match=r"a\.png: .*\(reader image\)"):
        ImageReader().read(Source(tmp_path / "a.png"), first)


def test_auto_knows_a_picture_whatever_its_name(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), "red").save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.mp4")
    assert AutoReader().read(Source(tmp_path / "a.mp4"), first).num_total == 1


def test_auto_reads_a_video_as_pyav_does(write_clip: WriteClip) -> None:
    path = write_clip()
    np.testing.assert_array_equal(
        AutoReader().read(Source(path), spread).frames, PyAVReader().read(Source(path), spread).frames
    )


def test_auto_says_that_a_file_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="reader auto"):
        AutoReader().read(Source(tmp_path / "a.mp4"), first)


def test_auto_reports_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.mp4: No such file"):
        AutoReader().read(Source(tmp_path / "a.mp4"), first)


def test_without_decord_its_reader_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decord_module, "find_spec", lambda _: None)
    with pytest.raises(PluginError, match=r"decord is not installed: pip install decord .*use reader pyav"):
        DecordReader()


@needs_decord
def test_decord_refuses_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"a\.mp4.*\(reader decord\)"):
        DecordReader().read(Source(tmp_path / "a.mp4"), first)


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
    ours, theirs = PyAVReader().read(Source(path), spread), DecordReader().read(Source(path), spread)
    assert ours.num_total == theirs.num_total
    assert np.abs(ours.frames.astype(int) - theirs.frames).mean() <= 2


# --- folders of frames, databases, parts of files -------------------------------------------------------------------


def write_frames(folder: Path, *, count: int = 12, pattern: str = "{folder}_frame{k}.png") -> Path:
    folder.mkdir()
    for k in range(count):
        Image.new("RGB", (8, 6), (k * 10, 0, 0)).save(folder / pattern.format(folder=folder.name, k=k))
    return folder


def reds(clip: Clip) -> list[int]:
    return [int(frame[0, 0, 0]) // 10 for frame in clip.frames]


def test_a_folder_of_frames_is_a_video_in_the_order_of_its_numbers_and_in_rgb(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip7")  # frame10 comes after frame9, not after frame1
    (folder / "notes.txt").write_text("not a frame")
    assert reds(FramesReader().read(Source(folder), lambda times: np.arange(len(times)))) == list(range(12))
    assert reds(AutoReader().read(Source(folder), lambda _: np.array([11, 2, 11]))) == [11, 2, 11]


def test_a_folder_of_frames_has_times(tmp_path: Path) -> None:
    def between(times: np.ndarray) -> np.ndarray:
        return np.flatnonzero((times >= 1) & (times < 2))

    assert reds(FramesReader(fps=4).read(Source(write_frames(tmp_path / "a")), between)) == [4, 5, 6, 7]


def test_a_folder_without_frames_or_with_mixed_sizes_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture in this folder") as caught:
        AutoReader().read(Source(tmp_path / "empty"), first)
    assert caught.value.reason == "empty"
    folder = write_frames(tmp_path / "a")
    Image.new("RGB", (4, 4)).save(folder / "a_frame3.png")
    with pytest.raises(DataError, match="differ in size"):
        FramesReader().read(Source(folder), lambda times: np.arange(len(times)))


@pytest.mark.parametrize("kind", ["part", "content"])
@pytest.mark.parametrize("make", [AutoReader, PyAVReader, pytest.param(DecordReader, marks=needs_decord)])
def test_a_part_of_a_file_is_read_like_the_whole(
    write_clip: WriteClip, tmp_path: Path, kind: str, make: type[AutoReader]
) -> None:
    path = write_clip()
    content = path.read_bytes()
    (tmp_path / "shard").write_bytes(b"x" * 700 + content + b"y" * 500)
    part = Source(tmp_path / "shard", name="shard:clip.mp4", offset=700, size=len(content))
    source = part if kind == "part" else Source(tmp_path / "none", name="clip.mp4", content=content)
    np.testing.assert_array_equal(make().read(source, spread).frames, make().read(Source(path), spread).frames)


def test_a_reader_that_knows_only_files_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shard:clip\.mp4: this reader needs a file of its own"):
        os.fspath(Source(tmp_path / "shard", name="shard:clip.mp4", size=4))


@pytest.mark.parametrize("kind", ["lmdb", "auto"])
def test_videos_and_pictures_come_out_of_a_database(kind: str, write_clip: WriteClip, tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    path = write_clip()
    Image.new("RGB", (8, 6), "red").save(tmp_path / "a.png")
    with lmdb.open(str(tmp_path / "clips.lmdb"), map_size=1 << 24) as database, database.begin(write=True) as writing:
        writing.put(b"train/clip.mp4", path.read_bytes())
        writing.put("图.png".encode(), (tmp_path / "a.png").read_bytes())
    reader = pickle.loads(pickle.dumps(LmdbReader() if kind == "lmdb" else AutoReader()))
    video = Source(tmp_path / "clips.lmdb/train/clip.mp4")
    np.testing.assert_array_equal(reader.read(video, spread).frames, PyAVReader().read(Source(path), spread).frames)
    assert reader.read(Source(tmp_path / "clips.lmdb/图.png"), first).frames.shape == (1, 6, 8, 3)
    assert reader.facts(video)["codec"] == "h264"
    with pytest.raises(DataError, match="has no key 'none'") as caught:
        reader.read(Source(tmp_path / "clips.lmdb/none"), first)
    assert caught.value.reason == "missing"
    with pytest.raises(DataError, match="no database"):
        LmdbReader().read(Source(tmp_path / "a.png"), first)


# --- auto -------------------------------------------------------------------------------------------------------------


def test_auto_goes_on_to_the_next_decoder_when_one_fails(
    write_clip: WriteClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fail(video: Video, indices: np.ndarray) -> np.ndarray:  # noqa: ARG001
        asked.append(video.reader)
        raise video.fault("cannot")

    def gray(video: Video, indices: np.ndarray) -> np.ndarray:
        asked.append(video.reader)
        return np.zeros((len(indices), 2, 2, 3), np.uint8)

    monkeypatch.setattr(pyav_module, "decode", lambda video, indices, _: fail(video, indices))
    monkeypatch.setattr(auto_module, "_DECODERS", {"torchcodec": gray})
    reader = AutoReader()
    reader._installed = ("pyav", "torchcodec")
    assert reader.read(Source(write_clip()), spread).frames.shape == (5, 2, 2, 3)
    assert asked == ["pyav", "torchcodec"]
    monkeypatch.setattr(auto_module, "_DECODERS", {"torchcodec": fail})
    with pytest.raises(DataError, match=r"cannot \(reader pyav\)"):
        reader.read(Source(write_clip()), spread)


def test_autos_choice_is_a_function_of_the_facts_and_what_is_installed(write_clip: WriteClip) -> None:
    facts = AutoReader().facts(Source(write_clip()))
    assert facts["decoder"] == "pyav"
    assert (facts["codec"], facts["frames"], facts["key_distance"], facts["fps"]) == ("h264", 24, 8.0, 8.0)
    assert decoders_for(facts, installed=["decord", "torchcodec"]) == ["torchcodec", "decord"]
    assert decoders_for({**facts, "container": "mpegts"}, installed=["decord", "pyav"]) == ["pyav"]


def test_decoding_ends_after_the_last_picked_frame(write_clip: WriteClip) -> None:
    fed = []
    with opened(Source(write_clip()), reader="pyav") as video:
        packets = video.packets
        video.packets = lambda start: (fed.append(packet.pts) or packet for packet in packets(start))  # type: ignore[method-assign, func-returns-value]
        pyav_module.decode(video, np.array([1, 2]))
    assert len(fed) < 8  # of 24: those two, what they need, and what the decoder wants to see before it gives them out


def test_a_large_file_is_read_twice_instead_of_kept(write_clip: WriteClip, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip()
    picks = [np.array([20, 3]), np.array([23]), np.array([9, 10])]
    kept = [PyAVReader().read(Source(path), lambda _, pick=pick: pick).frames for pick in picks]
    monkeypatch.setattr(video_module, "_KEPT_BYTES", 0)
    for pick, frames in zip(picks, kept, strict=True):
        np.testing.assert_array_equal(PyAVReader().read(Source(path), lambda _, pick=pick: pick).frames, frames)
