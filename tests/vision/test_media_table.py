"""What every odd file must give, by every reader.

The table was written from ffprobe, ffmpeg and the files' notes before our readers ran (``notes`` in each line). It is
never made from our own output.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from antmmf.contracts import Clip, FrameReader, Source
from antmmf.errors import DataError, PluginError
from antmmf_vision.readers.auto import AutoReader
from antmmf_vision.readers.decord import DecordReader
from antmmf_vision.readers.pyav import PyAVReader
from antmmf_vision.readers.torchcodec import TorchcodecReader

TABLE = [json.loads(line) for line in (Path(__file__).parent / "expected_media.jsonl").read_text("utf-8").splitlines()]
VIDEOS = [row for row in TABLE if row["kind"] == "video"]
TOLERANCE = 2.0  # of 255, of a mean level
SECONDS = 1e-3  # some containers count whole milliseconds

needs_decord = pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord is not installed")


def by_name(row: dict[str, Any]) -> str:
    return str(row["file"])


def read(reader: FrameReader, path: Path, indices: Any = None) -> tuple[Clip, np.ndarray]:
    seen: list[np.ndarray] = []

    def pick(times: np.ndarray) -> np.ndarray:
        seen.append(times)
        n = len(times)
        return np.array([0, n // 2, n - 1] if indices is None else indices)

    clip = reader.read(Source(path), pick)
    return clip, seen[0]


def close_levels(frame: np.ndarray, row: dict[str, Any], number: int) -> bool:
    """Mean of all, of the left half and of the top half; ffmpeg's own colours, or what it makes without its tags."""
    height, width = frame.shape[:2]
    halves = (frame, frame[:, : max(1, width // 2)], frame[: max(1, height // 2)])
    found = [float(part.mean()) for part in halves]
    # what is transparent becomes white in ours, and ffmpeg drops the transparency
    keys = ["levels_on_white"] if "levels_on_white" in row else ["levels", "levels_if_bt601", "levels_if_limited_range"]
    choices = [row[key] for key in keys if row.get(key)]
    wanted = [choice[number] for choice in choices if choice[number] is not None]
    return not wanted or any(np.abs(np.subtract(found, levels)).max() <= TOLERANCE for levels in wanted)


def as_picked(reader: FrameReader, row: dict[str, Any], pick: dict[str, Any], folder: Path) -> None:
    """Assert what the table says of one frame of a damaged file."""
    if pick["outcome"] == "damaged":
        with pytest.raises(DataError) as caught:
            read(reader, folder / row["file"], [pick["index"]])
        assert caught.value.reason == "damaged"
        return
    clip, times = read(reader, folder / row["file"], [pick["index"]])
    assert times[pick["index"]] == pytest.approx(pick["time"], abs=SECONDS)
    assert close_levels(clip.frames[0], {"levels": [pick["levels"]]}, 0)


def matches(reader: FrameReader, row: dict[str, Any], folder: Path) -> None:
    """Assert that ``reader`` gives what the table says of a file with frames."""
    clip, times = read(reader, folder / row["file"])
    listed = row["frames_listed"] if row.get("picks_listed") else row["frames"]
    assert clip.num_total == len(times)
    assert len(times) in (row["frames"], listed)
    for pick in row.get("picks_listed", []) if len(times) == listed else []:
        as_picked(reader, row, pick, folder)
    if len(times) == row["frames"]:
        n = len(times)
        wanted = [times[k] for k in (0, min(1, n - 1), n // 2, n - 1)]
        np.testing.assert_allclose(wanted, row["times"], atol=SECONDS)
        assert list(clip.frames.shape[1:3]) == row["size"]
        assert [close_levels(frame, row, number) for number, frame in enumerate(clip.frames)] == [True] * 3


@pytest.mark.parametrize("row", TABLE, ids=by_name)
def test_auto_gives_what_the_table_says(row: dict[str, Any], real_data: Path) -> None:
    reader = AutoReader()
    if row["outcome"] == "frames" and not row["also_acceptable"]:
        matches(reader, row, real_data)
        return
    with pytest.raises(DataError) as caught:
        read(reader, real_data / row["file"])
    assert caught.value.reason in (row["outcome"], *row["also_acceptable"])
    assert str(real_data / row["file"]) in str(caught.value)


@pytest.mark.parametrize("row", VIDEOS, ids=by_name)
def test_pyav_gives_what_the_table_says(row: dict[str, Any], real_data: Path) -> None:
    if row["outcome"] == "frames":
        matches(PyAVReader(), row, real_data)
        return
    with pytest.raises(DataError) as caught:
        read(PyAVReader(), real_data / row["file"])
    assert caught.value.reason in (row["outcome"], *row["also_acceptable"])


@needs_decord
@pytest.mark.parametrize("row", VIDEOS, ids=by_name)
def test_decord_gives_what_pyav_gives_or_says_that_it_cannot(row: dict[str, Any], real_data: Path) -> None:
    agrees(DecordReader(), row, real_data)


@pytest.mark.parametrize("row", VIDEOS, ids=by_name)
def test_torchcodec_gives_what_pyav_gives_or_says_that_it_cannot(row: dict[str, Any], real_data: Path) -> None:
    try:
        reader = TorchcodecReader()
    except PluginError as error:
        pytest.skip(str(error))
    agrees(reader, row, real_data)


DAMAGED = ("bitflips_in_mdat.mp4", "corrupted.mp4", "truncated_half_moov_first.mp4")  # each mends them in its own way
LYING = ("MOV00006.3gp",)  # frames are marked as key frames that are none; only PyAV's reader sees it, while decoding


def agrees(reader: FrameReader, row: dict[str, Any], folder: Path) -> None:
    """Assert that ``reader`` gives the same pictures as PyAV at the same times, or raises ``DataError``."""
    path = folder / row["file"]
    try:
        clip, times = read(reader, path)
    except DataError:
        return
    assert row["outcome"] == "frames"
    ours, our_times = read(PyAVReader(), path)
    np.testing.assert_array_equal(times, our_times)
    assert clip.frames.shape == ours.frames.shape
    if path.name not in DAMAGED + LYING:
        difference = np.abs(clip.frames.astype(np.int16) - ours.frames).mean(axis=(1, 2, 3))
        assert difference.max() <= TOLERANCE, difference


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", [pytest.param(DecordReader, marks=needs_decord), TorchcodecReader])
def test_a_time_is_the_same_picture_in_every_reader(kind: type[FrameReader], every: int, real_data: Path) -> None:
    """On real clips: at most 2 of 255 from PyAV's frame, and no nearer to the one before or after it."""
    try:
        reader = kind()
    except PluginError as error:
        pytest.skip(str(error))
    num_compared = 0
    for path in sorted((real_data / "videos").rglob("*"))[::every]:
        if path.suffix not in {".mp4", ".avi", ".mkv"}:
            continue
        ours = PyAVReader()
        total = read(ours, path, [0])[0].num_total
        picked = sorted({total // 5, total // 2, total - 2} & set(range(1, total - 1)))
        around = read(ours, path, [index + shift for index in picked for shift in (-1, 0, 1)])[0].frames
        try:
            theirs = read(reader, path, picked)[0].frames
        except DataError as error:
            assert error.reason == "unsupported", error  # noqa: PT017
            continue
        for number, frame in enumerate(theirs.astype(np.int16)):
            before, same, after = (
                float(np.abs(frame - other).mean()) for other in around[3 * number : 3 * number + 3].astype(np.int16)
            )
            assert same <= TOLERANCE, (path.name, picked[number], same)
            assert same <= min(before, after), (path.name, picked[number], before, same, after)
            num_compared += 1
    assert num_compared > 30
