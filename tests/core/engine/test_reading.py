"""Rows to samples: what is drawn, how the file is cut, what the contracts' edges do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from antmmf.contracts import Clip, Record, Segment, Source
from antmmf.data.media import SampleReader
from antmmf.errors import DataError
from engine_toys import ToyReader, toy_reader


def reader_of(folder: Path, record: Record, *, train: bool) -> SampleReader:
    reader = toy_reader(folder, keys=["k"], train=train)
    reader.index.record = lambda _: record  # type: ignore[method-assign]
    return reader


def test_frames_are_clips_of_channels_first(tmp_path: Path) -> None:
    sample = toy_reader(tmp_path, keys=["k"], train=False).read(0, epoch=1)
    expected = ToyReader().read(Source(Path("k")), lambda _: np.array([0, 9])).frames.transpose(0, 3, 1, 2)
    assert sample.frames.shape == (1, 2, 3, 4, 4)
    assert np.array_equal(sample.frames[0].numpy(), expected)


def test_training_draws_one_text_and_others_in_other_epochs(tmp_path: Path) -> None:
    reader = toy_reader(tmp_path, keys=["k"], train=True)
    drawn = [reader.read(0, epoch=epoch).texts for epoch in range(300)]
    assert {len(texts) for texts in drawn} == {1}
    counts = [drawn.count((f"k {number}",)) for number in ("one", "two", "three")]
    assert min(counts) > 70  # 100 each are expected, 8.2 is the standard deviation


def test_evaluation_takes_all_texts(tmp_path: Path) -> None:
    assert toy_reader(tmp_path, keys=["k"], train=False).read(0, epoch=1).texts == ("k one", "k two", "k three")


def test_reading_again_gives_the_same_sample(tmp_path: Path) -> None:
    reader = toy_reader(tmp_path, keys=[f"k{i}" for i in range(20)], train=True)
    for row in range(20):
        one, two = reader.read(row, epoch=3), reader.read(row, epoch=3)
        assert one.texts == two.texts
        assert torch.equal(one.frames, two.frames)


def test_a_sample_does_not_depend_on_the_others_in_its_data_set(tmp_path: Path) -> None:
    alone = toy_reader(tmp_path / "a", keys=["k"], train=True).read(0, epoch=2)
    among = toy_reader(tmp_path / "b", keys=["other", "k"], train=True).read(1, epoch=2)
    assert alone.id == among.id
    assert torch.equal(alone.frames, among.frames)


def test_start_and_end_cut_what_the_sampler_sees(tmp_path: Path) -> None:
    record = Record(key="k", media="k", start=0.3, end=0.6)  # frames 3, 4, 5 of 10 per second
    sample = reader_of(tmp_path, record, train=False).read(0, epoch=1)
    expected = ToyReader().read(Source(Path("k")), lambda _: np.array([3, 5])).frames.transpose(0, 3, 1, 2)
    assert np.array_equal(sample.frames[0].numpy(), expected)


def test_a_window_without_frames_says_what_there_is(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, Record(key="k", media="k.mp4", start=5.0, end=6.0), train=False)
    with pytest.raises(DataError, match=r"k\.mp4: must have frames from 5\.0 to 6\.0 s, has 0\.00 to 0\.90 s"):
        reader.read(0, epoch=1)


def test_a_transcript_gives_a_text_with_its_own_window(tmp_path: Path) -> None:
    lines = (Segment(0.0, 0.2, "first"), Segment(0.5, 0.7, "second"))
    reader = reader_of(tmp_path, Record(key="k", media="k", transcript=lines), train=True)
    sample = reader.read(0, epoch=1)
    assert (sample.texts, sample.record.start, sample.record.end) in [(("first",), 0.0, 0.2), (("second",), 0.5, 0.7)]


def test_a_data_set_may_draw_itself(tmp_path: Path) -> None:
    reader = toy_reader(tmp_path, keys=["k"], train=True)
    reader.dataset.draw = lambda record, rng: replace(record, texts=(f"drawn {rng.integers(1)}",))  # type: ignore[attr-defined]
    assert reader.read(0, epoch=1).texts == ("drawn 0",)


def test_a_reader_that_returns_too_few_frames_is_told_so(tmp_path: Path) -> None:
    class Short(ToyReader):
        def read(self, source, pick):  # type: ignore[no-untyped-def]
            clip = super().read(source, pick)
            return Clip(clip.frames[:1], clip.num_total)

    reader = toy_reader(tmp_path, keys=["k"], train=False)
    reader.reader = Short()
    with pytest.raises(DataError, match=r"must return \(2, H, W, 3\) uint8 frames, got \(1, 4, 4, 3\)"):
        reader.read(0, epoch=1)
