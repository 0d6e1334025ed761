"""``--plugin FILE.py``: components and hooks that are not packaged yet."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from antmmf.errors import ComponentError, ConfigError, PluginError
from antmmf.plan import plan_run
from antmmf.plugins import load_plugins
from antmmf.registry import Registry, load_file

HERE = Path(__file__).parent
MINE, TINY = HERE / "mine.py", HERE / "tiny.yml"


def write(folder: Path, source: str, name: str = "own.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(source, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_run_with_two_workers_uses_the_file(method: str, tmp_path: Path, antmmf_process: Callable[..., Any]) -> None:
    seen, save = tmp_path / "seen", tmp_path / "run"
    seen.mkdir()
    settings = {"num_workers": 2, "worker_start_method": method, "save_dir": save}
    arguments = [f"training_parameters.{key}={value}" for key, value in settings.items()]
    done = antmmf_process("run", str(TINY), *arguments, "--plugin", str(MINE), SEEN=str(seen))
    assert done.code == 0, done.err
    assert len(list(seen.iterdir())) == 2
    assert (save / "hook.txt").read_text() == "tiny"
    lock = json.loads((save / "plugins.lock.json").read_text())
    assert lock["mine"]["source"] == hashlib.sha256(b"mine.py\0" + MINE.read_bytes()).hexdigest()
    assert set(lock["mine"]["components"]) == {"datasets/dots", "readers/noise"}
    assert "mine:dots" in (save / "config.yml").read_text()


def test_classes_of_a_file_are_pickled_by_reference() -> None:
    module = load_file(MINE)
    assert pickle.loads(pickle.dumps(module.Noise)) is module.Noise
    assert load_file(MINE) is module


def test_a_file_is_one_distribution_of_components() -> None:
    registry = Registry(files=[MINE])
    found = registry.find("readers", "mine:noise")
    assert found is not None
    assert (found.full_name, found.version) == ("mine:noise", "file")
    assert found.load().__name__ == "Noise"


def test_hooks_of_a_file_are_registered() -> None:
    manager, broken = load_plugins(Registry(files=[MINE]))
    assert broken == []
    assert [hook.plugin_name for hook in manager.hook.antmmf_run_start.get_hookimpls()] == [str(MINE)]


def test_two_files_of_the_same_name_are_refused(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a", ""), write(tmp_path / "b", "")
    with pytest.raises(PluginError, match=r"a --plugin file called own\.py is given already; rename"):
        Registry(files=[one, two])
    assert len(Registry(files=[one, one]).files) == 1


def test_files_of_the_same_name_in_two_registries_do_not_meet(tmp_path: Path) -> None:
    loaded = [load_file(write(tmp_path / name, f"NAME = {name!r}")).NAME for name in ("a", "b")]
    assert loaded == ["a", "b"]


def test_a_name_that_a_package_offers_too_must_be_written_in_full(tmp_path: Path) -> None:
    path = write(tmp_path, "class R:\n    def read(self): ...\nANTMMF_COMPONENTS = {'readers': {'pyav': R}}")
    registry = Registry(files=[path])
    with pytest.raises(ComponentError, match="write 'antmmf-vision:pyav' or 'own:pyav'"):
        registry.find("readers", "pyav")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import surely_not_installed", "cannot be loaded: it needs the module 'surely_not_installed'"),
        ("x = 1\ndef f(:", r"own\.py:2 cannot be loaded: SyntaxError"),
        ("raise ValueError", "cannot be loaded: ValueError"),
        ("import sys; sys.exit(3)", "cannot be loaded: SystemExit: 3"),
        ("ANTMMF_COMPONENTS = []", r"ANTMMF_COMPONENTS must look like .* is \[\]"),
        ("ANTMMF_COMPONENTS = {'readers': []}", r"has \[\] for 'readers'"),
        ("ANTMMF_COMPONENTS = {'reader': {}}", r"has no kind 'reader' \(did you mean 'readers'\?\)"),
    ],
)
def test_a_broken_file_is_an_error_that_names_it(source: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=reason) as error:
        Registry(files=[write(tmp_path, source)])
    assert "own.py" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "there"), [("absent.py", "does not exist"), ("text.txt", "is something else")])
def test_a_path_that_is_no_python_file_is_an_error(name: str, there: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").touch()
    with pytest.raises(PluginError, match=there):
        Registry(files=[tmp_path / name])


def test_a_component_that_the_file_does_not_define_is_named(tmp_path: Path) -> None:
    registry = Registry(files=[write(tmp_path, "ANTMMF_COMPONENTS = {'readers': {'mine': 'Reader'}}")])
    with pytest.raises(ConfigError, match=r"own file: reader 'mine' .* the file defines no 'Reader'"):
        plan_run("quickstart", ["input_attributes.reader=mine"], registry=registry)


def test_a_misspelt_hook_in_a_file_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "from antmmf import hookimpl\n@hookimpl\ndef antmmf_run_begin(info): ...")
    with pytest.raises(PluginError, match=r"own\.py: no hook is called 'antmmf_run_begin'"):
        load_plugins(Registry(files=[path]))


def test_a_file_without_hooks_is_no_error(tmp_path: Path) -> None:
    assert load_plugins(Registry(files=[write(tmp_path, "x = 1")]))[1] == []


def test_a_file_that_prints_does_not_spoil_json(tmp_path: Path, antmmf: Callable[..., Any]) -> None:
    done = antmmf("list", "readers", "--json", "--plugin", str(write(tmp_path, "print('hello')")))
    assert json.loads(done.out)
    assert "hello" in done.err
