from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from antmmf.contracts import Clip, Pick, Source
from antmmf.errors import ComponentError, DataError
from antmmf_vision.readers.auto import AutoReader
from antmmf_vision.readers.cached import Cached

WriteClip = Callable[..., Path]


class Counting:
    """A reader that counts how often it is asked."""

    def __init__(self) -> None:
        self.inner, self.reads = AutoReader(), 0

    def read(self, source: Source, pick: Pick) -> Clip:
        self.reads += 1
        return self.inner.read(source, pick)


def every(times: np.ndarray) -> np.ndarray:
    return np.arange(len(times))


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_second_read_decodes_nothing_and_gives_the_same_bits(write_clip: WriteClip, tmp_path: Path) -> None:
    path, counting = write_clip(), Counting()
    reader = Cached(reader=counting, folder=tmp_path / "cache")
    miss = reader.read(Source(path), every)
    reads = counting.reads
    hit = reader.read(Source(path), every)
    assert counting.reads == reads
    np.testing.assert_array_equal(hit.frames, miss.frames)
    assert hit.num_total == miss.num_total


def test_at_the_clips_own_rate_and_size_nothing_changes(write_clip: WriteClip, tmp_path: Path) -> None:
    path = write_clip(fps=8)
    cached = Cached(fps=8, short_side=48, folder=tmp_path / "cache").read(Source(path), every)
    np.testing.assert_array_equal(cached.frames, AutoReader().read(Source(path), every).frames)


def test_frames_are_those_nearest_to_the_grid(write_clip: WriteClip, tmp_path: Path) -> None:
    path = write_clip(fps=8, count=24)  # 0 to 2.875 s
    frames = Cached(fps=2, folder=tmp_path / "cache").read(Source(path), every).frames
    assert [round(float(frame.mean()) / 8) for frame in frames] == [0, 4, 8, 12, 16, 20]


def test_its_times_are_a_grid(write_clip: WriteClip, tmp_path: Path) -> None:
    seen: list[np.ndarray] = []

    def pick(times: np.ndarray) -> np.ndarray:
        seen.append(times)
        return np.array([0])

    Cached(fps=4, folder=tmp_path / "cache").read(Source(write_clip(fps=8, count=24)), pick)
    assert seen[0].tolist() == [k / 4 for k in range(12)]


def test_long_clips_are_decoded_in_parts(write_clip: WriteClip, tmp_path: Path) -> None:
    path, counting = write_clip(count=24, fps=8), Counting()
    frames = Cached(reader=counting, fps=40, folder=tmp_path / "cache").read(Source(path), every).frames
    assert counting.reads == 2  # 116 frames, 64 at a time
    assert [round(float(frame.mean()) / 8) for frame in frames] == [
        int(np.abs(np.arange(24) / 8 - k / 40).argmin()) for k in range(116)
    ]


def test_the_short_side_is_shrunk_but_never_enlarged(write_clip: WriteClip, tmp_path: Path) -> None:
    path = write_clip(size=(64, 48))
    small = Cached(short_side=24, folder=tmp_path / "cache").read(Source(path), every).frames
    large = Cached(short_side=96, folder=tmp_path / "cache").read(Source(path), every).frames
    assert small.shape[1:3] == (24, 32)
    assert large.shape[1:3] == (48, 64)


def test_a_changed_file_is_decoded_anew(write_clip: WriteClip, tmp_path: Path) -> None:
    path = write_clip(count=24)
    reader = Cached(folder=tmp_path / "cache")
    reader.read(Source(path), every)
    assert reader.read(Source(write_clip(count=16)), every).num_total == 16


def test_a_full_folder_gives_the_same_bits_and_takes_no_more(write_clip: WriteClip, tmp_path: Path) -> None:
    path = write_clip()
    full = Cached(folder=tmp_path / "full", max_gb=0).read(Source(path), every)
    np.testing.assert_array_equal(full.frames, Cached(folder=tmp_path / "cache").read(Source(path), every).frames)
    assert not kept(tmp_path / "full")


def test_a_file_that_was_cut_short_is_made_again(write_clip: WriteClip, tmp_path: Path) -> None:
    path, reader = write_clip(), Cached(folder=tmp_path / "cache")
    whole = reader.read(Source(path), every).frames
    (file,) = kept(tmp_path / "cache")
    file.write_bytes(file.read_bytes()[:500])
    np.testing.assert_array_equal(reader.read(Source(path), every).frames, whole)


def test_the_folder_is_taken_from_the_environment(
    write_clip: WriteClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTMMF_CACHE", str(tmp_path / "elsewhere"))
    Cached().read(Source(write_clip()), every)
    assert len(kept(tmp_path / "elsewhere" / "frames")) == 1


def test_a_folder_that_cannot_be_written_to_does_no_harm(write_clip: WriteClip, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = write_clip()
    frames = Cached(folder=tmp_path / "file" / "cache").read(Source(path), every).frames
    np.testing.assert_array_equal(frames, Cached(folder=tmp_path / "cache").read(Source(path), every).frames)


def test_another_inner_reader_is_another_clip(write_clip: WriteClip, tmp_path: Path) -> None:
    path = write_clip()
    for shift in (0, 1):
        Cached(reader=Shifted(shift), folder=tmp_path / "cache").read(Source(path), every)
    assert len(kept(tmp_path / "cache")) == 2


class Shifted:
    """A reader with a parameter."""

    def __init__(self, shift: int) -> None:
        self.inner, self.shift = AutoReader(), shift

    def read(self, source: Source, pick: Pick) -> Clip:
        clip = self.inner.read(source, pick)
        return Clip(frames=clip.frames + np.uint8(self.shift), num_total=clip.num_total)


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.mp4: No such file"):
        Cached(folder=tmp_path).read(Source(tmp_path / "none.mp4"), every)


def test_a_name_other_than_auto_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="pass the reader itself"):
        Cached(reader="pyav", folder=tmp_path)


def _read(path: Path, folder: Path) -> int:
    return int(Cached(folder=folder).read(Source(path), every).frames.sum())


def test_processes_may_share_a_folder(write_clip: WriteClip, tmp_path: Path) -> None:
    path, folder = write_clip(), tmp_path / "cache"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        sums = pool.starmap(_read, [(path, folder)] * 16)
    assert set(sums) == {_read(path, folder)}
    assert [file.suffix for file in kept(folder)] == [".clip"]
    assert os.access(kept(folder)[0], os.R_OK)
