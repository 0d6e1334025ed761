"""Test data have no part in training: the best checkpoint is chosen on val, and only then is test read, once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.run import Run, assemble

STEPS, EVERY = 6, 2
CONFIG = {
    "model_attributes": {
        "vision_encoder": {"type": "small_video", "params": {"image_size": 32, "max_frames": 2, "dim": 16, "depth": 1}},
        "text_encoder": {"type": "small_text", "params": {"dim": 16, "depth": 1}},
    },
    "task_attributes": {"type": "retrieval"},
    "dataset_attributes": {
        split: [{"type": "clips", "params": {"split": split}}] for split in ("train", "val", "test")
    },
    "input_attributes": {"reader": "noted", "sampler": {"type": "uniform", "params": {"n_clips": 2}}},
    "optimizer_attributes": {"type": "AdamW", "params": {"lr": 0.3}},  # so much that the last step is not the best
    "metrics": ["recall"],
    "callbacks": ["jsonl"],
    "training_parameters": {
        "monitored_metric": "t2v/MnR",
        "metric_minimize": True,
        "batch_size": 4,
        "max_iterations": STEPS,
        "log_interval": 1,
        "evaluation_interval": EVERY,
        "num_threads": 1,
        "worker_start_method": "spawn",  # a server of an earlier test would not know WATCHED
        "device": "cpu",
    },
}


@pytest.mark.parametrize(("run_type", "num_workers"), [("train+val", 0), ("train+val+predict", 1)])
def test_no_test_clip_is_read_before_training_has_ended_and_then_each_once(
    run_type: str, num_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, facts = watched(tmp_path, monkeypatch, f"run_type={run_type}", f"num_workers={num_workers}")
    assert "test" in run.loaders
    end = facts.index(f"evaluated val after {STEPS}")  # the last choice among checkpoints
    before, after = facts[: end + 1], facts[end + 1 :]
    assert [fact for fact in before if fact.startswith("step")] == [f"step {step + 1}" for step in range(STEPS)]
    assert {fact for fact in before if fact.startswith("read")} == {"read train", "read val"}
    assert after == ["read test"] * 8 + [f"evaluated test after {STEPS}"]


def test_the_best_checkpoint_is_that_of_val_and_test_is_measured_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = watched(tmp_path, monkeypatch, "run_type=train+val", "num_workers=0")
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    of_val = {line["step"]: line["figures"]["val/t2v/MnR"]["value"] for line in lines if line.get("split") == "val"}
    best = min(of_val, key=lambda step: of_val[step])  # the first of equal ones
    assert run.state.best_step == best != STEPS
    chosen = run.folder / "checkpoints" / f"step_{best:06d}"
    only_test = ("run_type=val", f"resume_file={chosen}", f"save_dir={tmp_path / 'again'}")
    again, _ = watched(tmp_path, monkeypatch, *only_test)
    assert figures(again) == figures(run)


def figures(run: Run) -> dict[str, object]:
    found: dict[str, object] = json.loads((run.folder / "results.json").read_text(encoding="utf-8"))["figures"]
    return found


def watched(folder: Path, monkeypatch: pytest.MonkeyPatch, *training: str) -> tuple[Run, list[str]]:
    """A run after its end, and what was read, done and evaluated in it, in this order."""
    monkeypatch.setenv("WATCHED", str(folder / "facts.txt"))
    (folder / "config.yml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    arguments = [f"training_parameters.{setting}" for setting in (f"save_dir={folder / 'run'}", *training)]
    registry = Registry(files=[Path(__file__).with_name("watched.py")])
    run = assemble(plan_run(str(folder / "config.yml"), arguments, registry=registry))
    run.execute()
    return run, (folder / "facts.txt").read_text(encoding="utf-8").splitlines()
