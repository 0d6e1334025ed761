"""``antmmf compare``: runs beside each other, over seeds and over cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from antmmf.cli.options import bold, json_option, print_json, table
from antmmf.errors import ConfigError

if TYPE_CHECKING:
    from antmmf_tasks.comparison import Group, PairedTest, Row

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\^{}",
}


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--figures", multiple=True, metavar="PATTERN", help="Only figures like it, such as 'test/*'; repeatable.")
@click.option("--latex", is_flag=True, help="Print a table for LaTeX (booktabs), a row for each group.")
@json_option
def compare(runs: tuple[Path, ...], figures: tuple[str, ...], latex: bool, as_json: bool) -> None:
    """Compare RUNS, run folders or folders of --seeds: those that are equal but for the seed are one group.

    Prints each figure's mean ± standard deviation over seeds beside its 95 % interval over cases, and a paired test of
    each group against the first. Runs on different data are refused.
    """
    from antmmf_tasks.comparison import compare as compared
    from antmmf_tasks.comparison import group_runs
    from antmmf_tasks.finished import finished_runs

    groups = group_runs(finished_runs(runs))
    rows = [row for row in compared(groups) if not figures or any(fnmatchcase(row.figure, one) for one in figures)]
    if not rows:
        raise ConfigError(f"--figures {' '.join(figures)} must fit a figure; there are: {', '.join(groups[0].spreads)}")
    if as_json:
        print_json(_plain(groups, rows))
    else:
        click.echo("\n".join(_latex_lines(groups, rows) if latex else _lines(groups, rows)))


def _lines(groups: Sequence[Group], rows: Sequence[Row]) -> Iterator[str]:
    from antmmf_tasks.comparison import differing

    for group in groups:
        folders = ", ".join(str(run.folder) for run in group.runs)
        yield f"{bold(group.name)}  {_count(len(group.runs), 'seed')} ({', '.join(map(str, group.seeds))}): {folders}"
    for key, values in differing(groups).items():
        said = ", ".join(f"{group.name} {value}" for group, value in zip(groups, values, strict=True))
        yield f"   {key}: {said}"
    first = groups[0].name
    heading = ["figure", *(group.name for group in groups)]
    for group in groups[1:]:
        heading += [f"{group.name} - {first}", "p" if len(groups) == 2 else "p (Holm)"]
    lines = [heading]
    for row in rows:
        cells = [f"{spread} {spread.interval}".strip() for spread in row.spreads]
        lines.append([row.figure, *cells, *(cell for test in row.tests for cell in _said(test))])
    yield table(lines)
    tests = [test for row in rows for test in row.tests if test is not None]
    if any(test.over == "cases" for test in tests):
        yield "p: sign-flip test over the queries or questions, those of one video together; it holds for these seeds"
    if any(test.over == "seeds" for test in tests):
        yield "* paired by seed: with n seeds p cannot be below 2 / 2^n"


def _said(test: PairedTest | None) -> tuple[str, str]:
    if test is None:
        return "", "-"
    interval = "" if test.low is None else f" [{test.low:+.2f}, {test.high:+.2f}]"
    return f"{test.difference:+.2f}{interval}", f"{test.corrected:.2g}" + "*" * (test.over == "seeds")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _latex_lines(groups: Sequence[Group], rows: Sequence[Row]) -> Iterator[str]:
    yield r"\begin{tabular}{l" + "r" * len(rows) + "}"
    yield r"\toprule"
    yield " & ".join(["", *(_latex(row.figure) for row in rows)]) + r" \\"
    yield r"\midrule"
    for number, group in enumerate(groups):
        cells = []
        for row in rows:
            spread, test = row.spreads[number], row.tests[number - 1] if number else None
            star = r"$^{*}$" if test is not None and test.corrected < 0.05 else ""
            std = "" if spread.std is None else rf" $\pm$ {spread.std:.2f}"
            cells.append(f"{spread.mean:.2f}{star}{std} {spread.interval}".strip())
        yield " & ".join([f"{group.name}", *cells]) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield "% in brackets the 95 % interval over cases; \\pm the standard deviation over seeds"
    yield f"% * differs from {groups[0].name}, p < 0.05 (sign-flip test, Holm's correction):"
    for row in rows:
        for group, test in zip(groups[1:], row.tests, strict=True):
            difference, p = _said(test)
            yield f"% {row.figure}: {group.name} - {groups[0].name} {difference or 'not tested'}, p {p}"
    for group in groups:
        yield f"% {group.name}: {', '.join(str(run.folder) for run in group.runs)}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _plain(groups: Sequence[Group], rows: Sequence[Row]) -> dict[str, Any]:
    from antmmf_tasks.comparison import differing

    return {
        "groups": [
            {"name": group.name, "seeds": group.seeds, "runs": [str(run.folder) for run in group.runs]}
            for group in groups
        ],
        "differing": differing(groups),
        "figures": {
            row.figure: {
                "groups": [asdict(spread) for spread in row.spreads],
                "tests": [test and asdict(test) for test in row.tests],
            }
            for row in rows
        },
    }
