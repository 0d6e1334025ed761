"""Strict YAML: words and numbers, places, equal keys, environment variables, and writing it back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from antmmf.config.reader import Document, parse, read_file, scalar, write
from antmmf.errors import ConfigError
from hypothesis import example, given, settings
from hypothesis import strategies as st


def read(text: str, **environment: str) -> Document:
    return parse(text, name="f.yml", environment=environment)


def problems(text: str, **environment: str) -> list[tuple[str, str, str]]:
    return [(problem.where, problem.path, problem.message) for problem in read(text, **environment).problems]


SCALARS: list[tuple[str, Any]] = [
    ("5e-5", 5e-5),
    ("1E3", 1000.0),
    ("-.5", -0.5),
    ("+3.", 3.0),
    ("1_000", 1000),
    ("1_000.5", 1000.5),
    ("0", 0),
    ("-7", -7),
    ("inf", math.inf),
    ("-.inf", -math.inf),
    ("true", True),
    ("True", True),
    ("FALSE", False),
    ("null", None),
    ("None", None),
    ("~", None),
    ("", None),
    ("no", "no"),
    ("off", "off"),
    ("yes", "yes"),
    ("y", "y"),
    ("007", "007"),
    ("0x10", "0x10"),
    ("1:30", "1:30"),
    ("2024-01-01", "2024-01-01"),
    ("1e", "1e"),
    ("1.2.3", "1.2.3"),
    ("e5", "e5"),
    ("_1", "_1"),
    ("٣", "٣"),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_a_plain_word_is_read_as_yaml_and_on_the_command_line_alike(text: str, value: Any) -> None:
    for found in (scalar(text), read(f"a: {text}").values["a"]):
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize("text", ["'5'", '"true"', "'null'", "|-\n  1.5"])
def test_what_is_quoted_stays_text(text: str) -> None:
    assert isinstance(read(f"a: {text}").values["a"], str)


def test_nan_is_a_number() -> None:
    assert math.isnan(scalar("nan"))


def test_every_path_has_the_line_where_it_stands() -> None:
    lines = read("# a comment\na:\n  b: 1\n  c:\n    - x\n    - y: 2\n      z: 3\nd: {e: 4,\n  f: 5}\n").lines
    expected = {
        (): 1,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 6,
        ("a", "c", 1, "y"): 6,
        ("a", "c", 1, "z"): 7,
        ("d",): 8,
        ("d", "e"): 8,
        ("d", "f"): 9,
    }
    assert lines == expected


def test_every_equal_key_is_named_with_both_lines() -> None:
    text = "a: 1\nb: {c: 1, c: 2}\na: 2\n'a': 3\n"
    assert problems(text) == [
        ("f.yml:2", "b.c", "is given twice; first in line 2"),
        ("f.yml:3", "a", "is given twice; first in line 1"),
        ("f.yml:4", "a", "is given twice; first in line 1"),
    ]


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    values = read("a: &a {x: 1, y: 2}\nb: *a\nc:\n  <<: *a\n  y: 3\nd: {'<<': 1}\n").values
    assert values == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}, "d": {"<<": 1}}


def test_an_alias_inside_of_itself_is_a_problem() -> None:
    assert problems("a: &a\n  b: *a\n") == [("f.yml:1", "a.b", "an alias must not contain itself")]


@pytest.mark.parametrize("value", ["!!str 5", "!mine x", "!!python/name:os.sep x", "!!set {a}"])
def test_tags_are_refused(value: str) -> None:
    ((where, path, message),) = problems(f"\na: {value}")
    assert (where, path) == ("f.yml:2", "a")
    assert message == f"tags are not allowed, is {value.split()[0]}; write the plain value"


def test_tags_that_say_what_is_there_anyway_change_nothing() -> None:
    assert read("a: !!int 5\nb: !!seq [1]\nc: ! x").values == {"a": 5, "b": [1], "c": "x"}


def test_a_key_must_be_a_word() -> None:
    assert problems("? [1, 2]\n: 3\n") == [("f.yml:1", "", "a key must be a plain word")]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", 5),
        ("'${A}'", "5"),
        ("${A}/${B}", "5/x y"),
        ("${B}", "x y"),
        ('"${NO:7}"', "7"),
        ("${NO:}", None),
        ("'${NO:}'", ""),
        ("${NO:a:b}", "a:b"),
        ("$A", "$A"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("[${A}, ${A}]", None),
    ],
)
def test_environment_variables(text: str, value: Any) -> None:
    if text.startswith("["):
        with pytest.raises(ConfigError, match="not valid YAML"):  # in brackets they must be quoted
            read(f"a: {text}", A="5")
        return
    document = read(f"a: {text}", A="5", B="x y")
    assert document.values["a"] == value
    assert document.problems == ()


def test_a_value_from_the_environment_cannot_add_keys() -> None:
    assert read("a: ${A}", A="1\nb: 2").values == {"a": "1\nb: 2"}


def test_every_variable_that_is_not_set_is_named() -> None:
    message = "environment variable {0} must be set, or write ${{{0}:default}}"
    assert problems("a: ${X}\nb: ['${Y}']\n") == [
        ("f.yml:1", "a", message.format("X")),
        ("f.yml:2", "b.0", message.format("Y")),
    ]
    assert problems("a: ${X-1}")[0][2].startswith("must be ${NAME} or ${NAME:default}")


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("a: [1\nb: 2\n", "f.yml:1", "while parsing a flow sequence"),
        ("a: 'x\nb: 2\n", "f.yml:1", "while scanning a quoted scalar"),
        ("a: 1\n\tb: 2\n", "f.yml:2", "found character '\\t' that cannot start any token"),
        ("a: 1\nb: c: d\n", "f.yml:2", "mapping values are not allowed here"),
        ("a: 1\n---\na: 2\n", "f.yml:2", "but found another document"),
        ("a: *b\n", "f.yml:1", "found undefined alias 'b'"),
        ("a: \x00\n", "f.yml", "special characters are not allowed"),
    ],
)
def test_what_is_not_yaml_is_one_line_with_its_place(text: str, where: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    (problem,) = caught.value.problems
    assert problem.where == where
    assert message in problem.message
    assert "\n" not in problem.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "list.yml").write_text("- 1\n")
    (tmp_path / "latin.yml").write_bytes("a: 1\nb: ä\n".encode("latin-1"))
    for name, message in (
        ("list.yml", "list.yml:1: must be a mapping of keys, is a list"),
        ("latin.yml", "latin.yml:2: must be UTF-8 text"),
        ("none.yml", "none.yml: cannot be read: No such file or directory"),
        (".", ".: cannot be read: Is a directory"),
    ):
        with pytest.raises(ConfigError) as caught:
            read_file(tmp_path / name, name=name)
        assert message in str(caught.value)


def test_a_byte_order_mark_and_an_empty_file_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_file(tmp_path / "a.yml", name="a.yml").values == {"a": 1}
    (tmp_path / "a.yml").write_text("# nothing\n")
    assert read_file(tmp_path / "a.yml", name="a.yml").values == {}


SINGLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.sampled_from(
        ["5e-5", "none", "~", "${A}", "$${A:${B}}", "no", "007", "1_0", "<<", "=", "- a", "#", "a: b", " "]
    ),
)
KEYS = st.text() | st.sampled_from(["none", "5e-5", "<<", "${A}", "1", "~", "a.b"])


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, st.recursive(SINGLE, lambda v: st.lists(v) | st.dictionaries(KEYS, v), max_leaves=8)))
@example({"a": ["x", ["y"]], "b": "line\nline\n", "c": "\x85\u2028\ufeff"})
def test_what_is_written_reads_back_as_the_same(values: dict[str, Any]) -> None:
    document = read(write(values))
    assert document.problems == ()
    assert document.values == values
    assert repr(document.values) == repr(values)  # 1 is not True, 1.0 is not 1, and the order is kept


def test_equal_values_are_written_in_full() -> None:
    shared = [1]
    assert "&" not in write({"a": shared, "b": shared})
