"""Runs of the shipped recipe, made tiny: what they write, where they start, what they refuse."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from antmmf.checkpoint import load_checkpoint
from antmmf.errors import AntmmfError, CheckpointError, ConfigError
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.run import Run, assemble
from antmmf.smoke import smoke_run
from safetensors.torch import load_file

Execute = Callable[..., Run]

TINY = (
    "callbacks=[antmmf-core:jsonl]",
    "training_parameters.max_iterations=6",
    "training_parameters.batch_size=8",
    "training_parameters.test_batch_size=8",
    "training_parameters.evaluation_interval=3",
    "training_parameters.snapshot_interval=2",
    "training_parameters.log_interval=2",
    "training_parameters.max_ckpt_num=10",
    "training_parameters.num_threads=1",
    "training_parameters.device=cpu",
    "model_attributes.vision_encoder.params.dim=16",
    "model_attributes.vision_encoder.params.depth=1",
    "model_attributes.text_encoder.params.dim=16",
    "model_attributes.text_encoder.params.depth=1",
)
SIZES = [
    f"dataset_attributes.{split}.0.params.{name}={value}"
    for split in ("train", "val", "test")
    for name, value in (("num_train", 40), ("num_val", 12), ("num_test", 12), ("seconds", 1.0))
]


def execute(folder: Path, *more: str) -> Run:
    """Plan, assemble and execute the quickstart, tiny, in ``folder``."""
    overrides: Sequence[str] = (*TINY, *SIZES, f"training_parameters.save_dir={folder}", *more)
    run = assemble(plan_run("quickstart", overrides, registry=Registry()))
    run.execute()
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 6 steps."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    execute(folder)
    return folder


def test_the_run_folder_holds_what_the_design_says(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert {"config.yml", "provenance.json", "plugins.lock.json", "environment.json"} <= names
    assert {"metrics.jsonl", "results.json", "checkpoints"} <= names
    steps = {path.name for path in (whole / "checkpoints").iterdir()}
    assert {"step_000002", "step_000004", "step_000006", "latest", "best"} <= steps


def test_the_results_have_intervals_and_test_is_evaluated_once(whole: Path) -> None:
    figures = json.loads((whole / "results.json").read_text())["figures"]
    assert figures["test/t2v/R1"]["low"] <= figures["test/t2v/R1"]["value"] <= figures["test/t2v/R1"]["high"]
    assert {"val/t2v/R1", "test/choice/accuracy", "test/choice/shuffled/accuracy"} <= set(figures)
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line.get("split") == "test"] == [6]
    assert [line["step"] for line in lines if line.get("split") == "val"] == [3, 6]


def test_the_saved_config_runs_again_to_the_same_weights(whole: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((whole / "config.yml").read_text())
    assert config["task_attributes"]["type"] == "antmmf-tasks:retrieval"
    overrides = (f"training_parameters.save_dir={tmp_path / 'again'}",)
    assemble(plan_run(str(whole / "config.yml"), overrides, registry=Registry())).execute()
    assert_equal_weights(whole, tmp_path / "again")


def test_a_run_that_is_continued_ends_with_the_same_bits(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "resumed"
    run = assemble(_plan(folder), limit_steps=None)
    assert run.trainer is not None
    run.execute()
    for name in ("step_000006", "latest", "best"):
        path = folder / "checkpoints" / name
        for file in sorted(path.iterdir()) if path.is_dir() else ():
            file.unlink()
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / "checkpoints" / "latest").write_text("step_000004")
    again = assemble(_plan(folder, "training_parameters.resume=auto"))
    assert again.state.step == 4
    again.execute()
    assert_equal_weights(whole, folder)


def test_the_log_has_what_was_said_from_the_first_line_on(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    with (folder / "checkpoints" / "step_000006" / "model.safetensors").open("r+b") as file:
        file.write(b"damage")
    overrides = (*_tiny(folder), *SIZES, "training_parameters.resume=auto", "callbacks=[console]")
    command = [sys.executable, "-m", "antmmf", "run", "quickstart", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    log = (folder / "log.rank0.txt").read_text()
    for line in ("model.safetensors is damaged", "going on from", "step 6/6  epoch"):
        assert (log.count(line), (done.stdout + done.stderr).count(line)) == (1, 1)
    assert "test t2v R@1" in log


def test_workers_do_not_change_a_run(whole: Path, tmp_path: Path) -> None:
    execute(tmp_path / "workers", "training_parameters.num_workers=2")
    assert_equal_weights(whole, tmp_path / "workers")


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(whole: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in whole.rglob("*"))
    with pytest.raises(ConfigError, match=r"is not empty; set training_parameters\.resume auto"):
        execute(whole)
    assert sorted((path, path.stat().st_mtime_ns) for path in whole.rglob("*")) == before


def test_a_run_that_is_refused_changes_no_file(whole: Path) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    more = ("training_parameters.resume=auto", "model_attributes.vision_encoder.params.max_frames=8")
    with pytest.raises(CheckpointError, match="does not fit this run"):
        assemble(_plan(whole, *more, "model_attributes.vision_encoder.params.depth=2"))
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_what_was_changed_since_the_checkpoint_is_said(whole: Path, tmp_path: Path) -> None:
    more = (f"training_parameters.resume_file={whole}", "training_parameters.seed=7")
    run = assemble(_plan(tmp_path / "on", *more))
    assert "changed since that checkpoint: training_parameters.seed was 0, is 7" in run.info.notes
    assert sum("changed since" in note for note in run.info.notes) == 1
    assert (run.state.step, run.state.best_step) == (6, None)  # the best one lies in the other folder


@pytest.mark.parametrize(
    ("change", "counts"), [("monitored_metric=v2t/R1", False), ("metric_minimize=true", False), ("seed=7", True)]
)
def test_a_best_value_of_another_figure_counts_no_more(whole: Path, tmp_path: Path, change: str, counts: bool) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    run = assemble(_plan(folder, "training_parameters.resume=auto", f"training_parameters.{change}"))
    assert (run.state.best_step is not None) == counts
    assert any("was measured otherwise" in note for note in run.info.notes) != counts


def test_a_metric_that_is_not_measured_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"monitored_metric: must be measured by metrics, is 't2v/R2'"):
        assemble(_plan(tmp_path / "run", "training_parameters.monitored_metric=t2v/R2"))


def test_run_type_val_evaluates_the_best_weights_of_a_run(whole: Path, tmp_path: Path) -> None:
    weights = f"training_parameters.resume_file={whole}"
    execute(tmp_path / "val", "training_parameters.run_type=val", weights)
    figures = json.loads((tmp_path / "val" / "results.json").read_text())["figures"]
    assert figures == json.loads((whole / "results.json").read_text())["figures"]
    assert not list((tmp_path / "val").glob("checkpoints/step_*"))


def test_restart_takes_the_weights_and_counts_from_0(whole: Path, tmp_path: Path) -> None:
    overrides = (f"training_parameters.resume_file={whole}", "training_parameters.restart=true")
    run = assemble(_plan(tmp_path / "restart", *overrides))
    assert run.state.step == 0
    assert any("counting from 0" in note for note in run.info.notes)
    best = load_checkpoint(whole / "checkpoints" / (whole / "checkpoints" / "best").read_text().split()[0])
    for name, tensor in run.task.state_dict().items():
        assert tensor.equal(best.model[name])


def test_a_resume_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere"):
        assemble(_plan(tmp_path / "run", "training_parameters.resume_file=nowhere"))
    assert not (tmp_path / "run").exists()


def test_smoke_trains_saves_resumes_and_leaves_no_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = smoke_run(plan_run("quickstart", (*TINY, *SIZES), registry=Registry()))
    assert "smoke: 3 steps, 2 evaluation batches of val, test, saved, resumed at step 3" in said
    assert "MiB on cpu" in said
    assert "samples/s" in said
    assert not list(tmp_path.iterdir())


def test_a_broken_clip_is_skipped_counted_and_named(tmp_path: Path, whole: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    good = sorted(path for path in Path(json.loads(_first_media(whole))).parent.glob("*.mp4"))[:12]
    for number, path in enumerate(good):
        (root / f"{number}.mp4").write_bytes(path.read_bytes())
    (root / "broken.mp4").write_bytes(b"this is no video")
    rows = [f"{number}.mp4,clip {number},{_split(number)}" for number in range(12)]
    (root / "captions.csv").write_text("\n".join(["video,caption,split", *rows, "broken.mp4,nothing,train"]) + "\n")
    plan = plan_run(
        "quickstart", _tiny(tmp_path / "run", "input_attributes.max_bad_rate=1.0"), registry=Registry(), data=root
    )
    run = assemble(plan)
    run.execute()
    lines = [json.loads(line) for line in (run.folder / "quarantine.rank0.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == ["broken.mp4"]
    assert "1" in (run.quarantine.summary() or "")

    failing = _tiny(tmp_path / "fails", "input_attributes.on_bad_sample=fail")
    with pytest.raises(AntmmfError, match=r"broken\.mp4"):
        assemble(plan_run("quickstart", failing, registry=Registry(), data=root)).execute()


def _tiny(folder: Path, *more: str) -> tuple[str, ...]:
    return (*TINY, f"training_parameters.save_dir={folder}", *more)


def _split(number: int) -> str:
    return {0: "val", 1: "test"}.get(number, "train")


def _first_media(folder: Path) -> str:
    """A clip's path, as JSON, from the clips that the run made."""
    plan = _plan(folder)
    return json.dumps(next(iter(plan.datasets["train"].build().records())).media)


def _plan(folder: Path, *more: str):  # type: ignore[no-untyped-def]
    overrides = (*TINY, *SIZES, f"training_parameters.save_dir={folder}", *more)
    return plan_run("quickstart", overrides, registry=Registry())


def assert_equal_weights(first: Path, second: Path) -> None:
    """The last checkpoints of two runs hold the same bits."""
    one, two = (load_file(folder / "checkpoints/step_000006/model.safetensors") for folder in (first, second))
    assert one.keys() == two.keys()
    assert all(one[name].equal(two[name]) for name in one)
