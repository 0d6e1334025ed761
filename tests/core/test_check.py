"""``check``: parts that cannot be built, do not fit or lack their files, found without weights, data or memory."""

from __future__ import annotations

import resource
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from antmmf.check import check_run
from antmmf.errors import ConfigError
from antmmf.plan import RunPlan, plan_run
from antmmf.registry import Registry

PARTS = Path(__file__).with_name("checked.py")
REGISTRY = Registry(files=[PARTS])
RUN = """\
model_attributes:
  vision_encoder: checked:vision
  text_encoder: checked:text
task_attributes: checked:task
dataset_attributes:
  train: [{type: shapes, params: {split: train}}]
training_parameters:
  max_iterations: 5
  device: cpu
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)


def planned(*arguments: str, source: str = "") -> RunPlan:
    if not source:
        source = "run.yml"
        Path(source).write_text(RUN)
    return plan_run(source, arguments, registry=REGISTRY)


def complaints(*arguments: str, **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_run(planned(*arguments), **options)
    return [str(problem) for problem in caught.value.problems]


# --- encoders ---------------------------------------------------------------------------------------------------------


def test_a_sound_run_says_what_it_saw() -> None:
    assert check_run(planned()) == [
        "vision: 8 clips of 1 frames of 240 x 320 -> tokens (8, 8)",
        "text: 5 tokens at most, dim 8",
        "task checked:task: 0.00 M parameters",
    ]


VISION = "model_attributes.vision_encoder.params"
TEXT = "model_attributes.text_encoder.params"
VAL = ["dataset_attributes.val=[{type: shapes, params: {split: val}}]"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (f"{VISION}.fault=type", "must return antmmf.Encoded, returns tuple"),
        (f"{VISION}.fault=dim", "pooled must be (2, 9) since dim is 9, is (2, 8)"),
        (f"{VISION}.fault=mask", "mask must be bool and (2, 8) like tokens, is torch.float32 (2, 8)"),
        (f"{VISION}.fault=shape", "mask must be bool and (2, 8) like tokens, is torch.bool (2, 7)"),
        (f"{VISION}.fault=clips", "clips must be (2, 8, 8), is (2, 1, 8)"),
        (f"{VISION}.fault=build", "checked:vision cannot be built: ZeroDivisionError: on purpose"),
        (f"{VISION}.fault=refuse", "on purpose"),
        (f"{VISION}.fault=run", "checked:vision cannot take 8 clips of 1 frames of 240 x 320: ZeroDivisionError: "),
        (f"{TEXT}.fault=type", "must return antmmf.Encoded, returns tuple"),
        (f"{TEXT}.fault=ids", "its tokenizer must give ids from 0 to 9, gives 10"),
        (f"{TEXT}.fault=long", "checked:text cannot take 6 tokens: RuntimeError: "),
        (f"{TEXT}.fault=fuse", "checked:text cannot fuse: ZeroDivisionError: on purpose"),
        (f"{TEXT}.fault=words", "must know the 10 words of the tokenizer, its vocabulary is (9, 8)"),
    ],
)
def test_an_encoder_that_breaks_its_contract_is_named(argument: str, message: str) -> None:
    (found,) = complaints(argument)
    key, line = ("vision", 2) if argument.startswith(VISION) else ("text", 3)
    assert found.startswith(f"run.yml:{line}: model_attributes.{key}_encoder: {message}")
    assert "\n" not in found


def test_what_several_parts_get_wrong_is_said_at_once() -> None:
    arguments = [f"{VISION}.fault=build", f"{TEXT}.fault=refuse", "training_parameters.device=abacus"]
    arguments += ["callbacks=[checked:broken]", "input_attributes.reader=checked:broken"]
    places = [
        "argument 3 (training_parameters.device=abacus)",
        "argument 5 (input_attributes.reader=checked:broken)",
        "argument 4 (callbacks=[checked:broken])",
    ]
    assert [line.split(": ")[0] for line in complaints(*arguments)] == [*places, "run.yml:2", "run.yml:3"]


def test_a_task_must_be_a_task() -> None:
    (found,) = complaints("task_attributes=checked:module")
    assert found.endswith("task_attributes: checked:module must be a subclass of antmmf.Task")


# --- frames -----------------------------------------------------------------------------------------------------------


def test_a_sampler_must_give_clips_of_frames() -> None:
    (found,) = complaints("input_attributes.sampler=checked:flat")
    assert found.endswith("input_attributes.sampler: must pick (clips, frames) as integers, picks (4,) float64")


def test_both_transforms_must_give_the_encoders_size() -> None:
    block = "{type: resize_crop, params: {size: 32}}"
    sizes = [f"input_attributes.{name}_transform={block}" for name in ("train", "eval")] + [*VAL, "metrics=[recall]"]
    assert check_run(planned(*sizes))  # it takes any size
    found = complaints(*sizes, f"{VISION}.image_size=64")
    wanted = "must give 64 x 64 pixels, as checked:vision needs; gives 32 x 32"
    assert [line.split("): ", 1)[1] for line in found] == [
        f"input_attributes.train_transform: {wanted}",
        f"input_attributes.eval_transform: {wanted}",
    ]
    assert check_run(planned(*sizes, f"{VISION}.image_size=64", f"{VISION}.masks_padding=true"))
    assert len(complaints(*sizes, f"{VISION}.image_size=16", f"{VISION}.masks_padding=true")) == 2


def test_the_training_transform_does_not_matter_where_nothing_is_trained(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").touch()
    transform = "input_attributes.train_transform={type: resize_crop, params: {size: 32}}"
    data = ["dataset_attributes={train: [], val: [{type: shapes, params: {split: val}}]}", "metrics=[recall]"]
    run = ["training_parameters.run_type=val", "training_parameters.resume_file=."]
    assert check_run(planned(transform, f"{VISION}.image_size=64", *data, *run))


def test_frames_without_a_transform_are_taken_to_fit() -> None:
    assert check_run(planned(f"{VISION}.image_size=64"))[0].startswith("vision: 8 clips of 1 frames of 64 x 64")


# --- fusion -----------------------------------------------------------------------------------------------------------


def test_a_fusion_encoder_is_run_with_the_text_encoders_tokens() -> None:
    fusing = ["task_attributes=checked:fusing", "model_attributes.fusion_encoder=checked:text"]
    assert check_run(planned(*fusing))
    (found,) = complaints(*fusing, f"{VISION}.dim=16")
    assert (
        "model_attributes.fusion_encoder: checked:text cannot fuse video tokens of size 16 with 5 text tokens" in found
    )
    (found,) = complaints(*fusing, "model_attributes.fusion_encoder.params.fault=words")
    assert found.endswith("must know the 10 words of the tokenizer, its vocabulary is (9, 8)")


def test_a_text_encoder_that_nobody_fuses_with_need_not_fit_the_video() -> None:
    assert check_run(planned(f"{VISION}.dim=16"))


# --- metrics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t2v/R1", "val/t2v/R1", "v2t/MdR"])
def test_the_monitored_metric_may_carry_its_split(name: str) -> None:
    assert check_run(planned(*VAL, "metrics=[recall]", f"training_parameters.monitored_metric={name}"))


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        (
            "quickstart_retrieval",
            ["metrics=[accuracy]"],
            r"metrics: metric 'accuracy' needs the rows id, kind, the task",
        ),
        ("quickstart_vqa", ["metrics=[recall]"], r"metrics: metric 'recall' needs the rows video, video_id, text, "),
        (
            "quickstart_retrieval",
            ["task_attributes.params.match=0", "training_parameters.monitored_metric=l2/t2v/R1"],
            r"training_parameters.monitored_metric: must be measured by metrics, is 'l2/t2v/R1'; .*: t2v/R1, ",
        ),
    ],
)
def test_metrics_must_fit_what_the_task_gives(recipe: str, arguments: list[str], message: str) -> None:
    check_run(plan_run(recipe, [], registry=Registry()), files=False)
    with pytest.raises(ConfigError, match=message):
        check_run(plan_run(recipe, arguments, registry=Registry()), files=False)


def test_the_monitored_metric_must_be_measured() -> None:
    (found,) = complaints(*VAL, "metrics=[choice]", "training_parameters.monitored_metric=t2v/R1")
    assert found.endswith(
        "must be measured by metrics, is 't2v/R1'; they measure: choice/accuracy, choice/shuffled/accuracy"
    )


def test_two_metrics_must_not_measure_the_same() -> None:
    (found,) = complaints(*VAL, "metrics=[recall, {type: recall, params: {ks: [1]}}]")
    assert found.endswith("metrics: must each measure something else, two of them measure 't2v/R1'; leave one out")


def test_a_metric_need_not_say_what_it_measures() -> None:
    assert check_run(planned(*VAL, "metrics=[recall, checked:silent]", "training_parameters.monitored_metric=silence"))


# --- files ------------------------------------------------------------------------------------------------------------


def test_files_that_are_missing_are_all_named_unless_they_do_not_matter() -> None:
    arguments = [
        "dataset_attributes.train=[{type: captions, params: {data_root_dir: nowhere, split: train}}]",
        "dataset_attributes.val=[checked:data]",
        "metrics=[recall]",
        "training_parameters.resume_file=nothing",
    ]
    hint = "does not exist; give a run's folder or one of its checkpoints/step_..."
    found = complaints(*arguments)
    assert [line.split("): ", 1)[1] for line in found] == [
        f"training_parameters.resume_file: nothing {hint}",
        f"dataset_attributes.train.0: data_root_dir {Path.cwd() / 'nowhere'} is not a folder",
        "dataset_attributes.val.0: reads missing.txt, which does not exist",
    ]
    assert check_run(planned(*arguments), files=False)


def test_a_save_dir_must_be_free_unless_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "save").mkdir()
    argument = "training_parameters.save_dir=save"
    assert check_run(planned(argument))
    (tmp_path / "save" / "file").touch()
    (found,) = complaints(argument)
    assert "training_parameters.save_dir: save is not empty; set training_parameters.resume auto to go on" in found
    assert check_run(planned(argument), files=False)
    (found,) = complaints(argument, "training_parameters.resume=auto")
    assert "save is not empty and is no run folder; choose another one" in found
    (tmp_path / "save" / "provenance.json").touch()
    assert check_run(planned(argument, "training_parameters.resume=auto"))


def test_training_data_need_not_be_there_for_an_evaluation(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").touch()
    arguments = [
        "dataset_attributes.train=[{type: captions, params: {data_root_dir: nowhere, split: train}}]",
        *VAL,
        "metrics=[recall]",
        "training_parameters.run_type=val",
        "training_parameters.resume_file=.",
    ]
    assert check_run(planned(*arguments))


# --- cost -------------------------------------------------------------------------------------------------------------


def test_models_take_no_memory_and_hardly_any_time() -> None:
    params = "{dim: 4096, depth: 24, heads: 16, image_size: 512, max_frames: 64}"  # 6 G parameters, 25 GB of weights
    arguments = [
        f"model_attributes.vision_encoder={{type: small_video, params: {params}}}",
        "task_attributes={type: retrieval, params: {dim: 512}}",
        "model_attributes.text_encoder=small_text",
        "input_attributes.sampler={type: segments, params: {n_clips: 64}}",
    ]
    check_run(planned())  # what is imported on the way does not count
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = check_run(planned(*arguments))
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # in kB, on Linux
    millions = float(seen[-1].partition(": ")[2].partition(" ")[0])
    assert millions > 5000
    assert seen[-1].endswith("M parameters, without what is made from training texts")


def test_a_check_draws_no_random_numbers() -> None:
    before = torch.random.get_rng_state()
    check_run(planned("input_attributes.train_transform={type: resize_crop, params: {size: 32, max_scale: 2.0}}"))
    assert torch.equal(torch.random.get_rng_state(), before)
