"""The size budget: a newcomer reads a file in one sitting and a function on one screen."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest
from tree import ROOT, SOURCES, functions, python_files

MAX_PACKAGE, MAX_FILE, MAX_FUNCTION = 6_000, 400, 60
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


@pytest.mark.parametrize("distribution", SOURCES)
def test_packages_keep_their_budget(distribution: str) -> None:
    folder = SOURCES[distribution]
    files = [path for path in python_files(folder) if "testing" not in path.relative_to(folder).parts]
    count = sum(code_lines(path.read_text(encoding="utf-8")) for path in files)
    assert count <= MAX_PACKAGE, f"{distribution} has {count} lines of code, at most {MAX_PACKAGE} are allowed"


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in EVERY_FILE}
    assert _too_long(lengths, MAX_FILE) == []


def test_no_function_is_too_long() -> None:
    lengths = {f"{path}:{name}": lines for path in EVERY_FILE for name, lines in functions(path)}
    assert _too_long(lengths, MAX_FUNCTION) == []


def _too_long(lengths: dict[Path, int] | dict[str, int], limit: int) -> list[str]:
    return [f"{str(name).removeprefix(f'{ROOT}/')}: {lines}" for name, lines in lengths.items() if lines > limit]
