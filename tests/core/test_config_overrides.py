"""Arguments over a config: two spellings, list items, blocks, and messages that name the argument."""

from __future__ import annotations

from typing import Any

import pytest
from antmmf.config.layers import Layers, Setting
from antmmf.config.overrides import apply_arguments
from antmmf.config.schema import known_keys
from antmmf.errors import ConfigError

KNOWN = list(known_keys())
FILE: dict[str, Any] = {
    "training_parameters": {"seed": 1, "save_dir": "here"},
    "model_attributes": {"text_encoder": "small_text", "vision_encoder": {"type": "video", "params": {"dim": 64}}},
    "metrics": ["recall", {"type": "choice", "params": {"ks": [1, 5]}}],
    "callbacks": [],
    "optimizer_attributes": {"type": "AdamW", "params": {"betas": [0.9, 0.98]}},
}


def laid(*arguments: str) -> Layers:
    layers = Layers()
    layers.merge(FILE, {(): "f.yml"})
    apply_arguments(layers, arguments, known=KNOWN)
    return layers


def complaints(*arguments: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        laid(*arguments)
    return [str(problem) for problem in caught.value.problems]


def test_both_spellings_and_the_last_one_wins() -> None:
    key = "training_parameters.seed"
    layers = laid(f"{key}=2", key, "3", "training_parameters.enable_amp", "True", f"{key}=4")
    assert layers.at(("training_parameters",)) == {"seed": 4, "save_dir": "here", "enable_amp": True}
    assert layers.settings(("training_parameters", "seed")) == [
        Setting(1, "f.yml"),
        Setting(2, f"argument 1 ({key}=2)"),
        Setting(3, f"argument 2 ({key}=3)"),
        Setting(4, f"argument 6 ({key}=4)"),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("None", None),
        ("", ""),
        ("two words: and # more", "two words: and # more"),
        ("a=b", "a=b"),
        ("'5'", "5"),
        ('"a\\tb"', "a\tb"),
        ("it's", "it's"),
        ("[1, a, {b: 2}]", [1, "a", {"b": 2}]),
        ("${ANTMMF_TEST_SET}/x", "there/x"),
        ("${ANTMMF_TEST_NOT_SET:7}", 7),
        ("['${ANTMMF_TEST_SET}']", ["there"]),
        ("-1", -1),
    ],
)
@pytest.mark.parametrize("is_pair", [False, True])
def test_values_are_words_or_yaml_in_brackets(
    text: str, value: Any, is_pair: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTMMF_TEST_SET", "there")
    key = "training_parameters.save_dir"
    assert laid(*([key, text] if is_pair else [f"{key}={text}"])).at(("training_parameters", "save_dir")) == value


@pytest.mark.parametrize("key", ["metrics.1.params.ks", "metrics[1].params.ks", "metrics.[1].params.ks"])
def test_items_of_a_list_can_be_addressed(key: str) -> None:
    layers = laid(f"{key}=[10]")
    assert layers.at(("metrics",)) == ["recall", {"type": "choice", "params": {"ks": [10]}}]
    assert layers.settings(("metrics", 1, "params", "ks")) == [
        Setting([1, 5], "f.yml"),
        Setting([10], f"argument 1 ({key}=[10])"),
    ]
    assert layers.where(("metrics", 0)) == "f.yml"
    assert FILE["metrics"][1]["params"]["ks"] == [1, 5]


def test_an_item_of_a_list_of_values_is_seen_in_the_whole_list() -> None:
    layers = laid("optimizer_attributes.params.betas[1]=0.999")
    where = "argument 1 (optimizer_attributes.params.betas[1]=0.999)"
    story = [Setting([0.9, 0.98], "f.yml"), Setting([0.9, 0.999], where)]
    assert layers.settings(("optimizer_attributes", "params", "betas")) == story


def test_a_bare_name_becomes_a_block_when_its_params_are_set() -> None:
    layers = laid("model_attributes.text_encoder.params.dim=96", "metrics.0.params.ks=[1]")
    assert layers.at(("model_attributes", "text_encoder")) == {"type": "small_text", "params": {"dim": 96}}
    assert layers.at(("metrics", 0)) == {"type": "recall", "params": {"ks": [1]}}
    assert layers.where(("metrics", 0, "type")) == "f.yml"
    assert layers.settings(("metrics", 0, "type")) == [Setting("recall", "f.yml")]


@pytest.mark.parametrize("key", ["metrics.1", "metrics.1.type"])
def test_another_type_drops_the_params_and_the_same_type_keeps_them(key: str) -> None:
    assert laid(f"{key}=recall").at(("metrics", 1)) == {"type": "recall"}
    assert laid(f"{key}=choice").at(("metrics", 1)) == FILE["metrics"][1]
    assert laid("metrics.1={type: recall, params: {ks: [2]}}").at(("metrics", 1, "params")) == {"ks": [2]}


def test_a_mapping_is_merged_and_a_list_is_replaced() -> None:
    layers = laid("model_attributes.vision_encoder={params: {heads: 2}}", "metrics=[choice]")
    assert layers.at(("model_attributes", "vision_encoder", "params")) == {"dim": 64, "heads": 2}
    assert layers.at(("metrics",)) == ["choice"]


def test_what_the_file_does_not_mention_can_be_set() -> None:
    layers = laid("input_attributes.sampler.params.n_clips=4")
    assert layers.at(("input_attributes",)) == {"sampler": {"params": {"n_clips": 4}}}
    assert layers.where(("input_attributes", "sampler")) == "argument 1 (input_attributes.sampler.params.n_clips=4)"


NO_VALUE = "environment variable ANTMMF_TEST_NOT_SET must be set, or write ${ANTMMF_TEST_NOT_SET:default}"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("seed=1", "is not a config key (did you mean 'training_parameters.seed'?)"),
        ("trainig_parameters.seed=1", "is not a config key (did you mean 'training_parameters'?)"),
        ("training_parameters.seed", "needs a value: key=value, or a key and a value"),
        ("--sed", "is no option of this command"),
        ("--sed=1", "is no option of this command, nor a config key such as training_parameters.seed"),
        ("a..b=1", "must be names joined by dots"),
        ("metrics.2=x", "metrics is a list of 2; an index from 0 to 1 must follow"),
        ("metrics.x=1", "metrics is a list of 2; an index from 0 to 1 must follow"),
        ("metrics.²=x", "metrics is a list of 2; an index from 0 to 1 must follow"),
        ("callbacks.0=x", "callbacks is a list of 0; give the whole list"),
        ("training_parameters.0=x", "training_parameters is not a list, so there is no 0 in it"),
        ("training_parameters.seed.x=1", "training_parameters.seed is the value 1, so there is no 'x' in it"),
        ("dataset_attributes.val.0=x", "dataset_attributes.val is not set in the config, so there is no 0 in it"),
        ("metrics=[a", "not valid YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"),
        ("metrics=[!x a]", "tags are not allowed, is !x; write the plain value"),
        ("metrics=${ANTMMF_TEST_NOT_SET}", NO_VALUE),
    ],
)
def test_a_wrong_argument_is_named(argument: str, message: str) -> None:
    assert complaints(argument) == [f"argument 1: {argument.partition('=')[0]}: {message}"]


def test_a_forgotten_value_does_not_swallow_the_next_argument() -> None:
    found = complaints("training_parameters.save_dir", "training_parameters.seed=2", "metrics.9=x")
    assert [line.partition(":")[0] for line in found] == ["argument 1", "argument 3"]
    assert "needs a value" in found[0]


def test_all_wrong_arguments_are_named_with_what_is_wrong_in_the_file() -> None:
    found = complaints("seed=1", "metrics=[", "x", "1", "training_parameters.seed=2", "--data", "folder")
    assert [line.partition(":")[0] for line in found] == ["argument 1", "argument 2", "argument 3", "argument 6"]
