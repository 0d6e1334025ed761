"""Every shipped recipe: sound as it is written, and run on miniatures of its data with encoders that are tiny."""

from __future__ import annotations

import functools
import json
import math
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from antmmf.cli.check import command as check
from antmmf.plan import plan_run
from antmmf.recipes import recipe_files
from antmmf.registry import Registry
from antmmf.run import Run, assemble
from antmmf_tasks.miniatures import MINIATURES, write_miniature
from click.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1] / "text"))
from towers import saved

RECIPES = [name for name, (_, offered_by) in recipe_files(Registry()).items() if offered_by == "antmmf-tasks"]

RUN = (
    "callbacks=[antmmf-core:jsonl]",
    "training_parameters.max_iterations=2",
    "training_parameters.batch_size=4",
    "training_parameters.test_batch_size=4",
    "training_parameters.log_interval=1",
    "training_parameters.num_workers=0",
    "training_parameters.num_threads=1",
    "training_parameters.device=cpu",
)
VISION = "{type: antmmf-vision:small_video, params: {depth: 1, image_size: 32}}"
SMALL: Mapping[str, tuple[str, ...]] = {  # component -> what is set in each of its blocks; of families the first part
    "antmmf-vision:small_video": (".params.depth=1", ".params.image_size=32"),
    "antmmf-vision:video_swin": (f"={VISION}",),
    "timm": (f"={VISION}",),
    "antmmf-text:small_text": (".params.depth=1",),
    "antmmf-text:bert": tuple(
        f".params.{setting}" for setting in ("name=google/bert_uncased_L-2_H-128_A-2", "pretrained=false", "layers=1")
    ),
    "antmmf-tasks:moco": (".params.video_queue=16", ".params.text_queue=16"),
    "antmmf-vision:segments": (".params.n_clips=2",),
    "antmmf-vision:uniform": (".params.n_clips=2",),
    "antmmf-vision:randaugment_crop": (".params.size=32",),
    "antmmf-vision:resize_crop": (".params.size=32",),
    "antmmf-vision:longside": (".params.max_size=32",),
    "antmmf-tasks:cnvid": (".params.val_share=0.3",),
    "antmmf-tasks:howto100m": (".params.val_share=0.3",),
    "antmmf-tasks:shapes": (".params.num_train=12", ".params.num_val=6", ".params.num_test=6", ".params.seconds=1.0"),
}


NEW: Mapping[str, set[str]] = {"antmmf-tasks:vqa": {"classifier"}}  # task -> what no other task has


@functools.cache
def resolved(recipe: str) -> dict[str, Any]:
    """The recipe's config with every default."""
    return plan_run(recipe, (), registry=Registry()).resolved


def is_trained(recipe: str) -> bool:
    """Whether the recipe trains, or only measures what another one has trained."""
    return "train" in resolved(recipe)["training_parameters"]["run_type"].split("+")


def named_first(recipe: str) -> str | None:
    """The recipe whose run is the ``resume_file``."""
    place = resolved(recipe)["training_parameters"]["resume_file"]
    return place.removeprefix("save/") if place else None


def blocks(tree: Any, path: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(dotted path, component, params) of every block of a config."""
    if isinstance(tree, dict) and isinstance(tree.get("type"), str):
        yield path, tree["type"], tree.get("params", {})
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        yield from blocks(child, f"{path}.{key}" if path else str(key))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the miniatures, which are made when a recipe asks for them."""
    return tmp_path_factory.mktemp("data")


def small(recipe: str, root: Path) -> list[str]:
    """The arguments that make a recipe small; its miniatures lie in ``root`` afterwards."""
    config = resolved(recipe)
    arguments = [*RUN]
    if config["dataset_attributes"]["data_root_dir"]:
        arguments.append(f"dataset_attributes.data_root_dir={root}")
    for path, component, _ in blocks(config):
        name = component.partition(":")[2]
        if path.startswith("dataset_attributes") and name in MINIATURES and not (root / name).is_dir():
            write_miniature(name, root / name, num=12)
        if component.startswith("hf/"):
            kind = "chinese_clip" if "chinese" in component else "clip"
            if not (root / kind).is_dir():
                saved(kind, root / kind)
            params = "{normalize: true}" if path.endswith("vision_encoder") else "{}"
            arguments.append(f"{path}={{type: hf/{root / kind}, params: {params}}}")
        is_task = path == "task_attributes"  # some are called like a data set
        settings = () if is_task else SMALL.get(component, SMALL.get(component.partition("/")[0], ()))
        arguments += [f"{path}{setting}" for setting in settings]
    return arguments


def carried_out(recipe: str, root: Path, folder: Path, *more: str) -> Run:
    """A small run of ``recipe`` in ``folder``, after its end."""
    arguments = [*small(recipe, root), f"training_parameters.save_dir={folder}", *more]
    run = assemble(plan_run(recipe, arguments, registry=Registry()))
    run.execute()
    return run


@pytest.fixture(scope="module")
def trained(root: Path) -> Callable[[str], Run]:
    """Small runs of recipes that trained from nothing, each once."""

    @functools.cache
    def run(recipe: str) -> Run:
        more = ("training_parameters.run_type=train", "training_parameters.resume_file=null")
        return carried_out(recipe, root, root / "runs" / recipe, *more)

    return run


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_sound_as_written_without_files_and_network(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def no_network(*address: object, **_: object) -> None:
        asked.append(address)
        raise OSError("there is no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    answer = CliRunner().invoke(check, ["--no-files", recipe])
    assert (answer.exit_code, answer.exception, asked) == (0, None, []), answer.output
    assert f"{recipe} is sound" in answer.output


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_chooses_its_checkpoint_on_data_that_are_neither_trained_nor_tested_on(recipe: str) -> None:
    config = resolved(recipe)
    splits = {kind: list(blocks(config["dataset_attributes"][kind])) for kind in ("train", "val", "test")}
    if not is_trained(recipe):
        assert [params["split"] for kind in splits for _, _, params in splits[kind]] == ["test"]
        return
    assert [params["split"] for _, _, params in splits["val"]] == ["val"]
    assert all(params["split"] == kind for kind in ("train", "test") for _, _, params in splits[kind])
    assert config["training_parameters"]["monitored_metric"]


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name.startswith("finetune/")])
def test_a_recipe_of_fine_tuning_also_predicts_and_shows_what_it_got_wrong(recipe: str) -> None:
    config = resolved(recipe)
    assert config["training_parameters"]["run_type"].endswith("val+predict")
    assert "antmmf-tasks:report" in {component for _, component, _ in blocks(config["callbacks"])}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_evaluates_and_predicts_on_its_miniature(
    recipe: str, root: Path, tmp_path: Path, trained: Callable[[str], Run]
) -> None:
    folder, first = tmp_path / "run", named_first(recipe)
    if is_trained(recipe):
        more = ["training_parameters.run_type=train+val+predict", "training_parameters.resume_file=null"]
    else:
        assert first is not None
        more = ["training_parameters.run_type=val+predict", f"training_parameters.resume_file={trained(first).folder}"]
    run = carried_out(recipe, root, folder, *more)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == run.state.step == (2 if is_trained(recipe) else 0)
    assert all(math.isfinite(loss) for loss in losses)
    figures = json.loads((folder / "results.json").read_text(encoding="utf-8"))["figures"]
    assert {name.partition("/")[0] for name in figures} == {"val", "test"} & set(run.loaders)
    if is_trained(recipe):
        assert f"val/{run.plan.config.training_parameters.monitored_metric}" in figures
    assert all(math.isfinite(figure["value"]) for figure in figures.values())
    predicted = folder / "predictions" / f"{'test' if 'test' in run.loaders else 'val'}.jsonl"
    assert predicted.read_text(encoding="utf-8").count("\n") > 0
    assert not list(folder.glob("quarantine*"))


@pytest.mark.parametrize("recipe", [name for name in RECIPES if named_first(name)])
def test_a_second_part_takes_all_weights_of_the_recipe_that_it_names(
    recipe: str, root: Path, tmp_path: Path, trained: Callable[[str], Run]
) -> None:
    first = named_first(recipe)
    assert first in RECIPES
    before = trained(first)
    places = (
        f"training_parameters.{key}={place}" for key, place in (("resume_file", before.folder), ("save_dir", tmp_path))
    )
    after = assemble(plan_run(recipe, [*small(recipe, root), *places], registry=Registry()))
    assert after.state.step == 0
    there, here = before.task.state_dict(), after.task.state_dict()
    task = resolved(recipe)["task_attributes"]["type"]
    assert {name.partition(".")[0] for name in here.keys() - there.keys()} == NEW.get(task, set())
    assert all(here[name].equal(there[name]) for name in here.keys() & there.keys())
    if task == resolved(first)["task_attributes"]["type"]:
        assert there.keys() == here.keys()
