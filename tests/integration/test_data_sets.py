"""Runs through the named data sets: real clips with their real annotations, and miniatures that are mixed."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import antmmf
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
import torch
import yaml
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.run import assemble
from antmmf_tasks.miniatures import write_miniature
from inferring import embed, lines_of

SHARED = Path(__file__).parents[3] / "shared" / "data"
CLIPS, VIDEOS = SHARED / "annotations" / "for_clips", SHARED / "videos"

MODEL = {
    "model_attributes": {
        "vision_encoder": {"type": "small_video", "params": {"image_size": 32, "max_frames": 4, "dim": 16, "depth": 1}},
        "text_encoder": {"type": "small_text", "params": {"dim": 16, "depth": 1}},
    },
    "task_attributes": {"type": "retrieval", "params": {"loss": "infonce"}},
    "input_attributes": {
        "sampler": {"type": "segments", "params": {"n_clips": 4, "num_frm": 1}},
        "train_transform": {"type": "resize_crop", "params": {"size": 32}},
        "eval_transform": {"type": "resize_crop", "params": {"size": 32}},
    },
    "metrics": ["recall"],
    "callbacks": ["console", "jsonl"],
}


def trained(
    folder: Path,
    datasets: dict[str, object],
    *,
    processes: int = 1,
    model: dict[str, object] | None = None,
    **training: object,
) -> tuple[str, Path]:
    """Train on ``datasets`` through the command line: the console's text, and the run's folder."""
    run = folder / f"run{processes}-{'-'.join(Path(str(value)).name for value in training.values())}"
    defaults = {"batch_size": 4, "test_batch_size": 4, "max_iterations": 4, "log_interval": 1, "num_workers": 0}
    parameters = {**defaults, "num_threads": 1, "device": "cpu", "save_dir": str(run), **training}
    config = folder / "config.yml"
    tree = {**MODEL, **(model or {}), "dataset_attributes": datasets, "training_parameters": parameters}
    config.write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m", "antmmf", "run", str(config)]
    command += ["--nproc-per-node", str(processes)] if processes > 1 else []
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr[-3000:] + answer.stdout[-3000:]
    return answer.stdout + answer.stderr, run


@dataclass(frozen=True)
class Real:
    """A run on real clips, what it said, and where the data sets lie that it saw."""

    said: str
    run: Path
    msvd: Path
    msrvtt: Path

    @property
    def unseen(self) -> list[str]:
        """The clips of MSVD that are its val split."""
        return sorted(self.captions)[5:]

    @property
    def captions(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = json.loads((self.msvd / "captions.json").read_text(encoding="utf-8"))
        return found

    @property
    def sentences(self) -> dict[str, list[str]]:
        """The captions of each clip of MSR-VTT, the test split."""
        found: dict[str, list[str]] = {}
        for sentence in json.loads((self.msrvtt / "MSRVTT_data.json").read_text(encoding="utf-8"))["sentences"]:
            found.setdefault(sentence["video_id"], []).append(" ".join(sentence["caption"].split()))
        return found


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    """Trained on clips of MSVD and WebVid and tested on those of MSR-VTT, with their own annotations as released."""
    if not CLIPS.is_dir():
        pytest.skip("the real clips in ../shared/data are not here")
    folder = tmp_path_factory.mktemp("real")
    msvd, webvid, msrvtt = (folder / name for name in ("msvd", "webvid", "msrvtt"))
    for root, videos in ((msvd, "msvd"), (webvid, "webvid"), (msrvtt, "msrvtt")):
        root.mkdir()
        (root / "videos").symlink_to(VIDEOS / videos)
    shutil.copy(CLIPS / "msvd_captions.json", msvd / "captions.json")
    names = sorted(json.loads((msvd / "captions.json").read_text(encoding="utf-8")))
    (msvd / "train_list.txt").write_text("\n".join(names[:5]))
    (msvd / "val_list.txt").write_text("\n".join(names[5:]))
    shutil.copy(SHARED / "annotations/webvid/results_2M_val.clips.csv", webvid / "results_2M_val.csv")
    shutil.copy(CLIPS / "msrvtt_videodatainfo.json", msrvtt / "MSRVTT_data.json")
    shutil.copy(CLIPS / "MSRVTT_JSFUSION_test.rows.csv", msrvtt / "MSRVTT_JSFUSION_test.csv")
    said, run = trained(
        folder,
        {
            "train": [
                {"type": "msvd", "params": {"data_root_dir": str(msvd), "split": "train"}, "weight": 3},
                {"type": "webvid", "params": {"data_root_dir": str(webvid), "split": "val"}, "weight": 1},
            ],
            "val": [{"type": "msvd", "params": {"data_root_dir": str(msvd), "split": "val"}}],
            "test": [{"type": "msrvtt", "params": {"data_root_dir": str(msrvtt), "split": "test", "protocol": "full"}}],
        },
        max_epochs=2,
        max_iterations=100,
    )
    return Real(said, run, msvd, msrvtt)


def test_real_clips_train_and_are_retrieved_through_msvd_webvid_and_msrvtt(real: Real) -> None:
    assert "antmmf-tasks:msvd: 5 videos x 1 of 39.2 captions in batches of 4 = 1 steps" in " ".join(real.said.split())
    figures = json.loads((real.run / "results.json").read_text(encoding="utf-8"))["figures"]
    assert figures["val/t2v/R1"]["n"] == len({text for name in real.unseen for text in real.captions[name]})
    assert figures["test/t2v/R1"]["n"] == len({text for texts in real.sentences.values() for text in texts})
    assert all(math.isfinite(figure["value"]) for figure in figures.values())
    assert not list(real.run.glob("quarantine*"))


def test_predictions_on_real_clips_are_the_cosines_of_the_embedded_vectors(real: Real, tmp_path: Path) -> None:
    """``run_type predict`` with the training run's own config, and ``antmmf embed`` of the same split of MSR-VTT."""
    places = (f"resume_file={real.run}", f"save_dir={tmp_path / 'found'}", "run_type=predict")
    config = [str(real.run.parent / "config.yml"), *(f"training_parameters.{place}" for place in places)]
    assemble(plan_run(config[0], config[1:], registry=Registry())).execute()
    data = ("msrvtt", f"data_root_dir={real.msrvtt}", "split=test", "protocol=full")
    said = embed(real.run, "--data", *data, "--out", tmp_path / "vectors")
    num = sum(map(len, real.sentences.values()))
    assert f"{len(real.sentences)} videos, {num} texts of {len(real.sentences)} records; model " in said
    videos, texts = (pq.read_table(tmp_path / "vectors" / "test" / kind).to_pydict() for kind in ("videos", "texts"))
    assert (set(videos), set(texts)) == ({"key", "media", "vector", "model"}, {"key", "text", "vector", "model"})
    told = [(line["key"], line["text"]) for line in pq.read_table(tmp_path / "vectors/test/texts").to_pylist()]
    assert sorted(told) == sorted((key, text) for key, some in real.sentences.items() for text in some)
    assert {*videos["model"], *texts["model"]} == {antmmf.load(real.run, device="cpu").hash}

    video, text = (torch.tensor(table["vector"], dtype=torch.float64) for table in (videos, texts))
    cosine = {
        (said, key): score
        for said, row in zip(texts["text"], (text @ video.T).tolist(), strict=True)
        for key, score in zip(videos["key"], row, strict=True)
    }
    lines = lines_of(tmp_path / "found" / "predictions" / "test.jsonl")
    of_texts, of_videos = lines[:num], lines[num:]
    assert [(line["truth"], line["query"]) for line in of_texts] == told
    for line in of_texts:
        assert sorted(one["key"] for one in line["ranked"]) == sorted(real.sentences)  # ten at most, there are nine
        assert [one["score"] for one in line["ranked"]] == sorted((o["score"] for o in line["ranked"]), reverse=True)
        for one in line["ranked"]:
            assert one["score"] == pytest.approx(cosine[line["query"], one["key"]], abs=1e-6)
    assert {line["video"]: line["texts"] for line in of_videos} == real.sentences
    for line in of_videos:
        best = sorted((cosine[said, line["video"]] for said in texts["text"]), reverse=True)[:10]
        assert [one["score"] for one in line["ranked"]] == pytest.approx(best, abs=1e-6)
        assert all(one["text"] in real.sentences[one["key"]] for one in line["ranked"])
    assert len(pq.read_table(tmp_path / "found" / "predictions" / "test.parquet")) == len(lines)


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("miniatures")
    for name in ("coco", "webvid", "howto100m"):
        write_miniature(name, folder / name)
    return folder


def mixture(folder: Path) -> dict[str, object]:
    """Pictures with one frame each, titled videos, and videos with their speech."""
    one_frame = {"type": "segments", "params": {"n_clips": 1}}
    return {
        "train": [
            {"type": "coco", "params": {"data_root_dir": str(folder / "coco"), "split": "train"}, "sampler": one_frame},
            {"type": "webvid", "params": {"data_root_dir": str(folder / "webvid"), "split": "train"}},
            {"type": "howto100m", "params": {"data_root_dir": str(folder / "howto100m"), "split": "train"}},
        ],
        "val": [{"type": "webvid", "params": {"data_root_dir": str(folder / "webvid"), "split": "val"}}],
    }


def losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [values["loss"] for values in map(json.loads, lines) if "loss" in values]


def test_pictures_and_videos_train_together_on_one_process_and_on_two(miniatures: Path, tmp_path: Path) -> None:
    datasets = mixture(miniatures)
    said, alone = trained(tmp_path, datasets, max_epochs=1, max_iterations=100)
    text = " ".join(said.split())
    assert "antmmf-tasks:coco: 16 videos x 1 of 5 captions in batches of 4 = 4 steps" in text
    assert "1 epoch = 14 steps, each from one of 3 data sets" in text
    assert len(losses(alone)) == 14
    _, together = trained(tmp_path, datasets, processes=2, max_epochs=1, max_iterations=100)
    assert losses(together) == pytest.approx(losses(alone), rel=1e-4)


def test_a_mixture_goes_on_where_it_stopped_with_the_same_bits(miniatures: Path, tmp_path: Path) -> None:
    datasets = mixture(miniatures)
    _, whole = trained(tmp_path, datasets, max_iterations=9, snapshot_interval=3)
    half = tmp_path / "half"
    shutil.copytree(whole, half)
    shutil.rmtree(half / "checkpoints" / "step_000009")
    shutil.rmtree(half / "checkpoints" / "step_000006")
    config = tmp_path / "config.yml"
    command = [sys.executable, "-m", "antmmf", "run", str(config), f"training_parameters.save_dir={half}"]
    answer = subprocess.run([*command, "training_parameters.resume=auto"], capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr[-3000:]
    name = Path("checkpoints/step_000009/model.safetensors")
    assert (half / name).read_bytes() == (whole / name).read_bytes()


def test_an_epoch_of_captions_is_said(miniatures: Path, tmp_path: Path) -> None:
    coco = {"type": "coco", "params": {"data_root_dir": str(miniatures / "coco"), "split": "train"}}
    said, _ = trained(tmp_path, {"train": [{**coco, "epoch_of": "captions", "texts_per_video": 1}]}, run_type="train")
    assert "1 epoch = 80 captions of 16 videos in batches of 4 = 20 steps" in " ".join(said.split())


def test_the_answers_of_training_are_in_the_checkpoint_and_others_count_as_wrong(tmp_path: Path) -> None:
    """MSVD-QA in its release's files: evaluated from the checkpoint alone, when the training questions are gone."""
    root = tmp_path / "data"
    write_miniature("msvd_qa", root)
    vqa: dict[str, object] = {"task_attributes": "vqa", "metrics": ["accuracy"]}
    blocks = {
        split: [{"type": "msvd_qa", "params": {"data_root_dir": str(root), "split": split, "num_answers": 3}}]
        for split in ("train", "test")
    }
    _, run = trained(tmp_path, blocks, model=vqa, max_iterations=2)
    (saved,) = (run / "checkpoints").glob("step_*")
    answers = json.loads((saved / "assets.json").read_text(encoding="utf-8"))["answers"]
    assert len(answers) == 3
    for path in root.rglob("train_qa.json"):
        path.unlink()
    said, again = trained(
        tmp_path, {"test": blocks["test"]}, model=vqa, run_type="val+predict", resume_file=str(saved), log_interval=2
    )
    lines = (again / "predictions" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    truth = [json.loads(line)["truth"] for line in lines]
    figures = json.loads((again / "results.json").read_text())["figures"]
    unknown = sum(answer not in answers for answer in truth)
    assert unknown > 0
    assert "unknown" in said
    assert figures["test/unknown"]["value"] == pytest.approx(100 * unknown / len(truth))
    assert all(choice["answer"] in answers for line in lines for choice in json.loads(line)["answers"])
