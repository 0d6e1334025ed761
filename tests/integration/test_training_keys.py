"""What single keys of training_parameters do to a run of the shipped recipe, made tiny."""

from __future__ import annotations

import json
from pathlib import Path

import antmmf.run
import pytest
import torch
from antmmf.errors import CheckpointError
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.run import Run, assemble
from safetensors.torch import load_file

TINY = (
    "callbacks=[antmmf-core:jsonl]",
    "training_parameters.max_iterations=4",
    "training_parameters.batch_size=8",
    "training_parameters.test_batch_size=8",
    "training_parameters.evaluation_interval=2",
    "training_parameters.snapshot_interval=2",
    "training_parameters.num_threads=1",
    "training_parameters.num_workers=0",
    "training_parameters.device=cpu",
    "training_parameters.enable_amp=false",
    "model_attributes.vision_encoder.params.dim=32",
    "model_attributes.vision_encoder.params.depth=1",
    "model_attributes.vision_encoder.params.heads=2",
    "model_attributes.text_encoder.params={dim: 32, depth: 1, heads: 2}",
    "dataset_attributes.train.0.params={split: train, num_train: 32}",
    "dataset_attributes.val.0.params={split: val, num_val: 8}",
    "dataset_attributes.test.0.params={split: test, num_test: 12}",
)


def execute(folder: Path, *settings: str) -> Run:
    arguments = [*TINY, f"training_parameters.save_dir={folder}", *(f"training_parameters.{s}" for s in settings)]
    run = assemble(plan_run("quickstart", arguments, registry=Registry()))
    run.execute()
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "whole"
    execute(folder)
    return folder


def figures(folder: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads((folder / "results.json").read_text())["figures"]
    return found


def weights(folder: Path, step: int, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step_{step:06d}" / f"{name}.safetensors")


def test_predict_writes_what_the_figures_count(whole: Path, tmp_path: Path) -> None:
    run = execute(tmp_path / "run", "run_type=predict", f"resume_file={whole}", "monitored_metric=null")
    lines = [json.loads(line) for line in (run.folder / "predictions" / "test.jsonl").read_text().splitlines()]
    found = [line for line in lines if "query" in line]
    assert (len(found), len(lines)) == (12, 24)
    assert all(len(line["ranked"]) == 10 for line in lines)
    hits = sum(line["ranked"][0]["key"] == line["truth"] for line in found)
    assert figures(run.folder)["test/t2v/R1"]["value"] == pytest.approx(100 * hits / 12)
    assert figures(run.folder)["test/t2v/R1"] == figures(whole)["test/t2v/R1"]


def test_an_average_is_evaluated_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    one = execute(tmp_path / "one", "ema_decay=0.9")
    first = execute(tmp_path / "two", "ema_decay=0.9", "max_iterations=2", "lr_scheduler=constant")
    assert weights(first.folder, 2, "ema").keys() == dict(first.task.named_parameters()).keys()
    run = execute(tmp_path / "three", "ema_decay=0.9", f"resume_file={one.folder / 'checkpoints' / 'step_000002'}")
    for name, average in weights(one.folder, 4, "ema").items():
        torch.testing.assert_close(weights(run.folder, 4, "ema")[name], average, rtol=0, atol=0)
    taken = execute(tmp_path / "four", "run_type=val", f"resume_file={one.folder}", "monitored_metric=null")
    assert figures(taken.folder)["test/t2v/R1"] == figures(one.folder)["test/t2v/R1"]


def test_what_is_frozen_does_not_move_and_has_no_state(tmp_path: Path) -> None:
    run = execute(tmp_path / "run", "freeze=[vision.*]")
    start, end = weights(run.folder, 2), weights(run.folder, 4)
    assert all(torch.equal(start[name], end[name]) for name in start if name.startswith("vision."))
    assert any(not torch.equal(start[name], end[name]) for name in start if name.startswith("text."))
    assert run.trainer is not None
    trained = sum(len(group["params"]) for group in run.trainer.optimizer.param_groups)
    assert trained == sum(not name.startswith("vision.") for name, _ in run.task.named_parameters())


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_both_half_precisions_train_and_go_on_bit_for_bit(amp: str, tmp_path: Path) -> None:
    one = execute(tmp_path / "one", f"enable_amp={amp}", "gradient_accumulation_steps=2")
    start = one.folder / "checkpoints" / "step_000002"
    run = execute(tmp_path / "two", f"enable_amp={amp}", "gradient_accumulation_steps=2", f"resume_file={start}")
    for name, value in weights(one.folder, 4).items():
        torch.testing.assert_close(weights(run.folder, 4)[name], value, rtol=0, atol=0)


def test_a_checkpoint_of_other_plugins_is_told_or_refused(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = antmmf.run.carried_files

    def newer(plan):  # type: ignore[no-untyped-def]
        files = ours(plan)
        lock = json.loads(files["plugins.lock.json"])
        lock["antmmf-vision"]["version"] = "9.9"
        return files | {"plugins.lock.json": json.dumps(lock)}

    monkeypatch.setattr(antmmf.run, "carried_files", newer)
    run = execute(tmp_path / "told", f"resume_file={whole}", "restart=true")
    assert any("antmmf-vision" in note and "9.9" in note for note in run.info.notes)
    with pytest.raises(CheckpointError, match=r"written by other plugins: .*antmmf-vision"):
        execute(tmp_path / "refused", f"resume_file={whole}", "restart=true", "plugin_lock=strict")
    assert not (tmp_path / "refused").exists()
    run = execute(tmp_path / "ignored", f"resume_file={whole}", "restart=true", "plugin_lock=ignore")
    assert not any("plugins changed" in note for note in run.info.notes)


def test_weights_that_do_not_fit_are_refused_with_a_table(whole: Path, tmp_path: Path) -> None:
    other = [f"model_attributes.{part}_encoder.params.dim=64" for part in ("vision", "text")]
    arguments = [*TINY, *other, f"training_parameters.save_dir={tmp_path / 'run'}"]
    arguments += [f"training_parameters.resume_file={whole}", "training_parameters.restart=true"]
    with pytest.raises(CheckpointError, match=r"none of its 48 tensors fits the model.*48 reshaped"):
        assemble(plan_run("quickstart", arguments, registry=Registry()))


def test_restart_without_a_checkpoint_counts_from_zero(tmp_path: Path) -> None:
    run = execute(tmp_path / "run", "restart=true", "distributed=true")
    assert run.state.step == 4


def test_the_micro_batch_size_settles_the_number_of_micro_batches(tmp_path: Path) -> None:
    run = execute(tmp_path / "run", "micro_batch_size=3")
    assert run.loaders["train"].micro_batches == 3
