"""Values in annotation files that nobody should have written: each an error or a counted drop with its place."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from antmmf.errors import DataError
from antmmf_tasks.datasets.antmmf_jsonl import AntmmfJsonl
from antmmf_tasks.datasets.captions import Captions
from antmmf_tasks.datasets.cc3m import Cc3m
from antmmf_tasks.datasets.coco import Coco
from antmmf_tasks.datasets.didemo import Didemo
from antmmf_tasks.datasets.files import json_file, json_items, rows
from antmmf_tasks.datasets.howto100m import Howto100m
from antmmf_tasks.datasets.media import MediaFinder
from antmmf_tasks.datasets.msrvtt import Msrvtt
from antmmf_tasks.datasets.msrvtt_mc import MsrvttMc
from antmmf_tasks.datasets.msvd import Msvd, youtube_names
from antmmf_tasks.datasets.questions import MsrvttQa, MsvdQa
from antmmf_tasks.datasets.release import Release
from antmmf_tasks.datasets.shards import Shards
from antmmf_tasks.datasets.vatex import Vatex
from antmmf_tasks.datasets.visual_genome import VisualGenome
from antmmf_tasks.datasets.webvid import Webvid

Put = Callable[..., Path]


Told = Callable[[Release], tuple[list[Any], str]]
HALF = "x \ud83d"  # JSON may hold it, UTF-8 cannot


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}]]', r":1: there is more behind the \]"),
        ("{}\n{}", r":2: there is more behind the }"),
        ("[" * 100_000, r":1: maximum recursion depth"),
        (f"[{'9' * 5000}]", r":1: Exceeds the limit"),
    ],
)
def test_what_goes_on_or_is_absurd_is_refused_with_its_line(put: Put, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(json_items(put("a.json", text) / "a.json"))
    with pytest.raises(DataError, match=r"a\.json:\d+: is no JSON"):
        json_file(put("a.json", text) / "a.json")


def test_lists_in_lists_in_lists_are_no_line_of_jsonl(put: Put) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:1: not a line of JSON"):
        list(rows(put("a.jsonl", "[" * 100_000) / "a.jsonl"))


@pytest.mark.parametrize(
    "line",
    [
        '{"a": "\\ud83d", "b": [0.1, 5e-324, 1e999, -0.0, 12345678901234567890123, NaN]}',  # half of a character
        '{"a": 1, "b": {"a": 1, "a": 2}, "a": "\\ud83d\\ude00 \u4e2d"}',
        '{"a": ' + "[" * 300 + "]" * 300 + "}",  # deeper than pydantic reads
        ' {"a": 1}\t',
    ],
)
def test_a_line_of_json_says_what_python_reads_in_it(put: Put, line: str) -> None:
    ((place, values),) = rows(put("a.jsonl", f"\n{line}\n \n") / "a.jsonl")
    assert place.endswith("a.jsonl:2")
    assert repr(values) == repr(json.loads(line))


@pytest.mark.parametrize("line", ['{"a": 01}', "{'a': 1}", '{"a": 1,}', '{"a": "\t"}', '{"a": 1'])
def test_what_is_no_json_is_refused(put: Put, line: str) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:2: not a line of JSON"):
        list(rows(put("a.jsonl", f"{{}}\n{line}\n") / "a.jsonl"))
    with pytest.raises(DataError, match=r"a\.jsonl:1: .*more behind it: ' {}'"):
        list(rows(put("a.jsonl", "{} {}\n") / "a.jsonl"))


def test_a_member_larger_than_a_part_is_begun_only_a_few_times(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antmmf_tasks.datasets.files._PART", 16)
    begun = 0
    decode = json.JSONDecoder.raw_decode

    def counted(self: json.JSONDecoder, text: str, at: int = 0) -> Any:
        nonlocal begun
        begun += 1
        return decode(self, text, at)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", counted)
    (found,) = json_items(put("a.json", [["word"] * 2000]) / "a.json")
    assert len(found[2]) == 2000
    assert begun <= 12  # 16,000 characters: 16, 32, 64, ... and not 1,000 parts


def test_an_ending_in_capitals_is_an_ending(put: Put) -> None:
    assert [row for _, row in rows(put("a.CSV", "a,b\n1,2\n") / "a.CSV")] == [{"a": "1", "b": "2"}]


# --- texts and names --------------------------------------------------------------------------------------------------


def test_records_without_a_text_are_counted_and_left_out(put: Put, told: Told) -> None:
    videos = [{"video_id": f"video{i}", "split": "train"} for i in range(3)]
    sentences = [{"video_id": "video0", "caption": " "}, {"video_id": "video2", "caption": "x"}]
    for i in range(3):
        root = put(f"video{i}.mp4")
    put("MSRVTT_data.json", {"videos": videos, "sentences": sentences})
    records, said = told(Msrvtt(data_root_dir=root, split="train", protocol="full"))
    assert [record.key for record in records] == ["video2"]
    assert "left out 2 records without a text, such as video0 in " in said


def test_a_text_of_ten_thousand_characters_without_spaces_is_a_book_too(put: Put, told: Told) -> None:
    put("a_0_1.mp4")
    root = put("vatex_training_v1.0.json", [{"videoID": "a_0_1", "chCap": ["文" * 10_001, "文" * 10_000]}])
    ((record,), said) = told(Vatex(data_root_dir=root, split="train", language="zh"))
    assert [len(text) for text in record.texts] == [10_000]
    assert "left out 1 texts of more than 10000 characters" in said


def test_halves_of_characters_in_texts_are_dropped_and_in_names_refused(put: Put, told: Told) -> None:
    root = put("a_0_1.mp4")
    put("vatex_training_v1.0.json", [{"videoID": "a_0_1", "enCap": [HALF, "y"]}])
    ((record,), said) = told(Vatex(data_root_dir=root, split="train"))
    assert record.texts == ("y",)
    assert "left out 1 texts with halves of characters" in said
    put("caption.json", {"a_0_1": {"start": [0, 1], "end": [1, 2], "text": [HALF, "y"]}})
    ((record,), said) = told(Howto100m(data_root_dir=root, split="train", val_share=0))
    assert [line.text for line in record.transcript] == ["y"]
    assert "left out 1 segments with halves of characters" in said
    put("val_data.json", [{"description": "x", "video": HALF}])
    with pytest.raises(DataError, match=r"val_data\.json:1: 'video' must be a text, has half of a character"):
        list(Didemo(data_root_dir=root, split="val").records())
    put("captions.jsonl", [{"video": HALF, "caption": "x"}])
    with pytest.raises(DataError, match=r"captions\.jsonl:1: video must be a text"):
        list(Captions(data_root_dir=root, split="train").records())


def test_a_segment_without_end_is_counted(put: Put, told: Told) -> None:
    root = put("a.mp4")
    put("caption.json", {"a": {"start": [0, 1], "end": [1, float("inf")], "text": ["x", "y"]}})
    ((record,), said) = told(Howto100m(data_root_dir=root, split="train", val_share=0))
    assert len(record.transcript) == 1
    assert "left out 1 segments without a start and a later end" in said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"start": 5, "end": 2}, "end 2 must be after start 5"),
        ({"start": float("nan")}, "'start' must be seconds, 0 or more, is nan"),
        ({"end": float("inf")}, "'end' must be seconds, 0 or more, is inf"),
        ({"end": 10**400}, "'end' must be seconds, 0 or more, is 1000"),
    ],
)
def test_seconds_of_antmmfs_lines_are_seconds(put: Put, line: dict[str, Any], message: str) -> None:
    put("a.mp4")
    root = put("a.jsonl", [{"clip_name": "a", "caption": "x", **line}])
    with pytest.raises(DataError, match=rf"a\.jsonl:1: {message}"):
        list(AntmmfJsonl(data_root_dir=root, annotations="a.jsonl").records())


def test_a_question_of_antmmfs_lines_has_its_kind(put: Put) -> None:
    put("a.mp4")
    asked = ["Who sings?", "what is it", "is it red", ""]
    lines = [{"clip_name": "a", "caption": question, "label": f"x{n}"} for n, question in enumerate(asked)]
    root = put("a.jsonl", lines)
    records = AntmmfJsonl(data_root_dir=root, annotations="a.jsonl", task="qa").records()
    assert [record.extras.get("kind") for record in records] == ["who", "what", "other", None]


# --- ids that occur twice ---------------------------------------------------------------------------------------------


def test_an_id_that_occurs_twice_is_refused_with_its_place(put: Put) -> None:
    for name in ("a.jpg", "a.mp4", "video1.mp4"):
        root = put(name)
    picture = {"filename": "a.jpg", "split": "val", "sentences": [{"raw": "x"}]}
    put("dataset_coco.json", {"images": [picture, picture]})
    question = {"id": 1, "question": "what", "answer": "a", "video_id": 1}
    put("val_qa.json", [question, {**question, "answer": "b"}])
    spoken = '{"start": [0], "end": [1], "text": ["x"]}'
    put("caption.json", f'{{"a": {spoken},\n "a": {spoken}}}')
    choice = {"clip_name": "a", "qid": "1", "answer": "0", "options": ["x", "y"]}
    put("mc.jsonl", [choice, choice])
    cases: list[tuple[Release, str]] = [
        (Coco(data_root_dir=root, split="val"), "image 2: 'a.jpg'"),
        (MsrvttQa(data_root_dir=root, split="val"), "val_qa.json:1: '1'"),
        (Howto100m(data_root_dir=root, split="train", val_share=0), "caption.json:2: 'a'"),
        (AntmmfJsonl(data_root_dir=root, annotations="mc.jsonl", task="choice"), "mc.jsonl:2: '1'"),
    ]
    for dataset, where in cases:
        with pytest.raises(DataError, match=f"{where} is there twice"):
            list(dataset.records())
    put("youtube_mapping.txt", "a vid1\r\nb vid1\r\n")
    with pytest.raises(DataError, match=r"youtube_mapping\.txt:2: 'vid1' is there twice"):
        youtube_names(root / "youtube_mapping.txt")


def test_rows_of_the_web_that_repeat_one_are_dropped_and_counted(put: Put, told: Told) -> None:
    root = put("1.mp4")
    put("results_2M_val.csv", "videoid,name\n1,first\n1,again\n")
    ((record,), said) = told(Webvid(data_root_dir=root, split="val"))
    assert record.texts == ("first",)
    assert "left out 1 rows on videos that an earlier row describes, such as " in said
    assert "results_2M_val.csv:3" in said
    for number in (0, 1, 2):
        put(f"val/{number:09d}.jpg")
    put("Validation_GCC-1.1.0-Validation.tsv", "a\thttp://h/1\nb\thttp://h/1\nc\thttp://h/2\n")
    records, said = told(Cc3m(data_root_dir=root, split="val"))
    assert [record.texts for record in records] == [("a",), ("c",)]
    assert "left out 1 rows with the address of an earlier one" in said


def test_a_picture_is_not_given_to_two_addresses_that_end_alike(put: Put, told: Told) -> None:
    root = put("val/photo.jpg")
    put("Validation_GCC-1.1.0-Validation.tsv", "a\thttp://g/photo.jpg\nb\thttp://h/photo.jpg\n")
    ((record,), said) = told(Cc3m(data_root_dir=root, split="val"))
    assert record.texts == ("a",)
    assert "left out 1 rows whose picture has the name of an earlier one's" in said


def test_rows_that_call_one_file_by_two_names_are_one_record(put: Put) -> None:
    root = put("a.mp4")
    put("captions.csv", "media,caption,split\na.mp4,x,train\na,y,train\n")
    (record,) = Captions(data_root_dir=root, split="train").records()
    assert record.texts == ("x", "y")


def test_names_of_a_list_that_the_annotations_lack_are_counted(put: Put, told: Told) -> None:
    root = put("a_0_1.mp4")
    put("vatex_validation_v1.0.json", [{"videoID": "a_0_1", "enCap": ["x"]}])
    put("val_list.txt", "a_0_1\nb_0_1\n")
    ((record,), said) = told(Vatex(data_root_dir=root, split="val"))
    assert record.key == "a_0_1"
    assert "left out 1 names of a list that vatex_validation_v1.0.json lacks, such as " in said
    assert "val_list.txt:2" in said


# --- questions and options --------------------------------------------------------------------------------------------


def test_questions_without_an_answer_or_with_a_book_for_one_are_counted(put: Put, told: Told) -> None:
    root = put("video1.mp4")
    asked = [("what", "a"), ("what", " "), ("", "b"), ("who", "b " * 10_000)]
    questions = [{"id": i, "question": q, "answer": a, "video_id": 1} for i, (q, a) in enumerate(asked)]
    put("val_qa.json", questions)
    ((record,), said) = told(MsrvttQa(data_root_dir=root, split="val"))
    assert record.answer == "a"
    assert "left out 2 empty texts" in said
    assert "left out 1 texts of more than 1000 words" in said


def test_videos_may_be_called_by_their_whole_name_in_msvd_qa(put: Put) -> None:
    root = put("clip.avi")
    put("youtube_mapping.txt", "clip vid1\r\n")
    put("val_qa.json", [{"id": i, "question": "q", "answer": "a", "video_id": id} for i, id in enumerate((1, "vid1"))])
    assert {Path(r.media).name for r in MsvdQa(data_root_dir=root, split="val").records()} == {"clip.avi"}


@pytest.mark.parametrize("options", [[], ["x"], ["x", None], ["x", ["y"]], "xy"])
def test_options_are_two_texts_or_more(put: Put, options: Any) -> None:
    put("a.mp4")
    root = put("msrvtt_mc_test.jsonl", [{"qid": "1", "clip_name": "a", "answer": "0", "options": options}])
    with pytest.raises(DataError, match=r"jsonl:1: 'options' must be"):
        list(MsrvttMc(data_root_dir=root).records())


def test_a_number_of_an_option_is_written_in_digits(put: Put) -> None:
    put("a.mp4")
    root = put("msrvtt_mc_test.jsonl", [{"qid": "1", "clip_name": "a", "answer": "²", "options": ["x", "y", "z"]}])
    with pytest.raises(DataError, match=r"jsonl:1: 'answer' must be the number of an option, 0 to 2, is '²'"):
        list(MsrvttMc(data_root_dir=root).records())


def test_a_question_with_an_empty_option_is_counted(put: Put, told: Told) -> None:
    put("a.mp4")
    lines = [{"qid": str(i), "clip_name": "a", "answer": 0, "options": ["x", o]} for i, o in enumerate(("y", ""))]
    records, said = told(MsrvttMc(data_root_dir=put("msrvtt_mc_test.jsonl", lines)))
    assert [record.key for record in records] == ["0"]
    assert "left out 1 questions with an option that cannot be used" in said


# --- other things in their place --------------------------------------------------------------------------------------


def test_values_of_other_kinds_are_named_with_their_place(put: Put) -> None:
    root = put("a.mp4")
    put("captions_val2017.json", {"images": [{"id": [1], "file_name": "a"}], "annotations": []})
    put("region_descriptions.json", [{"id": 1, "regions": ["x"]}])
    put("train_list.txt", "a\n")
    put("captions.json", {"a": "x"})
    cases: list[tuple[Release, str]] = [
        (Coco(data_root_dir=root, split="val", release="2017"), "image 1: 'id' must be a text, is list"),
        (VisualGenome(data_root_dir=root, split="train", val_share=0), r":1: a region must have 'phrase', is str"),
        (Msvd(data_root_dir=root, split="train"), "must be names with lists of captions"),
    ]
    for dataset, message in cases:
        with pytest.raises(DataError, match=message):
            list(dataset.records())


# --- media ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["link/../beside/secret", "link/../beside/secret.mp4"])
def test_dots_behind_a_link_do_not_lead_out_of_the_root(put: Put, name: str) -> None:
    root = put("root/ok.mp4") / "root"
    put("elsewhere/linked/a.mp4")
    put("elsewhere/beside/secret.mp4")
    (root / "link").symlink_to(root.parent / "elsewhere" / "linked")
    finder = MediaFinder(root, kind="video")
    assert finder.find(name) is None
    assert finder.find("link/../ok.mp4") == str(root / "ok.mp4")
    assert finder.find("link/a.mp4") == str(root / "link/a.mp4")  # what is linked there is meant to be


def test_a_video_in_a_folder_of_its_own_name_is_no_folder_of_frames(put: Put) -> None:
    root = put("video7/video7.mp4")
    put("video8/1.jpg")
    put("video8/.DS_Store")
    put("a.mov.mp4")
    finder = MediaFinder(root, kind="video")
    assert finder.find("video7") == str(root / "video7/video7.mp4")
    assert finder.find("video8") == str(root / "video8")
    assert finder.find("a.mov") == finder.find("x/a.mov") == str(root / "a.mov.mp4")


def test_archives_that_cannot_be_read_in_place_are_refused(put: Put) -> None:
    pytest.importorskip("lmdb")
    root = put("a.mp4")
    with tarfile.open(root / "part.tar", "w:gz") as archive:
        archive.add(root / "a.mp4", arcname="b.mp4")
    with pytest.raises(DataError, match=r"part\.tar: cannot be read as a tar"):
        MediaFinder(root).find("b")
    with pytest.raises(DataError, match=r"part\.tar: cannot be read as a tar"):
        list(Shards(data_root_dir=str(root), files="*.tar").records())
    (root / "part.tar").rename(root / "clips.lmdb")
    with pytest.raises(DataError, match=r"clips\.lmdb: cannot be read as an LMDB"):
        MediaFinder(root).find("b")


@pytest.mark.parametrize(
    ("table", "lines", "message"),
    [
        ([1], b"", r"train\.json: is no table of shards"),
        ({"shards": [{"file": "a.tar"}]}, b"", r"train\.json: is no table of shards: KeyError\('records'\)"),
        ({"shards": [{"file": "../a.tar", "records": 1}]}, b"", r"shards must lie beside it, '\.\./a\.tar' does not"),
        ({"shards": [{"file": "/etc/a.tar", "records": 1}]}, b"", r"shards must lie beside it"),
        ({"shards": [{"file": "b.tar", "records": 1}]}, b"", r"b\.jsonl cannot be read"),
        ({"shards": [{"file": "a.tar", "records": 1}]}, b"{}\n", r"a\.jsonl:1: is no record of a shard"),
        ({"shards": [{"file": "a.tar", "records": 1}]}, b"\xff\n", r"a\.jsonl:1: byte 0xff is not UTF-8"),
    ],
)
def test_tables_and_records_of_shards_are_checked(put: Put, table: Any, lines: bytes, message: str) -> None:
    put("train.json", table)
    with pytest.raises(DataError, match=message):
        list(Shards(data_root_dir=str(put("a.jsonl", lines))).records())
