"""The data set `captions`: what it finds, how it splits, and what it says when something is wrong."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest
from antmmf.contracts import Dataset
from antmmf.errors import DataError
from antmmf_tasks.datasets.captions import Captions, Split, _divide

Folder = Callable[..., Path]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Makes a folder with media, each of its own content, and one captions file."""

    def make(text: str | bytes, *, name: str = "captions.csv", media: tuple[str, ...] = ()) -> Path:
        for path in (tmp_path / each for each in media):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(path))
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return make


def ten_videos(folder: Folder, *, num: int = 10) -> Path:
    names = [f"{i}.mp4" for i in range(num)]
    return folder("media,caption\n" + "".join(f"{name},video {name}\n" for name in names), media=tuple(names))


def test_rows_of_one_media_are_one_record_with_all_texts(folder: Folder) -> None:
    root = folder(
        "video,caption,split\na.mp4,one,train\nb.mp4,two,train\na.mp4,three,train\n", media=("a.mp4", "b.mp4")
    )
    records = list(Captions(data_root_dir=root, split="train").records())
    assert [(record.key, record.texts) for record in records] == [("b.mp4", ("two",)), ("a.mp4", ("one", "three"))]
    assert records[1].media == str(root / "a.mp4")


def test_a_record_comes_as_soon_as_its_last_row_is_read(folder: Folder) -> None:
    rows = "a.mp4,one,train,0,1\nb.mp4,two,train,0,1\na,three,train,0,1\na.mp4,four,train,1,2\nb.mp4,five,train,2,1\n"
    root = folder("video,text,split,start,end\n" + rows, media=("a.mp4", "b.mp4"))
    records = Captions(data_root_dir=root, split="train").records()
    first, second = next(records), next(records)
    assert [first.key, second.key] == ["a.mp4#0-1", "a.mp4#1-2"]
    assert first.texts == ("one", "three")  # a and a.mp4 are one file
    with pytest.raises(DataError, match="end 1 must be after start 2"):
        next(records)


def test_segments_of_one_media_are_records_of_their_own(folder: Folder) -> None:
    root = folder("video,text,split,start,end\na.mp4,x,test,0,1.5\na.mp4,y,test,1.5,4\n", media=("a.mp4",))
    records = list(Captions(data_root_dir=root, split="test").records())
    assert [(r.key, r.start, r.end, r.texts) for r in records] == [
        ("a.mp4#0-1.5", 0.0, 1.5, ("x",)),
        ("a.mp4#1.5-4", 1.5, 4.0, ("y",)),
    ]


def test_it_keeps_the_contract_of_a_data_set(folder: Folder) -> None:
    dataset = Captions(data_root_dir=ten_videos(folder), split="train")
    assert isinstance(dataset, Dataset)
    assert dataset.sources()[0].name == "captions.csv"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.jsonl", '{"media": "a.mp4", "caption": "hi"}\r\n\r\n{"media": "a.mp4", "caption": "so"}\r\n'),
        ("captions.csv", "\ufeffmedia,caption\r\na.mp4,hi\r\na.mp4,so\r\n"),
        ("captions.tsv", "media\tcaption\na.mp4\thi\na.mp4\tso\n"),
    ],
)
def test_jsonl_csv_and_tsv_say_the_same(folder: Folder, name: str, text: str) -> None:
    (record,) = Captions(data_root_dir=folder(text, name=name, media=("a.mp4",)), split="train").records()
    assert record.texts == ("hi", "so")


def test_a_quoted_line_break_belongs_to_the_caption_and_lines_are_still_counted(folder: Folder) -> None:
    root = folder('media,caption,start\na.mp4,"one\ntwo",0\na.mp4,x,soon\n', media=("a.mp4",))
    with pytest.raises(DataError, match=r"captions\.csv:4: start must be seconds, 0 or more, got 'soon'"):
        list(Captions(data_root_dir=root, split="train").records())


def test_media_are_found_in_sub_folders_and_without_a_suffix(folder: Folder) -> None:
    root = folder("media,caption\na,x\nb.c,y\nd.PNG,z\n", media=("videos/a.webm", "videos/b.c.mp4", "images/d.PNG"))
    records = [r for split in SPLITS for r in Captions(data_root_dir=root, split=split).records()]
    assert sorted(r.key for r in records) == ["images/d.PNG", "videos/a.webm", "videos/b.c.mp4"]


def test_columns_can_be_named(folder: Folder) -> None:
    root = folder("film,says,part\na.mp4,x,dev\n", name="my.csv", media=("a.mp4",))
    dataset = Captions(
        data_root_dir=root, captions="my.csv", split="val", media_column="film", text_column="says", split_column="part"
    )
    assert [record.texts for record in dataset.records()] == [("x",)]


def test_an_unknown_column_is_an_error_that_names_the_nearest(folder: Folder) -> None:
    root = folder("video,says\na.mp4,x\n", media=("a.mp4",))
    with pytest.raises(
        DataError, match=r"text_column is 'say', but the columns are video, says \(did you mean 'says'\?\)"
    ):
        list(Captions(data_root_dir=root, split="train", text_column="say").records())
    with pytest.raises(
        DataError, match=r"none of the columns video, says is called caption, .*; name one with text_column"
    ):
        list(Captions(data_root_dir=root, split="train").records())


def test_a_thousand_videos_are_divided_about_80_10_10_and_keep_their_split_when_more_come() -> None:
    few, more = ({f"{i}.mp4" for i in range(count)} for count in (1000, 1500))
    first, second = _divide(few), _divide(more)
    assert all(second[group] == split for group, split in first.items())
    counts = {split: sum(found == split for found in first.values()) for split in SPLITS}
    assert 760 <= counts["train"] <= 840
    assert 70 <= counts["val"] <= 130
    assert 70 <= counts["test"] <= 130


def test_every_video_is_in_one_split(folder: Folder) -> None:
    root = ten_videos(folder)
    keys = {split: [r.key for r in Captions(data_root_dir=root, split=split).records()] for split in SPLITS}
    assert all(keys.values())
    assert sorted(key for names in keys.values() for key in names) == [f"{i}.mp4" for i in range(10)]


@pytest.mark.parametrize("num", range(3, 12))
def test_from_three_groups_on_no_split_is_empty(num: int) -> None:
    for start in range(40):
        assert set(_divide({f"{start}-{i}" for i in range(num)}).values()) == set(SPLITS)


def test_three_videos_still_give_each_split_one(folder: Folder) -> None:
    root = ten_videos(folder, num=3)
    assert [len(list(Captions(data_root_dir=root, split=s).records())) for s in SPLITS] == [1, 1, 1]


def test_a_group_is_never_divided(folder: Folder) -> None:
    names = tuple(f"{i}.mp4" for i in range(20))
    rows = "".join(f"{name},x,speaker {i % 5}\n" for i, name in enumerate(names))
    table = Captions(data_root_dir=folder("media,caption,group\n" + rows, media=names), split="train").split_table()
    splits: dict[str, set[str]] = {}
    for _, group, split in table:
        splits.setdefault(group, set()).add(split)
    assert len(table) == 20
    assert {len(found) for found in splits.values()} == {1}
    assert {split for found in splits.values() for split in found} == {"train", "val", "test"}


def test_a_copy_of_a_file_in_another_split_is_an_error(folder: Folder) -> None:
    root = folder("media,caption,split\na.mp4,x,train\nb.mp4,y,test\n", media=("a.mp4", "b.mp4"))
    (root / "b.mp4").write_bytes((root / "a.mp4").read_bytes())
    with pytest.raises(DataError, match=r"captions\.csv:3: b\.mp4 is in split 'test', but line 2 puts the same file"):
        list(Captions(data_root_dir=root, split="train").records())


def test_media_that_come_or_go_change_the_sources(folder: Folder) -> None:
    root = folder("media,caption,split\na.mp4,x,train\n", media=("a.mp4", "videos/b.mp4"))
    assert {root, root / "videos"} <= set(Captions(data_root_dir=root, split="train").sources())


def test_one_file_in_two_splits_is_an_error_even_under_two_names(folder: Folder) -> None:
    root = folder("media,caption,split\na.mp4,x,train\nb.mp4,y,test\n", media=("a.mp4",))
    (root / "b.mp4").symlink_to(root / "a.mp4")
    with pytest.raises(
        DataError, match=r"captions\.csv:3: b\.mp4 is in split 'test', but line 2 puts the same file in 'train'"
    ):
        list(Captions(data_root_dir=root, split="train").records())


@pytest.mark.parametrize("name", ["../a.mp4", "x/../../a.mp4", "/etc/hostname"])
def test_media_may_not_leave_the_root(folder: Folder, name: str) -> None:
    root = folder(f"media,caption,split\n{name},x,train\n")
    with pytest.raises(DataError, match=r"captions\.csv:2: .* leads out of "):
        list(Captions(data_root_dir=root, split="train").records())


def test_missing_media_are_counted_and_the_first_are_named(folder: Folder) -> None:
    rows = "".join(f"{i}.mp4,x,train\n" for i in range(6))
    root = folder("media,caption,split\n" + rows, media=("0.mp4",))
    with pytest.raises(
        DataError,
        match=r"captions train: 5 of 6 media do not exist: 1\.mp4 \(.*captions\.csv:3\), .* and 2 more",
    ):
        list(Captions(data_root_dir=root, split="train").records())


def test_files_that_are_there_under_another_ending_are_not_said_to_be_missing(folder: Folder) -> None:
    names = ("a.ts", "b.M2TS", "song.mp3", "none", "gone.mp3")
    rows = "".join(f"{name},x,train\n" for name in names)
    root = folder("media,caption,split\n" + rows, media=names[:-1])
    with pytest.raises(DataError) as caught:
        list(Captions(data_root_dir=root, split="train").records())
    file = root / "captions.csv"
    told = str(caught.value)
    assert told.startswith(
        f"captions train: 1 of 5 media do not exist: gone.mp3 ({file}:6); they should lie in {root}; "
    )
    assert "2 of 5 media are there, but must end as one of .mp4, .webm, " in told
    assert f".avif: song.mp3 ({file}:4), none ({file}:5); missing: drop leaves them out" in told


def test_missing_media_are_dropped_on_request_with_one_warning(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    root = folder("media,caption,split\na.mp4,x,train\nb.mp4,x,train\n", media=("a.mp4",))
    with caplog.at_level(logging.WARNING, logger="antmmf"):
        records = list(Captions(data_root_dir=root, split="train", missing="drop").records())
    assert [record.key for record in records] == ["a.mp4"]
    assert len(caplog.records) == 1
    assert "1 of 2 media" in caplog.text


def test_nothing_left_after_dropping_is_an_error(folder: Folder) -> None:
    root = folder("media,caption,split\na.mp4,x,train\n")
    with pytest.raises(DataError, match="nothing is left"):
        list(Captions(data_root_dir=root, split="train", missing="drop").records())


def test_an_empty_split_is_an_error_that_counts_the_others(folder: Folder) -> None:
    root = folder("media,caption,split\na.mp4,x,train\n", media=("a.mp4",))
    with pytest.raises(
        DataError, match=r"captions\.csv: no row is of split 'val'; media there are: train 1, val 0, test 0"
    ):
        list(Captions(data_root_dir=root, split="val").records())


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data_root_dir .*nowhere is not a folder"):
        Captions(data_root_dir=tmp_path / "nowhere", split="train").sources()


def test_without_a_captions_file_the_error_says_what_there_is(folder: Folder) -> None:
    root = folder("", name="texts.csv")
    with pytest.raises(DataError, match=r"holds no captions\.jsonl, \.csv, \.tsv or \.parquet; it holds texts\.csv"):
        Captions(data_root_dir=root, split="train").sources()
    with pytest.raises(DataError, match=r"text\.csv does not exist \(did you mean 'texts\.csv'\?\)"):
        Captions(data_root_dir=root, split="train", captions="text.csv").sources()


def test_two_captions_files_must_be_told_apart(folder: Folder) -> None:
    folder("", name="captions.tsv")
    with pytest.raises(DataError, match=r"captions\.csv and captions\.tsv; say which"):
        Captions(data_root_dir=folder(""), split="train").sources()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "captions.jsonl",
            b'{"media": "a.mp4", "caption": "x"}\n{"media": \n',
            r"captions\.jsonl:2: not a line of JSON",
        ),
        (
            "captions.jsonl",
            b'{"media": "a.mp4", "caption": "x", "end": 1%s}\n' % (b"0" * 400),
            r"captions\.jsonl:1: end must be seconds",
        ),
        ("captions.jsonl", b"[1]\n", r"captions\.jsonl:1: expected a JSON object, got a list"),
        (
            "captions.jsonl",
            b'{"media": "a.mp4", "caption": ["x", []]}\n',
            r"captions\.jsonl:1: caption must be a text",
        ),
        ("captions.csv", b"media,caption\na.mp4,x\na.mp4,\xff\n", r"captions\.csv:3: byte 0xff is not UTF-8"),
        (
            "captions.csv",
            b"media,caption\na.mp4,x,y\n",
            r"captions\.csv:2: 3 fields, there should be 2",
        ),
        ("captions.csv", b'media,caption\na.mp4,"x\n', r"captions\.csv:2: unexpected end of data"),
        (
            "captions.csv",
            b"media,caption,split\na.mp4,x,trian\n",
            r"captions\.csv:2: .*'trian' \(did you mean 'train'\?\)",
        ),
        ("captions.csv", b"media,caption,start,end\na.mp4,x,2,1\n", r"captions\.csv:2: end 1 must be after start 2"),
        ("captions.csv", b"media,caption\n", r"captions\.csv: the file has no rows"),
    ],
)
def test_a_broken_file_is_reported_with_its_line(folder: Folder, name: str, text: bytes, message: str) -> None:
    root = folder(text, name=name, media=("a.mp4",))
    with pytest.raises(DataError, match=message):
        list(Captions(data_root_dir=root, split="train").records())


def test_numbers_in_json_are_read_as_names_and_times(folder: Folder) -> None:
    line = {"video": 7, "caption": "x", "start": 1, "end": None, "split": "train"}
    root = folder(json.dumps(line) + "\n", name="captions.jsonl", media=("7.mp4",))
    (record,) = Captions(data_root_dir=root, split="train").records()
    assert (record.key, record.start, record.end) == ("7.mp4#1-", 1.0, None)


def test_a_row_of_json_may_have_a_list_of_captions(folder: Folder) -> None:
    line = {"video": "a", "captions": ["x", "y"], "split": "train"}
    root = folder(json.dumps(line) + "\n", name="captions.jsonl", media=("a.mp4",))
    (record,) = Captions(data_root_dir=root, split="train").records()
    assert record.texts == ("x", "y")


def test_real_clips_in_a_linked_folder_need_no_code(tmp_path: Path) -> None:
    shared = Path(__file__).parents[3] / "shared" / "data"
    if not (shared / "clips.jsonl").is_file():
        pytest.skip("the real clips in ../shared/data are not here")
    lines = [json.loads(line) for line in (shared / "clips.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = [line for line in lines if line.get("captions") and line["file"].startswith("videos/")]
    (tmp_path / "videos").symlink_to(shared / "videos")
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in chosen), encoding="utf-8")
    records = [r for split in SPLITS for r in Captions(data_root_dir=tmp_path, split=split).records()]
    assert sorted(r.key for r in records) == sorted(line["file"] for line in chosen)
    assert sum(len(r.texts) for r in records) == sum(len(line["captions"]) for line in chosen)


def test_empty_and_endless_captions_are_counted_and_left_out(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    endless = "word " * 10_000
    root = folder(f"media,caption,split\na.mp4, ,train\na.mp4,x,train\na.mp4,{endless},train\n", media=("a.mp4",))
    with caplog.at_level(logging.WARNING, logger="antmmf"):
        (record,) = Captions(data_root_dir=root, split="train").records()
    assert record.texts == ("x",)
    assert re.search(r"left out 1 empty texts, such as .*captions\.csv:2", caplog.text)
    assert re.search(r"left out 1 texts of more than 1000 words, such as .*captions\.csv:4", caplog.text)


def test_a_parquet_file_is_read_like_the_others(folder: Folder) -> None:
    root = folder("", name="unused.txt", media=("a.mp4",))
    columns = {"media": ["a.mp4", "a.mp4"], "captions": [["x", "y"], ["z"]], "split": ["train", "train"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), root / "captions.parquet")
    (record,) = Captions(data_root_dir=root, split="train").records()
    assert record.texts == ("x", "y", "z")
