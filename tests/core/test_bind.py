"""A constructor's signature is its schema: what a config may say, what it may not, and what is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from antmmf.bind import Plan, Planner, signature_model
from antmmf.config.layers import Layers
from antmmf.config.schema import Block
from antmmf.errors import ComponentError, ConfigError, DataError
from antmmf.registry import Registry

REGISTRY = Registry(files=[Path(__file__).with_name("bound.py")])


def planned(block: Any, *, kind: str = "readers", **options: Any) -> tuple[Plan | None, list[str]]:
    """The plan of a block that stands at ``part`` in line 1 of ``f.yml``, and the problems."""
    layers = Layers()
    layers.merge({"part": block}, {("part",): "f.yml:1"})
    planner = Planner(REGISTRY, layers, **options)
    plan = planner.plan(Block.model_validate(block), kind, ("part",))
    assert (plan is None) == bool(planner.problems)
    return plan, [str(problem) for problem in planner.problems]


def plan_of(block: Any, **options: Any) -> Plan:
    plan, problems = planned(block, **options)
    assert plan is not None, problems
    return plan


def reader(**params: Any) -> dict[str, Any]:
    return {"type": "bound:reader", "params": {"path": "p", **params}}


# --- values -----------------------------------------------------------------------------------------------------------


def test_defaults_are_filled_and_the_long_name_is_saved() -> None:
    plan = plan_of({"type": "reader", "params": {"path": "a/b"}})
    filled = {"path": "a/b", "count": 1, "rate": 0.5, "mode": "a", "flag": False, "name": None, "pair": [1, 2.0]}
    rest = {"many": None, "table": None, "group": {"size": 2}, "either": "auto", "copy": True}
    assert plan.block() == {"type": "bound:reader", "params": {**filled, **rest}}
    assert plan.build().given == {
        **filled,
        **rest,
        "path": Path("a/b"),
        "pair": (1, 2.0),
        "group": plan.params["group"],
    }


def test_a_saved_block_plans_to_the_same_block() -> None:
    plan = plan_of(reader(pair=[3, 4], many=["x"], table={"k": 2}, rate=float("inf"), either=3))
    again = plan_of(plan.block())
    assert again.block() == plan.block()
    assert again.params == plan.params


@pytest.mark.parametrize(
    ("params", "path", "message"),
    [
        ({"count": True}, "count", "must be a whole number, is True"),
        ({"count": "32"}, "count", "must be a whole number, is '32'"),
        ({"count": 1.0}, "count", "must be a whole number, is 1.0"),
        ({"count": 0}, "count", "must be greater than 0, is 0"),
        ({"count": None}, "count", "must be a whole number, is None"),
        ({"rate": "1"}, "rate", "must be a number, is '1'"),
        ({"rate": True}, "rate", "must be a number, is True"),
        ({"flag": 1}, "flag", "must be true or false, is 1"),
        ({"flag": "yes"}, "flag", "must be true or false, is 'yes'"),
        ({"name": 5}, "name", "must be text, is 5"),
        ({"path": 5}, "path", "must be text, is 5"),
        ({"mode": "c"}, "mode", "must be 'a' or 'b', is 'c'"),
        ({"pair": [1]}, "pair", "must have at least 2 items, has 1"),
        ({"pair": [1, 2, 3]}, "pair", "must have at most 2 items, has 3"),
        ({"pair": [1, "x"]}, "pair.1", "must be a number, is 'x'"),
        ({"pair": "1, 2"}, "pair", "must be a list, is '1, 2'"),
        ({"many": "x"}, "many", "must be a list, is 'x'"),
        ({"many": ["x", 1]}, "many.1", "must be text, is 1"),
        ({"table": [1]}, "table", "must be a mapping of keys, is [1]"),
        ({"table": {"k": "v"}}, "table.k", "must be a whole number, is 'v'"),
        ({"group": {"sise": 3}}, "group.sise", "is not a parameter of bound:reader (did you mean 'size'?)"),
        ({"group": {"zzz": 3}}, "group.zzz", "is not a parameter of bound:reader; it takes: size"),
        ({"group": 3}, "group", "must be a mapping of keys, is 3"),
        ({"either": "none"}, "either", "must be a whole number or 'auto', is 'none'"),
        ({"mode": "x" * 200}, "mode", "must be 'a' or 'b', is '" + "x" * 76 + "..."),
        ({"cuont": 1}, "cuont", "is not a parameter of bound:reader (did you mean 'count'?)"),
    ],
)
def test_a_wrong_value_is_named_with_what_must_hold(params: dict[str, Any], path: str, message: str) -> None:
    assert planned(reader(**params))[1] == [f"f.yml:1: part.params.{path}: {message}"]


def test_a_whole_number_is_a_number() -> None:
    assert plan_of(reader(rate=1)).build().given["rate"] == 1.0


def test_all_problems_of_a_block_are_found_at_once() -> None:
    problems = planned({"type": "bound:reader", "params": {"count": 0, "zzz": 1, "flag": 2}})[1]
    assert [line.split(": ")[1] for line in problems] == [
        "part.params.path",
        "part.params.count",
        "part.params.flag",
        "part.params.zzz",
    ]
    assert problems[0] == "f.yml:1: part.params.path: must be given: bound:reader needs it"
    assert problems[3].endswith("is not a parameter of bound:reader; it takes: path, count, rate, mode, flag, name, "
                                "pair, many, table, group, either, copy")  # fmt: skip


# --- blocks inside of blocks ------------------------------------------------------------------------------------------


def test_a_parameter_with_a_contract_is_a_block() -> None:
    inner = {"type": "bound:reader", "params": {"path": "p"}}
    plan = plan_of({"type": "bound:outer", "params": {"loss": "loss", "inner": inner}})
    assert set(plan.children) == {"loss", "inner"}
    built = plan.build()
    assert built.loss == ("loss", 1.0)
    assert built.inner.given["path"] == Path("p")
    assert built.sampler is None
    assert plan.block()["params"]["loss"] == {"type": "bound:loss", "params": {"weight": 1.0}}
    assert plan_of(plan.block()).block() == plan.block()


def test_a_default_may_be_a_name() -> None:
    plan = plan_of({"type": "bound:outer", "params": {"loss": {"type": "loss", "params": {"weight": 2.0}}}})
    assert type(plan.build().inner).__name__ == "Base"
    assert plan.build().loss == ("loss", 2.0)


@pytest.mark.parametrize(
    ("params", "path", "message"),
    [
        ({}, "params.loss", "must be given: bound:outer needs the name of a loss"),
        ({"loss": 5}, "params.loss", "must be the name of a loss, or a mapping of type and params, is 5"),
        ({"loss": ["x"]}, "params.loss", "must be the name of a loss, or a mapping of type and params, is ['x']"),
        ({"loss": "lose"}, "params.loss.type", "no loss is called 'lose' (did you mean 'loss'?)"),
        (
            {"loss": {"type": "loss", "params": {"wait": 1}}},
            "params.loss.params.wait",
            "is not a parameter of bound:loss (did you mean 'weight'?)",
        ),
        ({"loss": "loss", "lose": 1}, "params.lose", "is not a parameter of bound:outer (did you mean 'loss'?)"),
    ],
)
def test_a_wrong_nested_block_is_named_with_its_path(params: dict[str, Any], path: str, message: str) -> None:
    assert planned({"type": "bound:outer", "params": params})[1] == [f"f.yml:1: part.{path}: {message}"]


# --- what cannot be a schema ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("positional", "its constructor's parameter 'path' must be keyword-only"),
        ("anything", "its constructor's parameter 'kwargs' must be keyword-only"),
        ("untyped", "its constructor's parameter 'path' must have a type"),
        ("not_imported", "its annotations cannot be read: name 'Decimal' is not defined; import them at run time"),
        ("takes_vision", "its constructor's parameter 'vision' must be called otherwise: a run fills it for tasks"),
    ],
)
def test_a_constructor_that_is_no_schema_is_named(name: str, message: str) -> None:
    assert planned(f"bound:{name}")[1] == [f"f.yml:1: part.type: bound:{name}: {message}"]


def test_a_type_that_yaml_cannot_give_is_named() -> None:
    (problem,) = planned("bound:no_yaml")[1]
    assert (
        "bound:no_yaml: its constructor's parameter 'other' must have a type that YAML can give, is <class" in problem
    )
    assert "\n" not in problem


def test_functions_without_a_signature_are_no_schema() -> None:
    with pytest.raises(ComponentError, match="cannot be read"):
        signature_model(dict)


# --- what the run fills -----------------------------------------------------------------------------------------------


def test_assets_are_filled_by_the_run_and_not_by_the_config() -> None:
    plan = plan_of("bound:encoder", kind="vision_encoders")
    assert plan.takes == {"assets"}
    assert plan.build(assets="mine", vision="not asked for").assets == "mine"
    assert plan.block()["params"] == {"dim": 8}
    given = {"type": "bound:encoder", "params": {"assets": {}}}
    assert planned(given, kind="vision_encoders")[1] == [
        "f.yml:1: part.params.assets: is not a parameter of bound:encoder: the run fills it"
    ]


@pytest.mark.parametrize(("kind", "error"), [("data", DataError), ("config", ConfigError)])
def test_a_refusing_constructor_is_named_with_its_place(kind: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^f.yml:1: part: (the folder is empty|two things do not fit)$"):
        plan_of({"type": "bound:fails", "params": {"kind": kind}}).build()


def test_a_defect_of_a_constructor_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        plan_of({"type": "bound:fails", "params": {"kind": "defect"}}).build()


# --- names that a hook answers for ------------------------------------------------------------------------------------


def answer(value: Any) -> Callable[[str, str], Any]:
    return lambda kind, name: value if (kind, name) == ("readers", "family/3") else None


def test_a_hook_may_answer_for_a_name() -> None:
    def make(*, number: int = 3) -> Any:
        return number

    plan = plan_of("family/3", resolve=answer(make))
    assert (plan.component, plan.build()) == (None, 3)
    assert plan.block() == {"type": "family/3", "params": {"number": 3}}


def test_what_a_hook_answers_must_be_callable() -> None:
    (problem,) = planned("family/3", resolve=answer("a string"))[1]
    assert problem.endswith("a hook answers with 'a string', which cannot be called")


def test_a_problem_hides_those_that_it_causes() -> None:
    layers = Layers()
    planner = Planner(REGISTRY, layers)
    planner.problem(("a", "b"), "first")
    planner.problem(("a", "b"), "same place")
    planner.problem(("a", "b", 0, "c"), "inside")
    planner.problem(("a", "bc"), "beside")
    planner.problem(("a",), "above")
    assert [problem.message for problem in planner.problems] == ["first", "beside", "above"]
