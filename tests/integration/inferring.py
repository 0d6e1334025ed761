"""A tiny run, and the commands that use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import antmmf
from antmmf.cli.main import cli
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.run import Run, assemble
from click.testing import CliRunner

TINY = (
    "callbacks=[antmmf-core:jsonl]",
    "input_attributes.sampler.type=antmmf-vision:uniform",  # the same frames in training: features can equal them
    "input_attributes.train_transform=null",
    "input_attributes.eval_transform=null",
    "training_parameters.max_iterations=4",
    "training_parameters.batch_size=8",
    "training_parameters.test_batch_size=8",
    "training_parameters.evaluation_interval=4",
    "training_parameters.log_interval=1",
    "training_parameters.num_workers=0",
    "training_parameters.device=cpu",
    "model_attributes.vision_encoder.params.dim=16",
    "model_attributes.vision_encoder.params.depth=1",
    "model_attributes.text_encoder.params.dim=16",
    "model_attributes.text_encoder.params.depth=1",
)
NUM = {"num_train": 24, "num_val": 12, "num_test": 12, "seconds": 1.0}
SIZES = [f"dataset_attributes.{s}.0.params.{name}={n}" for s in ("train", "val", "test") for name, n in NUM.items()]
SHAPES = [f"{name}={value}" for name, value in NUM.items()]
QUESTIONS = (
    "task_attributes.type=antmmf-tasks:vqa",
    "task_attributes.params={}",
    "metrics=[antmmf-tasks:accuracy]",
    "training_parameters.monitored_metric=accuracy",
    *(f"dataset_attributes.{split}.0.params.kind=questions" for split in ("train", "val", "test")),
)


def execute(folder: Path, *more: str) -> Run:
    arguments = (*TINY, *SIZES, f"training_parameters.save_dir={folder}", *more)
    run = assemble(plan_run("quickstart", arguments, registry=Registry()))
    run.execute()
    return run


def load(place: Path, **options: Any) -> antmmf.Model:
    return antmmf.load(place, device="cpu", **options)


def media(run: Run) -> list[str]:
    return [run.indexes["test"].record(row).media for row in range(len(run.indexes["test"]))]


def embed(*words: str | Path) -> str:
    """Run ``antmmf embed`` here; its errors are raised."""
    done = CliRunner().invoke(cli, ["embed", "--device=cpu", *map(str, words)], obj=False)
    if done.exception is not None:
        raise done.exception
    return done.output


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def figures(folder: Path) -> dict[str, float]:
    found = json.loads((folder / "results.json").read_text())["figures"]
    return {name: figure["value"] for name, figure in found.items() if "shuffled" not in name}


def lines_of(path: Path) -> list[dict[str, Any]]:
    """What a file of predictions says, a line each."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
