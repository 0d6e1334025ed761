"""The size budget: a newcomer reads a file in one sitting and a function on one screen."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest
from tree import ROOT, SOURCES, functions, python_files, toml

MAX_PACKAGE, MAX_SHELL, MAX_DATA, MAX_ENGINE, MAX_INFERENCE, MAX_FILE, MAX_FUNCTION = (
    6_000,
    3_300,
    1_400,
    3_700,
    350,
    400,
    60,
)
MAX_TASKS = 6_400  # docs/adr/0016-budget-of-tasks.md
OTHER = [ROOT / "plugins", ROOT / "tests", ROOT / "benchmarks", ROOT / "noxfile.py"]
EVERY_FILE = [
    path for place in (*SOURCES.values(), *OTHER) for path in ([place] if place.is_file() else python_files(place))
]
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def code_lines(text: str) -> int:
    """Lines that are not blank, comment or docstring."""
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                assert first.end_lineno is not None
                lines -= set(range(first.lineno, first.end_lineno + 1))
    return len(lines)


def test_code_lines_leave_out_blanks_comments_and_docstrings() -> None:
    text = '"""Module.\n\nMore."""\n\nx = """a\nb"""\n\n\ndef f():\n    """Doc."""\n    # why\n    return x  # end\n'
    assert code_lines(text) == 4


def count(files: list[Path]) -> int:
    return sum(code_lines(path.read_text(encoding="utf-8")) for path in files if "testing" not in path.parts)


@pytest.mark.parametrize("distribution", [name for name in SOURCES if name != "antmmf-core"])
def test_packages_keep_their_budget(distribution: str) -> None:
    assert count(python_files(SOURCES[distribution])) <= (MAX_TASKS if distribution == "antmmf-tasks" else MAX_PACKAGE)


def test_the_parts_of_the_core_keep_their_budgets() -> None:
    """The shell is what must not import torch (pyproject.toml, rule TID253); data is what reads samples;
    inference uses what a run has trained."""
    files = python_files(SOURCES["antmmf-core"])
    rules = toml(ROOT / "pyproject.toml")["tool"]["ruff"]["lint"]["per-file-ignores"]
    pattern = next(pattern for pattern, codes in rules.items() if codes == ["TID253"])
    root, _, names = pattern.removeprefix("!").removesuffix(".py").partition("{")
    shell = {path for name in names.removesuffix("}").split(",") for path in (ROOT / root).glob(f"{name}.py")}
    assert len(shell) > 20
    assert count(sorted(shell)) <= MAX_SHELL
    data = [path for path in files if path.parent.name == "data"]
    assert count(data) <= MAX_DATA
    inference = [path for path in files if path.parent.name == "inference"]
    assert count(inference) <= MAX_INFERENCE
    assert count([path for path in files if path not in (*shell, *data, *inference)]) <= MAX_ENGINE


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in EVERY_FILE}
    assert _too_long(lengths, MAX_FILE) == []


def test_no_function_is_too_long() -> None:
    lengths = {f"{path}:{name}": lines for path in EVERY_FILE for name, lines in functions(path)}
    assert _too_long(lengths, MAX_FUNCTION) == []


def _too_long(lengths: dict[Path, int] | dict[str, int], limit: int) -> list[str]:
    return [f"{str(name).removeprefix(f'{ROOT}/')}: {lines}" for name, lines in lengths.items() if lines > limit]
