"""Layers: what wins, what it shadowed, and where both were written."""

from __future__ import annotations

from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from antmmf.config.layers import Layers, Setting, load
from antmmf.errors import ConfigError
from hypothesis import given, settings
from hypothesis import strategies as st


def stacked(*documents: dict[str, Any]) -> Layers:
    """Documents laid over each other; everything in document number n was written at ``n``."""
    layers = Layers()
    for number, document in enumerate(documents):
        layers.merge(document, {(): str(number)})
    return layers


def write(folder: Path, **files: str) -> Path:
    """Write ``NAME.yml`` for each keyword; returns the last one."""
    for name, text in files.items():
        (folder / f"{name}.yml").write_text(text)
    return folder / f"{name}.yml"


# --- merging ----------------------------------------------------------------------------------------------------------

LEAVES = st.integers(0, 3) | st.none() | st.lists(st.integers(0, 3), max_size=2)
NAMES = st.sampled_from("abc")
TREES = st.recursive(LEAVES, lambda child: st.dictionaries(NAMES, child, max_size=3), max_leaves=8)
STACKS = st.lists(st.dictionaries(NAMES, TREES, max_size=3), min_size=1, max_size=5)
Leaf = tuple[str, ...]


def over(old: Any, new: Any) -> Any:
    """The rule, as plainly as it can be put."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return deepcopy(new)
    return {**old, **{key: over(old[key], value) if key in old else deepcopy(value) for key, value in new.items()}}


def leaves(tree: dict[str, Any], path: Leaf = ()) -> list[Leaf]:
    found: list[Leaf] = []
    for key, value in tree.items():
        found += leaves(value, (*path, key)) if isinstance(value, dict) and value else [(*path, key)]
    return found


def look(tree: Any, path: Leaf) -> tuple[str, Any]:
    """What a document says about a path: ``nothing``, ``cut`` (something above it is no mapping) or a ``value``."""
    for part in path:
        if not isinstance(tree, dict):
            return "cut", None
        if part not in tree:
            return "nothing", None
        tree = tree[part]
    return "value", tree


def told(documents: list[dict[str, Any]], path: Leaf) -> list[Setting]:
    """All settings of a leaf, from the documents alone."""
    story: list[Setting] = []
    for number, document in enumerate(documents):
        kind, value = look(document, path)
        before = look(reduce(over, documents[:number], {}), path)
        is_over_keys = before[0] == "value" and isinstance(before[1], dict) and before[1] != {}
        if kind == "cut" or (kind == "value" and isinstance(value, dict) and value):
            story = []
        elif kind == "value" and not (value == {} and is_over_keys):
            if is_over_keys:  # a mapping gives way to a value
                last = max(n for n in range(number) if look(documents[n], path)[0] == "value")
                story = [Setting(before[1], str(last))]
            story.append(Setting(value, str(number)))
    return story


@settings(max_examples=150, deadline=None)
@given(STACKS)
def test_mappings_are_merged_and_everything_else_is_replaced(documents: list[dict[str, Any]]) -> None:
    given_before = deepcopy(documents)
    assert stacked(*documents).tree == reduce(over, documents, {})
    assert documents == given_before


@settings(max_examples=150, deadline=None)
@given(STACKS)
def test_each_leaf_tells_who_set_it_and_what_was_shadowed(documents: list[dict[str, Any]]) -> None:
    layers = stacked(*documents)
    for path in leaves(layers.tree):
        story = layers.settings(path)
        assert story == told(documents, path)
        assert story[-1].value == layers.at(path)
        assert story[-1].where == layers.where(path)


@settings(max_examples=150, deadline=None)
@given(STACKS)
def test_no_history_is_kept_of_what_is_gone(documents: list[dict[str, Any]]) -> None:
    layers = stacked(*documents)
    for table in (layers.history, layers.places):
        for path in table:
            layers.at(path)  # raises where there is nothing
    assert set(leaves(layers.tree)) <= set(layers.history)


def test_a_list_is_replaced_as_a_whole_and_its_items_have_places() -> None:
    layers = Layers()
    layers.merge({"a": [1, 2]}, {("a",): "f:1", ("a", 0): "f:2", ("a", 1): "f:3"})
    layers.merge({"a": [{"b": 3}]}, {("a",): "g:1", ("a", 0, "b"): "g:2"})
    assert layers.tree == {"a": [{"b": 3}]}
    assert layers.settings(("a",)) == [Setting([1, 2], "f:1"), Setting([{"b": 3}], "g:1")]
    assert layers.settings(("a", 0, "b")) == [Setting(3, "g:2")]
    assert layers.where(("a", 0, "b")) == "g:2"
    assert layers.where(("a", 0, "c")) == "g:1"  # the nearest above it
    assert layers.where(("x", "y")) == ""


def test_what_nobody_set_has_no_settings() -> None:
    layers = stacked({"a": {"b": 1}, "c": "x"})
    for path in (("a", "z"), ("z",), ("a", "b", "c"), ("c", "d"), ("a", 0)):
        assert layers.settings(path) == []


# --- blocks -----------------------------------------------------------------------------------------------------------

BLOCK = {"type": "one", "params": {"x": 1, "y": {"z": 2}}}


@pytest.mark.parametrize("name", ["two", {"type": "two"}])
def test_another_type_starts_with_empty_params(name: Any) -> None:
    layers = stacked({"a": BLOCK}, {"a": name})
    assert layers.tree == {"a": {"type": "two"}}
    assert layers.settings(("a", "type")) == [Setting("one", "0"), Setting("two", "1")]
    assert not [path for path in layers.history if "params" in path]


def test_params_that_come_with_another_type_shadow_nothing() -> None:
    layers = stacked({"a": BLOCK}, {"a": {"params": {"x": 5}, "type": "two"}})
    assert layers.tree == {"a": {"type": "two", "params": {"x": 5}}}
    assert layers.settings(("a", "params", "x")) == [Setting(5, "1")]


@pytest.mark.parametrize("same", ["one", {"type": "one"}, {"params": {}}, {}, {"type": "acme:one"}, "acme:one"])
def test_the_same_type_keeps_its_params(same: Any) -> None:
    assert stacked({"a": BLOCK}, {"a": same}).at(("a", "params")) == BLOCK["params"]


def test_the_same_name_of_another_distribution_is_another_component() -> None:
    layers = stacked({"a": {"type": "acme:one", "params": {"x": 1}}}, {"a": "other:one"})
    assert layers.tree == {"a": {"type": "other:one"}}


def test_params_laid_over_a_bare_name_belong_to_it() -> None:
    layers = stacked({"a": "one"}, {"a": {"params": {"x": 1}}})
    assert layers.tree == {"a": {"type": "one", "params": {"x": 1}}}
    assert layers.settings(("a", "type")) == [Setting("one", "0")]


def test_the_type_of_a_bare_name_can_be_asked_for() -> None:
    assert stacked({"a": "one"}, {"a": "two"}).settings(("a", "type")) == [Setting("one", "0"), Setting("two", "1")]


def test_a_block_gives_way_to_nothing_and_says_so() -> None:
    layers = stacked({"a": BLOCK}, {"a": None})
    assert layers.tree == {"a": None}
    assert layers.settings(("a",)) == [Setting(BLOCK, "0"), Setting(None, "1")]


# --- defaults of plugins ----------------------------------------------------------------------------------------------


def test_a_plugin_fills_what_nobody_wrote_and_changes_nothing() -> None:
    layers = stacked({"a": {"b": 1, "n": None}, "c": "name", "d": [1]})
    for path in (("a", "b"), ("a", "n"), ("a", "e"), ("c", "params", "x"), ("f", "g"), ("d", "x"), ("a", "b", "x")):
        layers.fill(path, 7, "default of plugin p")
    assert layers.tree == {
        "a": {"b": 1, "n": None, "e": 7},
        "c": {"type": "name", "params": {"x": 7}},
        "d": [1],
        "f": {"g": 7},
    }
    assert layers.settings(("a", "e")) == [Setting(7, "default of plugin p")]
    assert layers.where(("c", "type")) == "0"


# --- files ------------------------------------------------------------------------------------------------------------


def test_included_files_lie_below_in_their_order_and_relative_to_the_including_one(tmp_path: Path) -> None:
    (tmp_path / "parts" / "deep").mkdir(parents=True)
    write(tmp_path / "parts" / "deep", base="a: 1\nb: 1\nc: 1\nd: 1\n")
    write(tmp_path / "parts", one="includes: [deep/base.yml]\nb: 2\nc: 2\nd: 2\n", two="c: 3\nd: 3\n")
    layers = load(write(tmp_path, main="includes:\n  - parts/one.yml\n  - parts/two.yml\nd: 4\n"))
    assert layers.tree == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert [path.name for path in layers.files] == ["base.yml", "one.yml", "two.yml", "main.yml"]
    places = [Path(setting.where).name for setting in layers.settings(("d",))]
    assert places == ["base.yml:4", "one.yml:4", "two.yml:2", "main.yml:4"]


def test_a_file_may_be_included_twice_but_not_in_itself(tmp_path: Path) -> None:
    write(tmp_path, base="a: 1\n", one="includes: [base.yml]\nb: 1\n", two="includes: [base.yml]\n")
    assert load(write(tmp_path, main="includes: [one.yml, two.yml]\n")).tree == {"a": 1, "b": 1}
    write(tmp_path, base="x: 1\nincludes: [main.yml]\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "main.yml")
    problem = caught.value.problems[0]
    assert problem.where.endswith("base.yml:2")
    assert problem.message == "a file must not include itself: main.yml -> one.yml -> base.yml -> main.yml"


def test_every_include_that_is_wrong_is_named(tmp_path: Path) -> None:
    write(tmp_path, broken="a: [1\n", twice="a: 1\na: 2\n", text="includes: main.yml\n")
    text = "includes:\n  - none.yml\n  - broken.yml\n  - twice.yml\n  - text.yml\n"
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, main=text))
    found = {(Path(problem.where).name, problem.path): problem.message for problem in caught.value.problems}
    assert found.keys() == {
        ("main.yml:2", "includes.0"),
        ("broken.yml:1", ""),
        ("twice.yml:2", "a"),
        ("text.yml:1", "includes"),
    }
    assert found["main.yml:2", "includes.0"] == f"there is no file {tmp_path / 'none.yml'}"
    assert found["text.yml:1", "includes"] == "must be a list of files, is 'main.yml'"


def test_a_value_that_cannot_be_read_does_not_hide_the_rest(tmp_path: Path) -> None:
    layers = load(write(tmp_path, main="a: 1\na: 2\nb: !x 3\n"))
    assert layers.tree == {"a": 1, "b": 3}
    assert [problem.path for problem in layers.problems] == ["a", "b"]


def test_files_below_the_current_folder_are_named_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, base="a: 1\n", main="includes: [base.yml]\nb: 1\n")
    assert load(tmp_path / "main.yml").where(("a",)) == f"{tmp_path / 'base.yml'}:1"
    monkeypatch.chdir(tmp_path)
    assert load(Path("main.yml")).where(("a",)) == "base.yml:1"
    assert load(Path("main.yml")).where(("missing",)) == "main.yml:1"
