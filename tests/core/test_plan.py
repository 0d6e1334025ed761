"""From files and arguments to a plan: precedence, all problems at once, defaults filled in, and what must fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from antmmf.cli.main import main
from antmmf.config.explain import explain
from antmmf.config.json_schema import json_schema
from antmmf.config.reader import parse, write
from antmmf.errors import ConfigError, PluginError
from antmmf.plan import RunPlan, plan_run
from antmmf.recipes import recipe_files
from antmmf.registry import Registry
from antmmf.testing import fake_distribution, on_path

REGISTRY = Registry()
VALID = Path(__file__).parent / "broken" / "_valid.yml"
SMALL = """\
model_attributes: {vision_encoder: small_video, text_encoder: small_text}
task_attributes: retrieval
dataset_attributes: {train: [{type: shapes, params: {split: train}}]}
training_parameters: {max_iterations: 5}
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def planned(text: str, *arguments: str, registry: Registry = REGISTRY) -> RunPlan:
    Path("run.yml").write_text(text)
    return plan_run("run.yml", arguments, registry=registry)


def complaints(text: str, *arguments: str, registry: Registry = REGISTRY) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        planned(text, *arguments, registry=registry)
    return [str(problem) for problem in caught.value.problems]


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_command_line_over_file_over_later_include_over_earlier_include_over_default() -> None:
    for number, name in enumerate(("one", "two"), start=1):
        keys = ("seed", "batch_size", "num_threads", "log_interval")[number - 1 :]
        Path(f"{name}.yml").write_text(f"training_parameters: {{{', '.join(f'{key}: {number}' for key in keys)}}}\n")
    text = "includes: [one.yml, two.yml]\n" + SMALL.replace("{max", "{num_threads: 3, log_interval: 3, max")
    train = planned(text, "training_parameters.log_interval=4").config.training_parameters
    assert (train.seed, train.batch_size, train.num_threads, train.log_interval) == (1, 2, 3, 4)
    assert train.num_workers == "auto"


def test_one_folder_serves_every_data_set_that_is_given_none() -> None:
    blocks = {"train": "captions", "val": "captions", "test": "shapes"}
    given = {s: [{"type": name, "params": {"split": s}}] for s, name in blocks.items()}
    given["val"][0]["params"]["data_root_dir"] = "own"  # type: ignore[index]
    folder = "dataset_attributes.data_root_dir=common"
    plan = planned(SMALL, f"dataset_attributes={json.dumps(given)}", folder, "metrics=[recall]")
    assert {split: str(plan.datasets[split].params.get("data_root_dir")) for split in blocks} == {
        "train": "common",
        "val": "own",
        "test": "None",
    }


def test_a_common_key_that_nothing_takes_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"weights_dir: is of no use: nothing in model_attributes has a weights_dir"):
        planned(SMALL, "model_attributes.weights_dir=weights")


def test_the_saved_config_has_every_default_and_the_long_names() -> None:
    resolved = planned(SMALL).resolved
    assert resolved["task_attributes"]["params"]["loss"]["type"] == "antmmf-tasks:infonce"
    assert resolved["model_attributes"]["text_encoder"]["params"]["vocab_size"] == 8000
    assert resolved["optimizer_attributes"]["params"]["betas"] == [0.9, 0.98]
    assert resolved["training_parameters"]["seed"] == 0
    blocks = [value for path, value in _blocks(resolved)]
    assert len(blocks) >= 10
    assert all(":" in block["type"] for block in blocks)


def _blocks(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    found = [(path, value)] if isinstance(value, dict) and "type" in value else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [block for key, child in inner for block in _blocks(child, (*path, key))]


@pytest.mark.parametrize("source", [VALID, *(path for path, _ in recipe_files(REGISTRY).values())], ids=str)
def test_the_saved_config_loads_to_the_same_plan(source: Path) -> None:
    first = plan_run(str(source), registry=REGISTRY)
    again = planned(write(first.resolved))
    assert again.resolved == first.resolved
    assert [part.params for part in again.components()] == [part.params for part in first.components()]
    assert again.layers.at(("model_attributes",)) == first.resolved["model_attributes"]


def test_params_alone_mean_the_default_component() -> None:
    arguments = ["optimizer_attributes.params.lr=1e-3", "input_attributes.sampler={params: {n_clips: 2}}"]
    plan = planned(SMALL, *arguments)
    assert plan.optimizer.full_name == "antmmf-core:AdamW"
    assert plan.optimizer.params["lr"] == 1e-3
    rows = {row["key"]: row for row in explain(plan.resolved, plan.layers)}
    assert rows["input_attributes.sampler.type"]["where"] == "default"
    found = complaints(SMALL, "input_attributes.eval_transform.params.size=64")
    assert found == [
        "argument 1 (input_attributes.eval_transform.params.size=64): input_attributes.eval_transform.type: "
        "must be given: the component's name, or distribution:name"
    ]


def test_every_component_is_planned() -> None:
    names = {".".join(map(str, part.path)) for part in planned(SMALL).components()}
    assert names >= {"task_attributes", "task_attributes.params.loss", "model_attributes.vision_encoder"}
    assert names >= {"dataset_attributes.train.0", "input_attributes.reader", "callbacks.1"}


# --- problems ---------------------------------------------------------------------------------------------------------


def test_all_problems_are_found_at_once_whatever_their_kind() -> None:
    text = """\
model_attributes:
  vision_encoder: {type: small_vidoe}
  text_encoder: {type: small_text, params: {dims: 64}}
task_attributes: retrieval
dataset_attributes:
  train: [{type: shapes}]
  val: [shapes, shapes]
metrics: [recal]
metrics: [choice]
training_parameters:
  batch_size: 0
  sede: 1
  save_dir: ${ANTMMF_TEST_NOT_SET}
"""
    found = [": ".join(line.split(": ")[:2]) for line in complaints(text, "optimizer_attributes.params.lr=x")]
    assert found == [
        "run.yml:9: metrics",
        "run.yml:13: training_parameters.save_dir",
        "run.yml:7: dataset_attributes.val",
        "run.yml:11: training_parameters.batch_size",
        "run.yml:12: training_parameters.sede",
        "run.yml:2: model_attributes.vision_encoder.type",
        "run.yml:3: model_attributes.text_encoder.params.dims",
        "run.yml:6: dataset_attributes.train.0.params.split",
        "argument 1 (optimizer_attributes.params.lr=x): optimizer_attributes.params.lr",
    ]


def test_components_are_looked_at_even_without_a_task() -> None:
    assert complaints("metrics: [recal]\n") == [
        "run.yml:1: task_attributes: must be given: what is trained: retrieval, vqa, ...",
        "run.yml:1: metrics.0.type: no metric is called 'recal' (did you mean 'recall'?)",
    ]


def test_an_empty_file_says_what_it_needs() -> None:
    assert complaints("") == ["run.yml:1: task_attributes: must be given: what is trained: retrieval, vqa, ..."]


def test_a_problem_inside_of_a_list_has_its_own_line() -> None:
    text = SMALL + "metrics:\n  - recall\n  - type: recall\n    params:\n      seed: 1\n      ks: [1,\n        0]\n"
    assert complaints(text) == ["run.yml:11: metrics.1.params.ks.1: must be greater than 0, is 0"]


def test_a_problem_of_an_included_file_has_its_place() -> None:
    Path("base.yml").write_text("training_parameters:\n  batch_size: 0\n  seed: -1\n")
    found = complaints("includes: [base.yml]\n" + SMALL.replace("{max", "{seed: 2, max"))
    assert found == ["base.yml:2: training_parameters.batch_size: must be greater than 0, is 0"]


def test_a_problem_of_an_argument_names_the_argument() -> None:
    assert complaints(SMALL, "training_parameters.batch_size", "0") == [
        "argument 1 (training_parameters.batch_size=0): training_parameters.batch_size: must be greater than 0, is 0"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["training_parameters.monitored_metric=R1"], "monitored_metric: needs dataset_attributes.val, which is empty"),
        (["dataset_attributes={test: [{type: shapes, params: {split: test}}]}"], "metrics: must name what to measure"),
        (["model_attributes.text_encoder=none"], "text_encoder: must be given: task 'antmmf-tasks:retrieval' needs it"),
        (["training_parameters.max_iterations=none"], "max_iterations: must be given, or max_epochs"),
        (["training_parameters.resume=x"], "resume: must be 'auto' or true or false"),
    ],
)
def test_what_must_fit_together(arguments: list[str], message: str) -> None:
    (found,) = complaints(SMALL, *arguments)
    assert message in found


def test_an_encoder_that_the_task_does_not_take_is_named(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "from torch import nn\n\n\nclass Mine(nn.Module):\n    def __init__(self, *, vision): ...\n\n"
        "    def collator(self): ...\n\n    def evaluate_split(self): ...\n\n\n"
        "ANTMMF_COMPONENTS = {'tasks': {'mine': Mine}}\n"
    )
    registry = Registry(files=[tmp_path / "task.py"])
    (found,) = complaints(SMALL, "task_attributes=mine", registry=registry)
    assert "model_attributes.text_encoder: is not used by task" in found
    assert "remove it" in found


# --- plugins ----------------------------------------------------------------------------------------------------------

HOOKS = """
from antmmf import hookimpl

@hookimpl
def antmmf_config_defaults(config):
    return {"training_parameters.seed": 7, "training_parameters.max_iterations": 9,
            "model_attributes.text_encoder.params.dim": 64, "training_parameters.sede": 1}
"""


def test_a_plugin_fills_defaults_and_its_mistakes_are_its_own(tmp_path: Path) -> None:
    points = {"antmmf.plugins": {"hooks": "acme_hooks"}}
    with on_path(fake_distribution(tmp_path, name="acme", entry_points=points, modules={"acme_hooks": HOOKS})):
        text = SMALL.replace("small_text", "{type: small_text, params: {depth: 1}}")
        found = complaints(text, registry=Registry())
    wanted = "training_parameters.sede: is not a key (did you mean 'seed'?)"
    assert found == [f"default of plugin acme:hooks: {wanted}"]


def test_a_plugins_defaults_do_not_change_what_is_written(tmp_path: Path) -> None:
    points = {"antmmf.plugins": {"hooks": "acme_hooks"}}
    source = HOOKS.replace(', "training_parameters.sede": 1', "")
    with on_path(fake_distribution(tmp_path, name="acme", entry_points=points, modules={"acme_hooks": source})):
        plan = planned(SMALL, registry=Registry())
    assert plan.config.training_parameters.seed == 7
    assert plan.config.training_parameters.max_iterations == 5
    assert plan.resolved["model_attributes"]["text_encoder"]["params"]["dim"] == 64
    rows = {row["key"]: row for row in explain(plan.resolved, plan.layers)}
    assert rows["training_parameters.seed"]["where"] == "default of plugin acme:hooks"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import pathlib; return {'training_parameters.save_dir': pathlib.Path('x')}", "plain values, training_"),
        ("config['training_parameters']['batch_size'] = 1", ""),
        ("return {'task_attributes.type': 'other', 'training_parameters.max_iterations.x': 1}", ""),
    ],
)
def test_a_plugin_can_neither_give_what_is_not_plain_nor_change_what_is_written(
    body: str, message: str, tmp_path: Path
) -> None:
    source = f"from antmmf import hookimpl\n@hookimpl\ndef antmmf_config_defaults(config):\n    {body}\n"
    points = {"antmmf.plugins": {"hooks": "acme_hooks"}}
    with on_path(fake_distribution(tmp_path, name="acme", entry_points=points, modules={"acme_hooks": source})):
        if message:
            with pytest.raises(PluginError, match=message):
                planned(SMALL, registry=Registry())
            return
        plan = planned(SMALL, registry=Registry())
    assert plan.resolved == planned(SMALL).resolved


def test_a_required_plugin_that_is_missing_does_not_hide_the_rest() -> None:
    found = complaints(SMALL + "plugins:\n  required: [antmmf-nowhere]\nmetrics: [recal]\n")
    assert [line.split(": ")[:2] for line in found] == [
        ["run.yml:6", "plugins.required"],
        ["run.yml:7", "metrics.0.type"],
    ]


def test_a_broken_plugin_file_is_not_blamed_on_the_config(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(HOOKS.replace("@hookimpl", ""))
    with pytest.raises(PluginError, match="lacks the decorator @hookimpl"):
        planned(SMALL + "plugins: {required: [antmmf-nowhere]}\n", registry=Registry(files=[tmp_path / "hooks.py"]))


# --- a user's folder --------------------------------------------------------------------------------------------------


def test_a_folder_replaces_the_data_sets_and_arguments_still_win(tmp_path: Path) -> None:
    Path("run.yml").write_text(SMALL + "metrics: [recall]\n")
    argument = "dataset_attributes.val.0.params.missing=drop"
    plan = plan_run("run.yml", [argument], registry=REGISTRY, data=tmp_path)
    assert {split: part.full_name for split, part in plan.datasets.items()} == dict.fromkeys(
        ("train", "val", "test"), "antmmf-tasks:captions"
    )
    assert plan.datasets["val"].params["missing"] == "drop"
    assert plan.layers.where(("dataset_attributes", "train", 0, "type")) == f"--data {tmp_path}"
    with pytest.raises(ConfigError, match="--data nowhere: must be a folder of videos"):
        plan_run("run.yml", registry=REGISTRY, data=Path("nowhere"))


# --- explain ----------------------------------------------------------------------------------------------------------


def test_explain_says_for_every_value_who_set_it_and_what_it_shadowed() -> None:
    Path("base.yml").write_text("training_parameters:\n  seed: 1\nmetrics: [choice]\n")
    text = f"includes: [base.yml]\n{SMALL}metrics:\n  - recall\n  - {{type: recall, params: {{ks: [2]}}}}\n"
    arguments = ["training_parameters.seed=3", "metrics.1.params.ks", "[4]", "metrics.0.params.seed=5"]
    plan = planned(text.replace("{max", "{seed: 2, max"), *arguments)
    rows = {row["key"]: row for row in explain(plan.resolved, plan.layers)}

    def told(key: str) -> tuple[Any, str, list[tuple[Any, str]]]:
        row = rows[key]
        return row["value"], row["where"], [(entry["value"], entry["where"]) for entry in row["shadowed"]]

    assert told("training_parameters.seed") == (
        3, "argument 1 (training_parameters.seed=3)", [(1, "base.yml:2"), (2, "run.yml:5")]
    )  # fmt: skip
    assert told("training_parameters.batch_size") == (32, "default", [])
    assert told("metrics.0.type") == ("antmmf-tasks:recall", "run.yml:7", [])
    assert told("metrics.0.params.seed") == (5, "argument 4 (metrics.0.params.seed=5)", [])
    assert told("metrics.0.params.bootstrap") == (1000, "default of antmmf-tasks:recall", [])
    assert told("metrics.1.params.ks") == ([4], "argument 2 (metrics.1.params.ks=[4])", [([2], "run.yml:8")])
    assert told("task_attributes.type") == ("antmmf-tasks:retrieval", "run.yml:3", [])
    assert told("task_attributes.params.loss.params.temperature") == (0.05, "default of antmmf-tasks:infonce", [])
    assert told("optimizer_attributes.type") == ("antmmf-core:AdamW", "default", [])
    assert told("plugins.required") == ([], "default", [])


def test_the_command_line_prints_a_config_that_loads_and_explains_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yml").write_text(SMALL)

    def out(*arguments: str) -> str:
        with pytest.raises(SystemExit, match="0"):
            main(["config", "run.yml", *arguments])
        return capsys.readouterr().out

    printed = parse(out(), name="printed")
    assert printed.values == json.loads(out("--json"))
    line = next(
        line
        for line in out("--explain", "training_parameters.seed=2").splitlines()
        if line.startswith("training_parameters.seed")
    )
    assert line.split(None, 2) == ["training_parameters.seed", "2", "argument 1 (training_parameters.seed=2)"]


# --- JSON Schema ------------------------------------------------------------------------------------------------------

SCHEMA = json_schema(REGISTRY)


def valid(values: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(values))


def test_the_json_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("source", [VALID, *(path for path, _ in recipe_files(REGISTRY).values())], ids=str)
def test_the_json_schema_accepts_what_plans(source: Path) -> None:
    assert valid(parse(source.read_text(), name="f").values), "a block may leave its type to an included file"
    assert valid(plan_run(str(source), registry=REGISTRY).resolved)


@pytest.mark.parametrize(
    "edit",
    [
        {"trainig_parameters": {}},
        {"training_parameters": {"bach_size": 1}},
        {"training_parameters": {"batch_size": 0}},
        {"training_parameters": {"batch_size": "4"}},
        {"training_parameters": {"run_type": "trian"}},
        {"input_attributes": {"reader": {"type": "auto", "parms": {}}}},
        {"input_attributes": {"reader": 5}},
        {"metrics": "recall"},
        {"dataset_attributes": {"val": ["shapes", "shapes"]}},
        {"includes": "base.yml"},
        {"task_attributes": None},
    ],
    ids=json.dumps,
)
def test_the_json_schema_refuses_what_is_wrong(edit: dict[str, Any]) -> None:
    values = {"task_attributes": "retrieval", "input_attributes": {"reader": "acme:unknown"}}
    assert valid(values)
    assert not valid({**values, **edit})


def test_the_json_schema_offers_the_names_of_what_is_installed() -> None:
    choices = SCHEMA["$defs"]["tasks"]["anyOf"][0]["anyOf"][0]["enum"]
    assert {"retrieval", "antmmf-tasks:retrieval"} <= set(choices)


def test_a_faulty_argument_hides_no_other_problem() -> None:
    found = complaints("{}", "foo=1", "training_parameters.batch_size=abc", "training_parameters.bath_size=2")
    assert any("argument 1" in line and "foo" in line for line in found)
    assert any("training_parameters.batch_size: must be a whole number" in line for line in found)
    assert any("bath_size" in line and "did you mean 'batch_size'" in line for line in found)
