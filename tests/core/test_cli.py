"""The command line: exit codes, errors of one line, JSON, colours, completion, commands of other packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from antmmf.testing import fake_distribution, on_path


@dataclass(frozen=True)
class Done:
    """What a command line left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def antmmf(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run ``antmmf ARGUMENTS`` in this process."""
    from antmmf.cli.main import main

    def run(*arguments: str) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capfd.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return run


def process(*arguments: str, **environment: str) -> Done:
    """Run ``python -m antmmf ARGUMENTS``."""
    command = [sys.executable, "-m", "antmmf", *arguments]
    env = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=100, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


READING = [
    ("list",),
    ("list", "readers"),
    ("show", "retrieval"),
    ("show", "quickstart"),
    ("config", "quickstart"),
    ("config", "quickstart", "--explain"),
    ("config", "--schema"),
    ("check", "quickstart", "--no-files"),
    ("doctor",),
    ("version",),
]


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_every_reading_command_prints_one_json_document(
    arguments: tuple[str, ...], antmmf: Callable[..., Done]
) -> None:
    done = antmmf(*arguments, "--json")
    assert done.code == 0
    assert json.loads(done.out)


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_every_reading_command_prints_text(arguments: tuple[str, ...], antmmf: Callable[..., Done]) -> None:
    done = antmmf(*arguments)
    assert done.code == 0
    assert done.out.strip()
    assert "\x1b" not in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("shw",), "no command is called 'shw' (did you mean 'show'?) (see: antmmf --help)"),
        (("show",), "Missing argument 'NAME'. (see: antmmf show --help)"),
        (("list", "reader", "--jsn"), "No such option"),
        (("list", "redaers"), "no kind is called 'redaers' (did you mean 'readers'?)"),
        (("show", "retreival"), "nothing is called 'retreival' (did you mean 'retrieval'?)"),
        (("show", "antmmf-tasks:shapse"), "nothing is called 'antmmf-tasks:shapse'"),
        (("config", "quikstart"), "quikstart: there is no such file or recipe (did you mean 'quickstart'?)"),
        (("run", "absent.yml"), "absent.yml: there is no such file"),
        (("check", "quickstart", "metrics=[recal]"), "(did you mean 'recall'?)"),
        (("list", "--plugin", "absent.py"), "absent.py: must be a Python file that ends in .py, does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_users_error_is_one_line_and_exits_with_2(
    arguments: tuple[str, ...], message: str, antmmf: Callable[..., Done]
) -> None:
    done = antmmf(*arguments)
    assert done.code == 2
    assert done.err.startswith("antmmf: ")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not done.out


def test_debug_shows_the_traceback_and_keeps_the_exit_code(
    antmmf: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Traceback" not in antmmf("show", "nothing").err
    for done in (antmmf("--debug", "show", "nothing"), antmmf("show", "nothing", "--debug")):
        assert done.code == 2
        assert "Traceback" in done.err
        assert done.err.endswith("antmmf: nothing is called 'nothing'; for what there is: antmmf list\n")
    monkeypatch.setenv("ANTMMF_DEBUG", "1")
    assert "Traceback" in antmmf("show", "nothing").err


def test_a_defect_keeps_its_traceback_and_exits_with_1(tmp_path: Path) -> None:
    source = "import click\n@click.command()\ndef run():\n    {}['a defect']\n"
    points = {"antmmf.commands": {"crash": "crash:run"}}
    fake_distribution(tmp_path, name="crash", entry_points=points, modules={"crash": source})
    done = process("crash", PYTHONPATH=str(tmp_path))
    assert done.code == 1
    assert "KeyError: 'a defect'" in done.err
    assert "Traceback" in done.err


def test_python_m_antmmf_is_antmmf() -> None:
    done = process("list", "tasks")
    assert (done.code, done.err) == (0, "")
    assert "retrieval" in done.out
    assert process("show", "nothing").code == 2


def test_without_arguments_the_help_is_shown(antmmf: Callable[..., Done]) -> None:
    done = antmmf()
    assert done == antmmf("--help") == antmmf("-h")
    assert done.code == 0
    assert done.out.startswith("Usage: antmmf")


def test_version_as_an_option(antmmf: Callable[..., Done]) -> None:
    assert antmmf("--version") == antmmf("version")


# --- what there is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["vision_encoders", "vision-encoder", "vision encoder"])
def test_a_kind_can_be_spelt_in_several_ways(spelling: str, antmmf: Callable[..., Done]) -> None:
    assert "small_video" in antmmf("list", spelling).out


def test_list_names_recipes_and_hooks(antmmf: Callable[..., Done]) -> None:
    out = antmmf("list").out
    for expected in ("recipes\n  finetune/", "\n  quickstart ", "hooks\n  antmmf_resolve"):
        assert expected in out


def test_show_describes_parameters(antmmf: Callable[..., Done]) -> None:
    (shown,) = json.loads(antmmf("show", "--json", "antmmf-vision:resize_crop").out)
    parameters = {parameter["name"]: parameter for parameter in shown["parameters"]}
    assert parameters["size"]["default"] == 224
    assert parameters["size"]["type"] == "int > 0"
    assert not parameters["size"]["required"]
    (captions,) = json.loads(antmmf("show", "--json", "datasets/captions").out)
    parameters = {parameter["name"]: parameter for parameter in captions["parameters"]}
    assert parameters["data_root_dir"]["required"]
    assert parameters["split"]["type"] == "'train' | 'val' | 'test'"
    (retrieval,) = json.loads(antmmf("show", "--json", "retrieval").out)
    assert retrieval["parameters"][0]["type"] == "loss: its name, or type and params"


def test_show_a_recipe_prints_its_file(antmmf: Callable[..., Done]) -> None:
    assert "model_attributes:" in antmmf("show", "quickstart").out


@pytest.mark.parametrize("name", ["retrieval", "antmmf-tasks:retrieval"])
def test_show_says_which_package_of_ours_is_missing(name: str, antmmf: Callable[..., Done]) -> None:
    done = antmmf("show", name, "--without-plugin", "antmmf-tasks")
    assert done.code == 2
    assert "its package antmmf-tasks is disabled" in done.err


def test_version_says_what_is_not_installed(antmmf: Callable[..., Done]) -> None:
    versions = json.loads(antmmf("version", "--json").out)
    assert versions["antmmf-core"][0].isdigit()
    assert set(versions) >= {"antmmf-tasks", "antmmf-text", "antmmf-vision", "torch", "python"}


# --- terminal and shell -----------------------------------------------------------------------------------------------


def on_terminal(*arguments: str, **environment: str) -> str:
    """What ``antmmf`` prints where its output is a terminal."""
    pty = pytest.importorskip("pty", reason="pseudo terminals are a thing of POSIX")
    ours, theirs = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | environment
    subprocess.run([sys.executable, "-m", "antmmf", *arguments], stdout=theirs, env=env, timeout=100, check=True)
    os.close(theirs)
    out = os.read(ours, 65536).decode()
    os.close(ours)
    return out


def test_headings_are_bold_on_a_terminal_but_not_under_no_color() -> None:
    assert "\x1b[1m" in on_terminal("list", "tasks")
    plain = on_terminal("list", "tasks", NO_COLOR="1")
    assert "\x1b" not in plain
    assert "retrieval" in plain


def test_a_shell_can_complete_commands_and_recipes() -> None:
    assert "complete" in process(_ANTMMF_COMPLETE="bash_source").out
    for words, index, expected in (("antmmf l", "1", "plain,list\n"), ("antmmf run qui", "2", "plain,quickstart\n")):
        done = process(_ANTMMF_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=index)
        assert done.out.startswith(expected)


# --- commands of other packages ---------------------------------------------------------------------------------------

HELLO = """
import click

@click.command()
@click.argument("name")
def hello(name):
    "Greet."
    click.echo(f"hello {name}")
"""


def test_a_package_can_offer_a_command(tmp_path: Path, antmmf: Callable[..., Done]) -> None:
    points = {"antmmf.commands": {"hello": "acme_hello:hello"}}
    with on_path(fake_distribution(tmp_path, name="acme", entry_points=points, modules={"acme_hello": HELLO})):
        assert antmmf("hello", "you") == Done(0, "hello you\n", "")
        assert "hello    from acme" in antmmf("--help").out
        assert antmmf("hello").code == 2
        assert "did you mean 'hello'" in antmmf("helo").err
        assert antmmf("show", "hello").code == 0


def test_a_broken_command_hurts_only_its_user(tmp_path: Path, antmmf: Callable[..., Done]) -> None:
    points = {"antmmf.commands": {"hello": "acme_hello:hello"}}
    with on_path(
        fake_distribution(tmp_path, name="acme", entry_points=points, modules={"acme_hello": "raise OSError"})
    ):
        assert antmmf("--help").code == 0
        done = antmmf("hello")
    assert done.code == 2
    assert done.err == "antmmf: acme 1.0: command 'hello' (acme_hello:hello) cannot be loaded: OSError\n"


def test_a_command_that_two_packages_offer_is_an_error_when_used(tmp_path: Path, antmmf: Callable[..., Done]) -> None:
    for name in ("one", "two"):
        points = {"antmmf.commands": {"hello": "acme_hello:hello"}}
        fake_distribution(tmp_path, name=name, entry_points=points, modules={"acme_hello": HELLO})
    with on_path(tmp_path):
        done = antmmf("hello", "you")
    assert done.code == 2
    assert "command 'hello' is offered by 2 packages" in done.err
