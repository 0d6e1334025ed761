"""``python -m antmmf.utils.launch``, as the scripts of the first AntMMF call it, and what became of its config keys."""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import click
import yaml

from antmmf.errors import ConfigError, Problem
from antmmf.recipes import recipe_files
from antmmf.registry import Registry

_PLACE = ("node_rank", "master_addr", "master_port")


def in_our_words(error: ConfigError, arguments: Sequence[str] = ()) -> ConfigError:
    """The same error; where a key or a value was the first AntMMF's it says what is ours, or why there is none.

    So it does for each of the ``arguments``, where several are in one section that is not there.
    """
    problems = {(problem.path, problem.message): problem for problem in map(_translated, error.problems)}
    for number, argument in enumerate(arguments, start=1):
        key = argument.partition("=")[0]
        if _ours(key):
            problems.setdefault((key, _ours(key)), Problem(key, f"argument {number}", _ours(key)))
    return ConfigError(list(problems.values()))


def _translated(problem: Problem) -> Problem:
    wrong, meaning = _first_antmmf()["values"].get(problem.path, ("$^", ""))
    if re.search(wrong, problem.message):
        return replace(problem, message=f"{problem.message}; {meaning}")
    if not re.search("^is not a |so there is no ", problem.message):
        return problem
    written = re.search(r"\(([\w.]+)=", problem.where)  # as an argument; the path may only name its first unknown part
    key = written[1] if written else problem.path
    return replace(problem, path=key, message=_ours(key)) if _ours(key) else problem


def _ours(key: str) -> str:
    """What became of the first AntMMF's ``key``; empty if it had none of this name."""
    tables = _first_antmmf()
    keys = {rf"training_parameters\.({names})(\..*)?": text for names, text in tables["training_parameters"].items()}
    texts = [text for pattern, text in {**keys, **tables["elsewhere"]}.items() if re.fullmatch(pattern, key)]
    return f"is a key of the first AntMMF; here it {texts[0]}" if texts else ""


@functools.cache
def _first_antmmf() -> dict[str, dict[str, Any]]:
    text = Path(__file__).with_name("first_antmmf.yml").read_text(encoding="utf-8")
    tables: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return tables


def translated(argv: Sequence[str]) -> list[str]:
    """The arguments of ``antmmf`` that do what these of AntMMF's launcher did; stderr says what is left out.

    Raises ``ConfigError`` for options that cannot be had.
    """
    parser = argparse.ArgumentParser("python -m antmmf.utils.launch", description=__doc__, allow_abbrev=False)
    for name in ("nproc_per_node", "nnodes"):
        parser.add_argument(f"--{name}", type=int, default=1)
    for name in _PLACE:
        parser.add_argument(f"--{name}")
    parser.add_argument("--use_env", action="store_true", help="not needed: done always")
    parser.add_argument("script", help="not used: antmmf run is what runs")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="--config FILE [KEY VALUE ...]")
    given = parser.parse_args(argv)
    _note(f"{given.script} is not used: this is antmmf run")
    source, rest = _config_and_rest(given.arguments)
    if given.nproc_per_node * given.nnodes == 1:
        return ["run", source, *rest]
    names = ("nproc_per_node", "nnodes", *_PLACE)
    return ["run", source, *(f"--{name}={vars(given)[name]}" for name in names if vars(given)[name] is not None), *rest]


def _config_and_rest(arguments: Sequence[str]) -> tuple[str, list[str]]:
    parser = argparse.ArgumentParser("python -m antmmf.utils.launch ... SCRIPT", allow_abbrev=False)
    parser.add_argument("--config", required=True)
    parser.add_argument("--remote", action="store_true")
    for option in ("--local_rank", "--config_override", "--prj"):
        parser.add_argument(option)
    given, rest = parser.parse_known_args(arguments)
    if given.local_rank is not None:
        _note("--local_rank is not used: the launcher tells each process")
    options = _first_antmmf()["options"].items()
    refused = [Problem(option, "", text) for option, text in options if vars(given)[option.lstrip("-")]]
    if refused:
        raise ConfigError(refused)
    return _known_config(given.config), rest


def _known_config(config: str) -> str:
    """The file, or, where there is none, the recipe that is called like it."""
    stem = Path(config).stem
    recipes = [name for name in recipe_files(Registry()) if re.split("[/:]", name)[-1] == stem]
    if Path(config).expanduser().is_file() or len(recipes) != 1:
        return config
    _note(f"{config} does not exist; taking the recipe {recipes[0]}")
    return recipes[0]


def _note(text: str) -> None:
    click.echo(f"antmmf: {text}", err=True)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit, with the codes of ``antmmf``."""
    from antmmf.cli.main import main as antmmf
    from antmmf.cli.main import tell

    try:
        arguments = translated(sys.argv[1:] if argv is None else argv)
    except ConfigError as error:
        sys.exit(tell(error, debug=False))
    antmmf(arguments)


if __name__ == "__main__":
    main()
