"""The main job on real footage: clips of many data sets, codecs and sizes, with their own captions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2].with_name("shared") / "data"

pytestmark = pytest.mark.skipif(not (SHARED / "clips.jsonl").is_file(), reason=f"real clips are not at {SHARED}")

OVERRIDES = (
    "training_parameters.max_iterations=6",
    "training_parameters.batch_size=16",
    "training_parameters.test_batch_size=8",
    "training_parameters.evaluation_interval=3",
    "training_parameters.num_threads=1",
    "training_parameters.device=cpu",
    "input_attributes.on_bad_sample=fail",
)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished ``antmmf run quickstart --data`` on every clip of clips.jsonl."""
    root = tmp_path_factory.mktemp("clips")
    (root / "videos").symlink_to(SHARED / "videos")
    rows = [json.loads(line) for line in (SHARED / "clips.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["file"].startswith("videos/")]
    with (root / "captions.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            texts = row.get("captions") or [row.get("caption") or row.get("label") or row["id"]]
            file.write(json.dumps({"video": row["file"], "captions": [text for text in texts if text.strip()]}) + "\n")
    folder = tmp_path_factory.mktemp("run") / "save"
    command = [sys.executable, "-m", "antmmf", "run", "quickstart", "--data", str(root)]
    command += [f"training_parameters.save_dir={folder}", *OVERRIDES]
    command += [f"dataset_attributes.{split}.0.params.text_column=captions" for split in ("train", "val", "test")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test t2v R@1" in done.stdout
    return folder


def test_real_clips_train_and_evaluate_without_an_error(run_folder: Path) -> None:
    figures = json.loads((run_folder / "results.json").read_text())["figures"]
    assert {"val/t2v/R1", "test/t2v/R1", "test/v2t/R1"} <= set(figures)
    assert all(0 <= figure["value"] <= 100 for name, figure in figures.items() if name.endswith("R1"))


def test_the_split_of_real_clips_is_written_into_the_run_folder(run_folder: Path) -> None:
    lines = (run_folder / "split.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "media,group,split"
    assert {line.rsplit(",", 1)[1] for line in lines[1:]} == {"train", "val", "test"}


def test_no_real_clip_is_quarantined(run_folder: Path) -> None:
    assert not list(run_folder.glob("quarantine*"))
