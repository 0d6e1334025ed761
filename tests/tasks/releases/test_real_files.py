"""Every data set reads the real files of its release that are there, to the last record.

The counts are those of the files themselves, found without our code (jq, wc, Python's csv module).
"""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path

import pytest
from antmmf.contracts import Record
from antmmf.errors import DataError
from antmmf_tasks.datasets.antmmf_jsonl import AntmmfJsonl
from antmmf_tasks.datasets.cc3m import Cc3m
from antmmf_tasks.datasets.cnvid import Cnvid
from antmmf_tasks.datasets.coco import Coco
from antmmf_tasks.datasets.didemo import Didemo
from antmmf_tasks.datasets.msrvtt import Msrvtt, Protocol
from antmmf_tasks.datasets.msrvtt_mc import MsrvttMc
from antmmf_tasks.datasets.msvd import Msvd
from antmmf_tasks.datasets.questions import MsrvttQa, MsvdQa
from antmmf_tasks.datasets.release import Release, Split
from antmmf_tasks.datasets.vatex import Vatex
from antmmf_tasks.datasets.visual_genome import VisualGenome
from antmmf_tasks.datasets.webvid import Webvid
from real_annotations import ANNOTATIONS, Real

pytestmark = pytest.mark.usefixtures("all_media")


def read(dataset: Release) -> list[Record]:
    """All records; their keys must differ."""
    records = list(dataset.records())
    assert len({record.key for record in records}) == len(records)
    return records


def num_texts(records: list[Record]) -> int:
    return sum(len(record.texts) for record in records)


@pytest.fixture
def msrvtt(real: Real) -> Path:
    root = real(
        {
            "annotations/MSRVTT_JSFUSION_test.csv": "msrvtt/MSRVTT_JSFUSION_test.csv",
            "test_videodatainfo.json": "msrvtt/test_videodatainfo.subset.json",
        }
    )
    with zipfile.ZipFile(ANNOTATIONS / "msrvtt" / "train_val_annotation.zip") as archive:
        archive.extract("train_val_videodatainfo.json", root)
    return root


@pytest.mark.parametrize(
    ("protocol", "split", "videos", "texts"),
    [
        ("full", "train", 6513, 130260),
        ("full", "val", 497, 9940),
        ("full", "test", 409, 8180),  # of a file that was cut
        ("7k-1k", "train", 6513, 130260),
        ("7k-1k", "val", 497, 497),
        ("7k-1k", "test", 1000, 1000),
        ("1k-A", "val", 497, 497),
        ("1k-A", "test", 1000, 1000),
    ],
)
def test_msrvtt(msrvtt: Path, protocol: Protocol, split: Split, videos: int, texts: int) -> None:
    records = read(Msrvtt(data_root_dir=msrvtt, split=split, protocol=protocol))
    assert (len(records), num_texts(records)) == (videos, texts)


def test_msrvtt_with_nothing_held_out_is_the_published_training_split(msrvtt: Path) -> None:
    records = read(Msrvtt(data_root_dir=msrvtt, split="train", protocol="7k-1k", hold_out=False))
    assert (len(records), num_texts(records)) == (7010, 140200)
    published = (ANNOTATIONS / "msrvtt" / "MSRVTT_train.7k.csv").read_text(encoding="utf-8").split()[1:]
    assert sorted(record.key for record in records) == sorted(published)


def test_msrvtt_1k_a_trains_on_the_published_list_without_val_and_never_on_test(msrvtt: Path) -> None:
    published = set((ANNOTATIONS / "msrvtt" / "MSRVTT_train.9k.csv").read_text(encoding="utf-8").split()[1:])
    keys = {
        name: {r.key for r in read(Msrvtt(data_root_dir=msrvtt, split=name))}  # type: ignore[arg-type]
        for name in ("train", "val", "test")
    }
    assert keys["train"] | keys["val"] <= published
    assert keys["val"] <= published
    assert not keys["test"] & (keys["train"] | keys["val"])
    assert not keys["train"] & keys["val"]
    with pytest.raises(DataError, match="the val videos of protocol 1k-A are trained on"):
        Msrvtt(data_root_dir=msrvtt, split="val", hold_out=False)


def test_didemo_makes_one_paragraph_of_a_video(real: Real) -> None:
    root = real({"val_data.json": "didemo/val_data.json"})
    records = read(Didemo(data_root_dir=root, split="val"))
    assert (len(records), num_texts(records)) == (1094, 1094)
    assert records[0].key == "35034348999@N01_6060447507_dc1a90b8ef.mov"
    assert records[0].texts[0].startswith("the man in the hat briefly bends over the machine the man is waving his arm")


def test_didemo_as_a_table_with_crlf(real: Real) -> None:
    root = real({"DiDeMo_train.tsv": "didemo/DiDeMo_train.first3000.tsv"})
    records = read(Didemo(data_root_dir=root, split="train", seconds=31))
    assert len(records) == 2962  # of 3,000 lines: some videos have several
    assert records[0].key == "100233434@N08_9622921646_c39ac10ea3.mp4"
    assert {record.end for record in records} == {31}


@pytest.mark.parametrize(("split", "clips", "texts"), [("train", 1200, 7194), ("val", 100, 584), ("test", 670, 3980)])
def test_msvd_in_chinese(real: Real, split: Split, clips: int, texts: int) -> None:
    root = real(
        {f"{name}_list.txt": f"msvd/{name}_list.txt" for name in ("train", "val", "test")}
        | {name: f"msvd/{name}" for name in ("youtube_mapping.txt", "msvd_cn_captions_release_utf8.csv")}
    )
    records = read(Msvd(data_root_dir=root, split=split, language="zh"))
    assert (len(records), num_texts(records)) == (clips, texts)
    assert {record.language for record in records} == {"zh"}


def test_msvd_from_pickle_and_json_says_what_captions_are_missing(real: Real, caplog: pytest.LogCaptureFixture) -> None:
    root = real({"train_list.txt": "msvd/train_list.txt", "raw-captions.pkl": "derived/msvd_raw-captions.derived.pkl"})
    with caplog.at_level(logging.WARNING, logger="antmmf"):
        records = read(Msvd(data_root_dir=root, split="train"))
    assert (len(records), num_texts(records)) == (303, 12012)
    assert records[0].texts[0] == "a squirrel is eating a peanut in it s shell"
    assert "msvd train: left out 897 clips without captions in raw-captions.pkl, such as" in caplog.text
    (root / "raw-captions.pkl").unlink()
    real({"captions.json": "msvd/captions_msvd.subset.json"})
    records = read(Msvd(data_root_dir=root, split="train"))
    assert (len(records), num_texts(records)) == (902, 36450)


def test_msvd_from_a_list_of_clips(real: Real) -> None:
    root = real({"train_list.txt": "msvd/train_list.txt", "captions.json": "msvd/mlds_training_label.json"})
    labels = json.loads((ANNOTATIONS / "msvd" / "mlds_training_label.json").read_text(encoding="utf-8"))
    names = set((ANNOTATIONS / "msvd" / "train_list.txt").read_text(encoding="utf-8").split())
    there = [clip for clip in labels if clip["id"][:-4] in names]
    records = read(Msvd(data_root_dir=root, split="train"))
    assert (len(records), num_texts(records)) == (len(there), sum(len(clip["caption"]) for clip in there))
    assert len(records) == 882


def test_vatex_in_the_format_of_value(real: Real) -> None:
    root = real({"vatex_en_c_val_release.jsonl": "vatex/vatex_en_c_val_release.first1500.jsonl"})
    records = read(Vatex(data_root_dir=root, split="val", protocol="official"))
    assert (len(records), num_texts(records)) == (1500, 15000)
    assert (records[0].key, records[0].texts[0]) == (
        "G9zN5TTuGO4_000179_000189",
        "a man repelling down a side of a mountain covered in snow",
    )
    with pytest.raises(DataError, match=r"must hold vatex_validation_v1\.0\.json \(from"):
        read(Vatex(data_root_dir=root, split="val", protocol="official", language="zh"))


def test_vatex(real: Real) -> None:
    root = real(
        {
            "vatex_validation_v1.0.json": "derived/vatex_validation_en.derived.json",
            "vatex_training_v1.0.json": "derived/vatex_enzh.derived.json",
            "val_list.txt": "vatex/val_list.txt",
            "test_list.txt": "vatex/test_list.txt",
        }
    )
    parts = {name: read(Vatex(data_root_dir=root, split=name)) for name in ("val", "test")}  # type: ignore[arg-type]
    assert {name: len(records) for name, records in parts.items()} == {"val": 308, "test": 292}
    assert not {r.key for r in parts["val"]} & {r.key for r in parts["test"]}
    whole = read(Vatex(data_root_dir=root, split="val", protocol="official"))
    assert (len(whole), num_texts(whole)) == (600, 6000)
    english, chinese = (read(Vatex(data_root_dir=root, split="train", language=name)) for name in ("en", "zh"))  # type: ignore[arg-type]
    assert (len(english), english[0].key) == (30, "Ptf_2VRj-V0_000122_000132")
    assert chinese[0].texts == ("一个带着白色安全帽的人正在和她的小伙爬山。",)
    with pytest.raises(DataError, match=r"must have 'chCap', has videoID, enCap; is it the right file\?"):
        read(Vatex(data_root_dir=root, split="val", language="zh"))


@pytest.mark.parametrize(
    ("file", "videos"),
    [("results_10M_val.first3300.csv", 3300), ("results_2M_val.clips.csv", 5), ("test_webvid.csv", 20)],
)
def test_webvid_in_both_orders_of_columns_and_with_line_breaks_in_titles(real: Real, file: str, videos: int) -> None:
    records = read(Webvid(data_root_dir=real({"results_2M_val.csv": f"webvid/{file}"}), split="val"))
    assert len(records) == videos
    assert all(record.key.endswith(".mp4") and "/" in record.key for record in records)
    assert not any("\n" in text for record in records for text in record.texts)


def test_cc3m(real: Real) -> None:
    name = "Validation_GCC-1.1.0-Validation.tsv"
    records = read(Cc3m(data_root_dir=real({name: "cc3m/Validation_GCC-1.1.0-Validation.first8000.tsv"}), split="val"))
    assert len(records) == 8000
    assert records[0].texts == ("author : a life in photography -- in pictures",)
    assert records[0].media.endswith("/000000000")


@pytest.mark.parametrize(("split", "pictures"), [("train", 400), ("val", 50)])
def test_the_derived_file_of_cc3m(real: Real, split: str, pictures: int) -> None:
    records = read(Cc3m(data_root_dir=real({"txt_cc3m.json": "cc3m/txt_cc3m.json"}), split=split))
    assert len(records) == pictures
    first = {"train": ("00000000", "a very typical bus station")}
    first["val"] = ("03318333", "author : a life in photography -- in pictures")
    assert (records[0].key, *records[0].texts) == first[split]
    assert records[0].media.endswith(f"/{first[split][0]}")


def test_coco(real: Real) -> None:
    root = real(
        {
            "annotations/captions_val2017.json": "coco/captions_val2017.subset.json",
            "annotations/captions_train2017.json": "coco/captions_train2017.mini.json",
            "dataset_coco.json": "coco/dataset_coco.karpathy.sample.json",
        }
    )
    records = read(Coco(data_root_dir=root, split="val", release="2017"))
    assert (len(records), num_texts(records)) == (2000, 10010)
    assert records[0].media == "/media/val2017/000000397133.jpg"
    assert len(read(Coco(data_root_dir=root, split="train", release="2017"))) == 80
    (record,) = read(Coco(data_root_dir=root, split="test"))
    assert record.media == "/media/val2014/COCO_val2014_000000391895.jpg"
    assert len(record.texts) == 5


def test_visual_genome(real: Real) -> None:
    root = real({"region_descriptions.json": "visual_genome/region_descriptions.sample.json"})
    (record,) = read(VisualGenome(data_root_dir=root, split="train"))
    assert record.texts == ("the clock is green in colour", "shade is along the street", "man is wearing sneakers")


def test_msvd_qa(real: Real) -> None:
    names = ("test_qa.json", "val_qa.json")
    root = real({name: f"msvd_qa/{name}" for name in names} | {"youtube_mapping.txt": "msvd/youtube_mapping.txt"})
    val, test = read(MsvdQa(data_root_dir=root, split="val")), read(MsvdQa(data_root_dir=root, split="test"))
    assert (len(val), len(test)) == (6415, 13157)
    assert (len({r.media for r in val}), len({r.media for r in test})) == (245, 504)
    assert val[0].media == "/media/bQJQGoJF7_k_162_169"  # vid1201
    assert (val[0].answer, val[0].extras["kind"]) == ("someone", "who")


def test_msrvtt_qa_in_three_formats(real: Real) -> None:
    root = real({"val_qa.json": "msrvtt_qa/val_qa_1000.json"})
    assert len(read(MsrvttQa(data_root_dir=root, split="val"))) == 11061
    (root / "val_qa.json").unlink()
    real({"val.jsonl": "msrvtt_qa/val.jsonl", "test_qa.csv": "for_clips/msrvtt_qa_test.hqga.csv"})
    records = read(MsrvttQa(data_root_dir=root, split="val"))
    assert len(records) == 12278
    assert (records[0].media, records[0].question) == ("/media/video6513", "what are three people sitting on?")
    assert len(read(MsrvttQa(data_root_dir=root, split="test"))) == 202


def test_msrvtt_mc(real: Real) -> None:
    root = real({"msrvtt_mc_test.jsonl": "msrvtt_mc/msrvtt_mc_test.first1500.jsonl"})
    records = read(MsrvttMc(data_root_dir=root))
    assert len(records) == 1500
    assert {len(record.options) for record in records} == {5}
    assert records[0].answer == records[0].options[0] == "the boy is trying to fix the problem"


def test_cnvid_transcripts(real: Real) -> None:
    names = ("video9770", "video9771")
    root = real({f"asr_files/{name}": f"cnvid/asr_files/{name}" for name in names})
    one, two = read(Cnvid(data_root_dir=root, split="train"))
    assert (len(one.transcript), len(two.transcript)) == (1, 3)
    assert two.language == "zh"


@pytest.mark.parametrize(
    ("file", "task", "records", "texts"),
    [
        ("msrvtt_train.jsonl", "retrieval", 2, 4),
        ("msrvtt_test.jsonl", "retrieval", 2, 2),
        ("VATEX_CN.jsonl", "retrieval", 2, 3),
        ("univl_video.jsonl", "retrieval", 3, 3),
        ("univl_img.jsonl", "retrieval", 1, 6),
        ("ucf101_sample.jsonl", "qa", 3, 0),
        ("msrvtt_multi_choice_qa.jsonl", "choice", 2, 0),
    ],
)
def test_antmmfs_own_lines(file: str, task: str, records: int, texts: int, real: Real) -> None:
    root = real({file: f"upstream_tests/{file}"})
    found = read(AntmmfJsonl(data_root_dir=root, annotations=file, task=task))  # type: ignore[arg-type]
    assert (len(found), num_texts(found)) == (records, texts)
