"""Pre-training on real footage and real pictures: COCO, MSR-VTT, MSVD and WebVid mixed, with their own captions."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.run import Run, assemble

SHARED = Path(__file__).parents[3] / "shared" / "data"
ANNOTATIONS, VIDEOS = SHARED / "annotations", SHARED / "videos"
BATCH, STEPS = 5, 90

pytestmark = pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason=f"real clips and pictures are not at {SHARED}")


def release_folders(folder: Path) -> list[dict[str, Any]]:
    """The data sets as they are released, in folders of their own; pictures have one frame, clips four."""
    coco, msrvtt, msvd, webvid = (folder / name for name in ("coco", "msrvtt", "msvd", "webvid"))
    for root in (coco, msrvtt, msvd, webvid):
        root.mkdir()
    for root in (msrvtt, msvd, webvid):
        (root / "videos").symlink_to(VIDEOS / root.name)
    (coco / "train2017").symlink_to(SHARED / "images/coco/train2017")
    shutil.copy(ANNOTATIONS / "coco/captions_train2017.mini.json", coco / "captions_train2017.json")
    shutil.copy(ANNOTATIONS / "for_clips/msrvtt_videodatainfo.json", msrvtt / "MSRVTT_data.json")
    shutil.copy(ANNOTATIONS / "for_clips/msvd_captions.json", msvd / "captions.json")
    names = json.loads((msvd / "captions.json").read_text(encoding="utf-8"))
    (msvd / "train_list.txt").write_text("\n".join(sorted(names)))
    shutil.copy(ANNOTATIONS / "webvid/results_2M_val.clips.csv", webvid / "results_2M_val.csv")
    chosen: dict[str, dict[str, Any]] = {
        "coco": {"release": "2017", "split": "train", "missing": "drop"},  # 30 of the 80 pictures are here
        "msrvtt": {"protocol": "full", "split": "test"},
        "msvd": {"split": "train"},
        "webvid": {"split": "val"},
    }
    blocks: list[dict[str, Any]] = [
        {"type": name, "params": {**params, "data_root_dir": str(folder / name)}} for name, params in chosen.items()
    ]
    blocks[0]["sampler"] = {"type": "segments", "params": {"n_clips": 1}}
    return blocks


def planned(folder: Path) -> Run:
    """A tiny SNP-S3 with all losses of the paper."""
    config = {
        "model_attributes": {
            "vision_encoder": {"type": "small_video", "params": {"image_size": 32, "max_frames": 4, "depth": 1}},
            "text_encoder": {
                "type": "bert",
                "params": {
                    "name": "google/bert_uncased_L-2_H-128_A-2",
                    "pretrained": False,
                    "vocab_size": 600,
                    "layers": 1,
                    "pool": "mean",
                    "dropout": 0.0,
                    "attention": True,
                },
            },
        },
        "task_attributes": {"type": "snps3", "params": {"masking": {"words_top_k": 200}, "dropout": 0.0}},
        "dataset_attributes": {"train": release_folders(folder)},
        "input_attributes": {
            "reader": {"type": "cached", "params": {"fps": 1, "short_side": 32, "folder": str(folder / "frames")}},
            "sampler": {"type": "segments", "params": {"n_clips": 4, "num_frm": 1}},
            "train_transform": {"type": "resize_crop", "params": {"size": 32}},
            "eval_transform": {"type": "resize_crop", "params": {"size": 32}},
            "on_bad_sample": "skip",
        },
        "optimizer_attributes": {"type": "AdamW", "params": {"lr": 5e-4}},
        "callbacks": ["jsonl"],
        "training_parameters": {
            "run_type": "train",
            "batch_size": BATCH,
            "max_iterations": STEPS,
            "log_interval": 1,
            "max_grad_l2_norm": 1.0,
            "lr_scheduler": {"type": "cosine", "params": {"warmup_iterations": 20}},
            "num_workers": 0,
            "num_threads": 1,
            "device": "cpu",
        },
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    return assemble(plan_run(str(folder / "config.yml"), registry=Registry()), folder=folder / "run")


class Said(logging.Handler):
    """Keeps what the run says."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@dataclass
class Finished:
    """A run, the terms of each of its steps, and what it said."""

    run: Run
    terms: list[dict[str, float]]
    said: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    said = Said()
    logging.getLogger("antmmf").addHandler(said)
    try:
        run = planned(tmp_path_factory.mktemp("pretraining"))
        run.execute()
    finally:
        logging.getLogger("antmmf").removeHandler(said)
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    terms = [values["terms"] for values in map(json.loads, lines) if values["kind"] == "step"]
    return Finished(run, terms, "\n".join(said.lines))


def first_and_last(finished: Finished, name: str) -> tuple[float, float]:
    """A loss over the first thirty steps, and over the last."""
    assert len(finished.terms) == STEPS
    return fmean(step[name] for step in finished.terms[:30]), fmean(step[name] for step in finished.terms[-30:])


@pytest.mark.parametrize("name", ["contrast", "lvwm", "mlm_text", "mlm"])
def test_losses_on_real_clips_and_pictures_fall(finished: Finished, name: str) -> None:
    first, last = first_and_last(finished, name)
    assert last < 0.95 * first


@pytest.mark.parametrize("name", ["match", "gvtm"])
def test_what_needs_more_steps_than_these_does_not_rise(finished: Finished, name: str) -> None:
    first, last = first_and_last(finished, name)
    assert last < 1.02 * first


def test_every_picture_and_clip_that_is_there_is_trained_on(finished: Finished) -> None:
    annotated = json.loads((ANNOTATIONS / "coco/captions_train2017.mini.json").read_text(encoding="utf-8"))["images"]
    pictures = [image for image in annotated if (SHARED / "images/coco/train2017" / image["file_name"]).is_file()]
    clips = json.loads((ANNOTATIONS / "for_clips/msrvtt_videodatainfo.json").read_text(encoding="utf-8"))["videos"]
    captions = json.loads((ANNOTATIONS / "for_clips/msvd_captions.json").read_text(encoding="utf-8"))
    with (ANNOTATIONS / "webvid/results_2M_val.clips.csv").open(encoding="utf-8", newline="") as file:
        titled = list(csv.DictReader(file))
    loader = finished.run.loaders["train"]
    assert [len(part) for part in loader.parts] == [len(pictures), len(clips), len(captions), len(titled)]
    assert loader.shares == [len(part) // BATCH for part in loader.parts]


def test_no_sample_is_bad_and_what_annotations_name_in_vain_is_said(finished: Finished) -> None:
    assert finished.run.state.bad_samples == 0
    assert not list(finished.run.folder.glob("quarantine*"))
    assert "coco 2017 train: 50 of 80 media do not exist" in finished.said
