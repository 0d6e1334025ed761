"""What goes wrong with annotation files: a clear error, or a drop that is counted, each with its place."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from antmmf.errors import DataError
from antmmf_tasks.datasets.antmmf_jsonl import AntmmfJsonl
from antmmf_tasks.datasets.cnvid import Cnvid
from antmmf_tasks.datasets.coco import Coco
from antmmf_tasks.datasets.didemo import Didemo
from antmmf_tasks.datasets.files import json_items, lines, plain_pickle, rows
from antmmf_tasks.datasets.msrvtt import Msrvtt
from antmmf_tasks.datasets.msrvtt_mc import MsrvttMc
from antmmf_tasks.datasets.msvd import Msvd
from antmmf_tasks.datasets.questions import MsrvttQa, MsvdQa
from antmmf_tasks.datasets.release import Release
from antmmf_tasks.datasets.vatex import Vatex
from antmmf_tasks.datasets.visual_genome import VisualGenome
from antmmf_tasks.datasets.webvid import Webvid

Make = Callable[[], Release]


def put(root: Path, name: str, content: Any) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        [1, -2.5e3, "a,]", {"b": [1, {"c": "}"}]}, None, True],
        {"a": {"start": [0.5], "text": ["x"]}, "b\\n": 12345, 'c"': [[]]},
        ["文" * 50, {"k": "\\\\"}],
    ],
)
def test_members_are_those_of_the_json_however_it_is_cut(
    tmp_path: Path, value: Any, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antmmf_tasks.datasets.files._PART", part)
    for indent in (None, 2):
        path = put(tmp_path, "a.json", json.dumps(value, indent=indent, ensure_ascii=False))
        found = [(key, member) for _, key, member in json_items(path)]
        assert found == (list(value.items()) if isinstance(value, dict) else [("", member) for member in value])


def test_the_place_of_a_member_is_its_line(tmp_path: Path) -> None:
    path = put(tmp_path, "a.json", '[\n {"a": 1},\n\n {"b":\n 2}, 3\n]')
    assert [place.rpartition(":")[2] for place, _, _ in json_items(path)] == ["2", "4", "5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}, {"a": ', r"a\.json:1: .*is the file all there"),
        ('[{"a": 1},\n {"a": 2}', r"a\.json:2: the file ends too early"),
        ("[1 2]", r"a\.json:1: a comma or \] must stand here"),
        ('{"a" 1}', r"a\.json:1: a name and a colon must stand here"),
        ("17", r"a\.json:1: must be a JSON array or object"),
        ("", r"a\.json:1: the file ends too early"),
        ("<html>", r"a\.json:1: must be a JSON array or object"),
    ],
)
def test_broken_json_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(json_items(put(tmp_path, "a.json", text)))


@pytest.mark.parametrize("read", [json_items, lines, rows])
def test_bytes_that_are_no_utf8_are_named_with_their_line(read: Callable[[Path], Any], tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", b'{"a": 1}\n{"a": "gr' + b"\xfc" + b'n"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: byte 0xfc is not UTF-8"):
        list(read(path))


def test_a_pickle_that_could_run_code_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.pkl", pickle.dumps({"clip": [["a", "dog"]]}))
    assert plain_pickle(path) == {"clip": [["a", "dog"]]}
    put(tmp_path, "a.pkl", pickle.dumps(Path("x")))
    with pytest.raises(DataError, match=r"a\.pkl: is no pickle of plain values .*which could run code"):
        plain_pickle(path)
    put(tmp_path, "a.pkl", b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match=r"a\.pkl: is no pickle of plain values"):
        plain_pickle(path)


# --- data sets --------------------------------------------------------------------------------------------------------

VIDEOS = {
    "videos": [{"video_id": "video0", "split": "train"}, {"video_id": "video1", "split": "train"}],
    "sentences": [{"video_id": "video0", "caption": "x"}, {"video_id": "video1", "caption": "y"}],
}


def edited(value: Any, path: Sequence[Any], new: Any) -> Any:
    """A copy of JSON with one value changed."""
    value = json.loads(json.dumps(value))
    node = value
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = new
    return value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"MSRVTT_data\.json: must have 'videos', has list; is it the right file\?"),
        ({"images": []}, r"MSRVTT_data\.json: must have 'videos', has images; is it the right file\?"),
        (edited(VIDEOS, ["videos", 1, "video_id"], "video0"), r"video 2: 'video0' is there twice"),
        (edited(VIDEOS, ["sentences", 1, "video_id"], "video9"), r"sentence 2: 'video9' is none of the file's videos"),
        (edited(VIDEOS, ["videos", 0], {"video_id": "video0"}), r"video 1: must have 'split', has video_id"),
        ('{"videos": [', r"MSRVTT_data\.json:1: is no JSON .*is it all there\?"),
    ],
)
@pytest.mark.usefixtures("all_media")
def test_msrvtt_from_a_wrong_file(tmp_path: Path, content: Any, message: str) -> None:
    put(tmp_path, "MSRVTT_data.json", content)
    with pytest.raises(DataError, match=message):
        list(Msrvtt(data_root_dir=tmp_path, split="train", protocol="full").records())


def make(name: str, root: Path) -> Release:
    """A data set and a file of another one in the place of its own."""
    cases: dict[str, tuple[dict[str, Any], Make]] = {
        "coco": ({"captions_val2017.json": VIDEOS}, lambda: Coco(data_root_dir=root, split="val", release="2017")),
        "didemo": ({"val_data.json": VIDEOS}, lambda: Didemo(data_root_dir=root, split="val")),
        "msvd": ({"val_list.txt": "a", "captions.json": [1]}, lambda: Msvd(data_root_dir=root, split="val")),
        "vatex": ({"vatex_training_v1.0.json": [VIDEOS]}, lambda: Vatex(data_root_dir=root, split="train")),
        "webvid": ({"results_2M_val.csv": "key,video_id\na,b\n"}, lambda: Webvid(data_root_dir=root, split="val")),
        "genome": ({"region_descriptions.json": [VIDEOS]}, lambda: VisualGenome(data_root_dir=root, split="train")),
        "msrvtt_qa": ({"val_qa.json": [VIDEOS]}, lambda: MsrvttQa(data_root_dir=root, split="val")),
        "msvd_qa": (
            {"val_qa.json": [{"question": "q", "answer": "a", "video_id": 1}], "youtube_mapping.txt": "vid1 a"},
            lambda: MsvdQa(data_root_dir=root, split="val"),
        ),
        "mc": ({"msrvtt_mc_test.jsonl": json.dumps(VIDEOS)}, lambda: MsrvttMc(data_root_dir=root)),
        "cnvid": ({"caption.json": {"a": [1]}}, lambda: Cnvid(data_root_dir=root, split="train")),
        "jsonl": ({"a.jsonl": '{"video": "a"}'}, lambda: AntmmfJsonl(data_root_dir=root, annotations="a.jsonl")),
    }
    files, dataset = cases[name]
    for file, content in files.items():
        put(root, file, content)
    return dataset()


@pytest.mark.parametrize(
    "name",
    ["coco", "didemo", "msvd", "vatex", "webvid", "genome", "msrvtt_qa", "msvd_qa", "mc", "cnvid", "jsonl"],
)
@pytest.mark.usefixtures("all_media")
def test_another_file_in_its_place_is_named_and_what_it_lacks(name: str, tmp_path: Path) -> None:
    dataset = make(name, tmp_path)
    with pytest.raises(DataError, match=rf"{tmp_path}/.*(must|is none of)"):
        list(dataset.records())


def test_a_file_that_is_not_there_is_named_with_where_to_get_it(tmp_path: Path) -> None:
    put(tmp_path, "other.txt", "")
    expected = r"must hold val_data\.json or DiDeMo_val\.tsv \(from https://github\.com/.*\); it holds other\.txt"
    with pytest.raises(DataError, match=expected):
        Didemo(data_root_dir=tmp_path, split="val").sources()
    with pytest.raises(DataError, match=r"data_root_dir .*nowhere is not a folder"):
        Didemo(data_root_dir=tmp_path / "nowhere", split="val").sources()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "x\0y"])
def test_a_name_that_leads_out_of_the_root_is_an_error_or_a_counted_drop(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moment = {"description": "x", "video": name}
    put(tmp_path, "good.mp4", b"")
    put(tmp_path, "val_data.json", [moment, {"description": "y", "video": "good.mp4"}])
    with pytest.raises(DataError, match=r"val_data\.json:1: .* leads out of .*; media must lie below it"):
        list(Didemo(data_root_dir=tmp_path, split="val").records())
    with caplog.at_level(logging.WARNING, logger="antmmf"):
        (record,) = Didemo(data_root_dir=tmp_path, split="val", missing="drop").records()
    assert record.key == "good.mp4"
    assert "left out 1 media names that lead out of the data root" in caplog.text


@pytest.mark.usefixtures("all_media")
def test_empty_and_endless_texts_are_counted_with_their_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "results_2M_val.csv", f'videoid,name\n1,\n2,"a\n  b"\n3,{"word " * 10_000}\n')
    with caplog.at_level(logging.WARNING, logger="antmmf"):
        (record,) = Webvid(data_root_dir=tmp_path, split="val").records()
    assert record.texts == ("a b",)
    assert "webvid val: left out 1 empty texts, such as" in caplog.text
    assert "results_2M_val.csv:2" in caplog.text
    assert "left out 1 texts of more than 1000 words, such as" in caplog.text
    assert "results_2M_val.csv:5" in caplog.text


def test_missing_media_are_summed_up_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "videos/1.mp4", b"")
    put(tmp_path, "results_2M_val.csv", "videoid,name\n" + "".join(f"{i},text {i}\n" for i in range(7)))
    with pytest.raises(DataError, match=r"webvid val: 6 of 7 media do not exist: 0\.mp4 \(.*csv:2\), .* and 3 more"):
        list(Webvid(data_root_dir=tmp_path, split="val").records())
    with caplog.at_level(logging.WARNING, logger="antmmf"):
        records = list(Webvid(data_root_dir=tmp_path, split="val", missing="drop").records())
    assert len(records) == 1
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("all_media")
def test_a_mapping_that_lacks_a_video_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "youtube_mapping.txt", "clip_a vid1\r\nclip_b vid2\r\n")
    put(tmp_path, "val_qa.json", [{"id": i, "question": "what", "answer": "a", "video_id": i} for i in (1, 2, 3)])
    with caplog.at_level(logging.WARNING, logger="antmmf"):
        records = list(MsvdQa(data_root_dir=tmp_path, split="val").records())
    assert [record.media for record in records] == ["/media/clip_a", "/media/clip_b"]
    assert "left out 1 questions on videos that youtube_mapping.txt lacks" in caplog.text


# --- what no real file shows ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("all_media")
def test_answers_are_those_of_training_and_evaluation_keeps_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers = ["cat"] * 5 + ["dog"] * 3 + ["ant"] * 3 + ["emu"]
    questions = [{"id": i, "question": "what is it", "answer": a, "video_id": i} for i, a in enumerate(answers)]
    put(tmp_path, "train_qa.json", questions)
    put(tmp_path, "test_qa.json", questions[-2:])
    with caplog.at_level(logging.WARNING, logger="antmmf"):
        train = list(MsrvttQa(data_root_dir=tmp_path, split="train", num_answers=2).records())
    assert {record.answer for record in train} == {"cat", "ant"}  # as frequent as dog, and before it in the alphabet
    assert "left out 4 questions whose answers are not among the 2 most frequent" in caplog.text
    test = list(MsrvttQa(data_root_dir=tmp_path, split="test", num_answers=2).records())
    assert [record.answer for record in test] == ["ant", "emu"]


@pytest.mark.usefixtures("all_media")
def test_visual_genome_holds_out_and_can_leave_out_what_coco_evaluates_on(tmp_path: Path) -> None:
    images = [{"id": i, "regions": [{"phrase": "a"}, {"phrase": " a "}, {"phrase": f"b {i}"}]} for i in range(300)]
    put(tmp_path, "region_descriptions.json", images)
    put(tmp_path, "image_data.json", [{"image_id": i, "coco_id": 1000 + i if i % 2 else None} for i in range(300)])
    coco = [{"cocoid": 1000 + i, "split": "test" if i < 100 else "train"} for i in range(300)]
    put(tmp_path, "dataset_coco.json", {"images": coco})
    kept = {
        split: {r.key for r in VisualGenome(data_root_dir=tmp_path, split=split, val_share=0.2).records()}  # type: ignore[arg-type]
        for split in ("train", "val")
    }
    assert len(kept["train"] | kept["val"]) == 300
    assert not kept["train"] & kept["val"]
    assert 30 < len(kept["val"]) < 90
    without = {
        r.key for r in VisualGenome(data_root_dir=tmp_path, split="train", val_share=0, drop_coco=True).records()
    }
    assert without == {str(i) for i in range(300) if i >= 100 or i % 2 == 0}
    (first, *_) = VisualGenome(data_root_dir=tmp_path, split="train", val_share=0).records()
    assert first.texts == ("a", "b 0")


@pytest.mark.usefixtures("all_media")
@pytest.mark.parametrize("place", ["dataset_coco.json", "../coco/dataset_coco.json"])
def test_one_data_root_serves_coco_and_what_visual_genome_leaves_out_of_it(tmp_path: Path, place: str) -> None:
    root = tmp_path / "visual_genome"
    put(root, "region_descriptions.json", [{"id": i, "regions": [{"phrase": "a"}]} for i in range(4)])
    put(root, "image_data.json", [{"image_id": i, "coco_id": 1000 + i} for i in range(4)])
    put(root, place, {"images": [{"cocoid": 1000, "split": "val"}, {"cocoid": 1001, "split": "train"}]})
    kept = VisualGenome(data_root_dir=tmp_path, split="train", val_share=0, drop_coco=True).records()
    assert [record.key for record in kept] == ["1", "2", "3"]


@pytest.mark.usefixtures("all_media")
def test_karpathys_split_trains_on_restval(tmp_path: Path) -> None:
    images = [
        {"filepath": "val2014", "filename": f"{i}.jpg", "split": split, "sentences": [{"raw": f"caption {i}"}]}
        for i, split in enumerate(["train", "restval", "val", "test", "restval"])
    ]
    put(tmp_path, "dataset_coco.json", {"images": images})
    found = {
        split: [r.key for r in Coco(data_root_dir=tmp_path, split=split).records()]  # type: ignore[arg-type]
        for split in ("train", "val", "test")
    }
    assert found == {"train": ["0.jpg", "1.jpg", "4.jpg"], "val": ["2.jpg"], "test": ["3.jpg"]}
    with pytest.raises(DataError, match="captions of 2014's test pictures are not public"):
        Coco(data_root_dir=tmp_path, split="test", release="2014")


@pytest.mark.usefixtures("all_media")
def test_choices_without_a_true_one_are_refused(tmp_path: Path) -> None:
    line = {"qid": "a", "clip_name": "video0", "options": ["x", "y"], "answer": "2"}
    put(tmp_path, "msrvtt_mc_test.jsonl", json.dumps(line))
    with pytest.raises(DataError, match=r"jsonl:1: 'answer' must be the number of an option, 0 to 1, is '2'"):
        list(MsrvttMc(data_root_dir=tmp_path).records())
