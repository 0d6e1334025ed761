"""What once ended in a traceback, or was taken in silence, is one clear line or a counted drop."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from antmmf.data.index import Index, open_index
from antmmf.errors import DataError
from antmmf_tasks.datasets.antmmf_jsonl import AntmmfJsonl
from antmmf_tasks.datasets.captions import Captions
from antmmf_tasks.datasets.cc3m import Cc3m
from antmmf_tasks.datasets.cnvid import Cnvid
from antmmf_tasks.datasets.media import MediaFinder
from antmmf_tasks.datasets.msrvtt_mc import MsrvttMc
from antmmf_tasks.datasets.msvd import Msvd
from antmmf_tasks.datasets.questions import MsrvttQa
from antmmf_tasks.datasets.release import Release
from antmmf_tasks.datasets.shards import Shards

Put = Callable[..., Path]
Told = Callable[[Release], tuple[list[Any], str]]


def indexed(dataset: Any, folder: Path) -> Index:
    return open_index(dataset, name="tests:made", version="1", parameters={}, folder=folder)


def tar_of(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


# --- captions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("media_dir", ["../videos", "videos/../../videos", "/"])
def test_keys_are_the_paths_below_a_media_dir_however_it_is_written(put: Put, media_dir: str) -> None:
    root = put("videos/a.mp4")
    name = str(root / "videos/a.mp4")[1:] if media_dir == "/" else "a.mp4"
    put("ann/captions.jsonl", [{"video": name, "caption": "x", "split": "train"}])
    (record,) = Captions(data_root_dir=root / "ann", split="train", media_dir=Path(media_dir)).records()
    assert (record.key, record.media) == (name, str(root / "videos/a.mp4"))


def test_a_file_that_changes_while_it_is_read_is_an_error_and_no_index(put: Put, tmp_path: Path) -> None:
    lines = [{"video": f"{name}.mp4", "caption": name, "split": "train"} for name in "ab"]
    root = put("a.mp4")
    put("b.mp4", b"other")
    put("captions.jsonl", lines)
    dataset = Captions(data_root_dir=root, split="train")
    found = dataset.records()
    next(found)
    put("captions.jsonl", lines[:1])
    with pytest.raises(DataError, match=r"captions\.jsonl changed while it was read; begin again"):
        list(found)
    original = dataset._rows_of_media

    def swapped(*arguments: Any) -> dict[str, int]:  # between the passes, and put back with other times
        left = original(*arguments)
        put("captions.jsonl", [{**line, "caption": "other"} for line in lines])
        return left

    put("captions.jsonl", lines)
    dataset._rows_of_media = swapped  # type: ignore[method-assign]
    with pytest.raises(DataError, match="changed while it was read"):
        indexed(dataset, tmp_path / "index")
    assert not [path for path in (tmp_path / "index").iterdir() if not path.name.startswith(".")]


def test_one_and_one_point_zero_are_two_videos_and_paths_with_dots_are_one(put: Put) -> None:
    put("1.mp4", b"one")
    put("1.0.mp4", b"two")
    put("f/a.mp4", b"three")
    names: list[Any] = [1, 1.0, "f/a.mp4", "f//a.mp4", "f/./a.mp4"]
    root = put("captions.jsonl", [{"video": name, "caption": str(name), "split": "train"} for name in names])
    records = list(Captions(data_root_dir=root, split="train").records())
    assert [(record.key, record.texts) for record in records] == [
        ("1.mp4", ("1",)),
        ("1.0.mp4", ("1.0",)),
        ("f/a.mp4", ("f/a.mp4", "f//a.mp4", "f/./a.mp4")),
    ]


def test_a_segment_from_the_beginning_is_one_with_that_from_second_0(put: Put) -> None:
    times: list[dict[str, Any]] = [{"end": 5}, {"start": 0, "end": 5}, {"start": None, "end": 5.0}]
    root = put("captions.jsonl", [{"video": "a.mp4", "caption": "x", "split": "train", **time} for time in times])
    put("a.mp4")
    (record,) = Captions(data_root_dir=root, split="train").records()
    assert (record.key, record.start, record.end, record.texts) == ("a.mp4#0-5", 0.0, 5.0, ("x", "x", "x"))


def test_what_is_no_number_is_no_text(put: Put) -> None:
    put("a.mp4")
    for value in ("NaN", "Infinity", "-Infinity", "true"):
        root = put("captions.jsonl", f'{{"video": "a.mp4", "caption": {value}, "split": "train"}}\n')
        with pytest.raises(DataError, match=r"captions\.jsonl:1: caption must be a text that is not empty, got"):
            list(Captions(data_root_dir=root, split="train").records())
    put("mc_test.jsonl", '{"qid": "1", "clip_name": "a", "options": ["x", NaN], "answer": 0}\n')
    with pytest.raises(DataError, match=r"jsonl:1: 'options' must be two texts or more"):
        list(MsrvttMc(data_root_dir=root).records())


# --- releases ---------------------------------------------------------------------------------------------------------


def test_ids_that_occur_twice_in_an_object_are_named(put: Put) -> None:
    put("1.jpg")
    root = put("txt_cc3m.json", '{"train": {"1": ["x"], "1": ["y"]}}')
    with pytest.raises(DataError, match=r"txt_cc3m\.json: '1' is there twice"):
        list(Cc3m(data_root_dir=root, split="train").records())
    put("train_list.txt", "a\n")
    put("a.avi")
    for captions in ('{"a": ["x"], "a": ["y"]}', '[{"id": "a.avi", "caption": ["x"]}, {"id": "a", "caption": ["y"]}]'):
        put("captions.json", captions)
        with pytest.raises(DataError, match=r"captions\.json: 'a' is there twice"):
            list(Msvd(data_root_dir=root, split="train").records())


def test_ids_and_answers_of_other_kinds_are_refused_with_their_place(put: Put) -> None:
    put("video1.mp4")
    root = put("test_qa.json", '[{"id": "\\ud83d", "video_id": 1, "question": "who", "answer": "me"}]')
    with pytest.raises(DataError, match=r"test_qa\.json:1: 'id' must be a text, has half of a character"):
        list(MsrvttQa(data_root_dir=root, split="test").records())
    put("mc_test.jsonl", [{"qid": "1", "clip_name": "video1", "options": ["x", "y"], "answer": "9" * 6000}])
    with pytest.raises(DataError, match=r"jsonl:1: 'answer' must be the number of an option, 0 to 1, is '9{80}'"):
        list(MsrvttMc(data_root_dir=root).records())
    put("mc_test.jsonl", [{"qid": None, "clip_name": "video1", "options": ["x", "y"], "answer": 0}])
    with pytest.raises(DataError, match=r"jsonl:1: 'qid' must not be null"):
        list(MsrvttMc(data_root_dir=root).records())


def test_segments_that_are_a_tenth_of_a_second_apart_late_in_a_video_have_keys_of_their_own(put: Put) -> None:
    times = [(12345.61, 12349.61), (12345.64, 12349.64)]
    root = put("a.jsonl", [{"clip_name": "a", "caption": "x", "start": start, "end": end} for start, end in times])
    put("a.mp4")
    records = AntmmfJsonl(data_root_dir=root, annotations="a.jsonl").records()
    assert [record.key for record in records] == ["a#12345.61-12349.61", "a#12345.64-12349.64"]


def test_a_book_in_a_transcript_is_counted_and_left_out(put: Put, told: Told) -> None:
    put("a.mp4")
    said = {"start": [0, 5, float("nan")], "end": [4, 9, 12], "text": ["字 " * 4000, "好", "好"]}
    root = put("caption.json", {"a": said})
    (record,), warned = told(Cnvid(data_root_dir=root, split="train", val_share=0))
    assert [segment.text for segment in record.transcript] == ["好"]
    assert "left out 1 segments of more than 1000 words" in warned
    assert "left out 1 segments without a start and a later end" in warned


def test_bytes_that_are_no_pickle_are_one_line(put: Put) -> None:
    put("train_list.txt", "a\n")
    for content in (b"\x80\x04\x95\xff\xff", b"(lp0\nI1\naR.", b"\x80\x04NN]s.", b"PK\x03\x04\n\n"):
        root = put("raw-captions.pkl", content)
        with pytest.raises(DataError, match=r"^[^\n]*raw-captions\.pkl: is no pickle of plain values \([^\n]+\)$"):
            list(Msvd(data_root_dir=root, split="train").records())


@pytest.mark.skipif(os.name == "nt", reason="names of files are bytes elsewhere")
def test_names_of_files_that_are_not_utf8_are_named(put: Put, tmp_path: Path) -> None:
    root = put("captions.jsonl", [{"video": "a.mp4", "caption": "x", "split": "train"}])
    folder = os.fsencode(root) + b"/\xc4\xe3"
    os.mkdir(folder)
    with open(folder + b"/a.mp4", "wb"):
        pass
    with pytest.raises(DataError, match=r"record '.*a\.mp4' of '.*' cannot be kept: .*surrogates not allowed"):
        indexed(Captions(data_root_dir=root, split="train"), tmp_path / "index")
    (root / "more").mkdir()
    tar_of(root / "more/part.tar", {"\udce9.mp4": b"1", "b.mp4": b"2"})
    assert str(MediaFinder(root / "more").find("b")).endswith("size=1&name=b.mp4")
    assert str(MediaFinder(root / "more").find("\udce9")).endswith("name=%E9.mp4")


def test_letters_that_a_terminal_does_not_know_are_written_as_escapes(put: Put) -> None:
    root = put("captions.jsonl", '{"\\ud83d": 1, "列": 2}\n')
    command = [sys.executable, "-m", "antmmf", "data", "prepare", "captions", "--root", str(root)]
    env = {**os.environ, "PYTHONIOENCODING": "latin-1:strict"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=100, check=False)
    assert r"none of the columns \ud83d, \u5217 is called media" in done.stdout


# --- shards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", ["{x}.tar", "{split}/{.tar", "**.tar", "nothing/*.tar"])
def test_patterns_that_fit_nothing_are_one_line(put: Put, files: str) -> None:
    with pytest.raises(DataError, match=r"files .* is no pattern|no .*tar fits files"):
        list(Shards(data_root_dir=str(put("a.mp4")), files=files).records())


@pytest.mark.parametrize("files", ["../{split}/*.tar", "/etc/*.tar"])
def test_patterns_that_lead_out_of_the_root_are_refused(put: Put, files: str) -> None:
    with pytest.raises(DataError, match="must be a pattern for tars below"):
        list(Shards(data_root_dir=str(put("a.mp4")), files=files).records())


def test_texts_in_tars_are_counted_and_left_out_like_others(put: Put, caplog: pytest.LogCaptureFixture) -> None:
    root = put("a.mp4")
    contents = [b'{"caption": 5}', b'{"caption": true}', b'{"caption": "\\ud83d"}', b'{"caption": ["x", 5, "y"]}']
    members: dict[str, bytes] = {}
    for number, content in enumerate(contents):
        members |= {f"{number}.mp4": b"v", f"{number}.json": content}
    members |= {"4.mp4": b"v", "4.txt": b"word " * 10_000, "5.mp4": b"v", "5.txt": b"\xef\xbb\xbfmarked"}
    tar_of(root / "a.tar", members)
    with caplog.at_level(logging.WARNING, logger="antmmf"):
        records = list(Shards(data_root_dir=str(root), files="*.tar").records())
    assert [record.texts for record in records] == [("x", "y"), ("marked",)]
    for said in ("4 samples without a text", "1 texts of more than 1000 words", "1 texts with halves of characters"):
        assert f"left out {said}" in caplog.text
    tar_of(root / "a.tar", {"0.mp4": b"v", "0.json": b"[" * 100_000})
    with pytest.raises(DataError, match=r"a\.tar:0\.json: "):
        list(Shards(data_root_dir=str(root), files="*.tar").records())


def test_records_of_shards_with_other_values_or_another_number_are_named(put: Put, tmp_path: Path) -> None:
    line = {"key": "k", "member": ["a.mp4", 0, 1], "texts": ["x"], "negatives": [], "options": [], "transcript": []}
    for wrong in ({"texts": [1]}, {"texts": ["\ud83d"]}, {"key": None}):
        put("train.json", {"shards": [{"file": "a.tar", "records": 2}]})
        root = put("a.jsonl", [{**line, "key": "good"}, {**line, **wrong}])
        key = wrong.get("key", "k")
        with pytest.raises(DataError, match=rf"tests:made: record {key!r} of '.*a\.mp4' cannot be kept: "):
            indexed(Shards(data_root_dir=str(root)), tmp_path / "index")
    put("a.jsonl", [line])
    with pytest.raises(DataError, match=r"a\.jsonl: has 1 records, train\.json says 2"):
        indexed(Shards(data_root_dir=str(root)), tmp_path / "index")
    put("train.json", b"[" * 100_000)
    with pytest.raises(DataError, match=r"train\.json: is no table of shards"):
        indexed(Shards(data_root_dir=str(root)), tmp_path / "index")
