"""A broken distribution is named with its reason, and hurts only those who use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from antmmf.errors import AntmmfError, ComponentError, ConfigError, PluginError
from antmmf.plan import plan_run
from antmmf.plugins import load_plugins
from antmmf.registry import Registry
from antmmf.testing import fake_distribution, on_path
from broken_plugins import BROKEN, CLASH, FATAL, READER, write, write_all

READERS = {name: parts["reader"] for name, (parts, _) in BROKEN.items() if "reader" in parts}
HOOKS = [name for name, (parts, _) in BROKEN.items() if "hooks" in parts]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("broken"))


@pytest.fixture
def folder(written: Path) -> Iterator[Path]:
    with on_path(written):
        yield written


@pytest.fixture(scope="module")
def report(written: Path, antmmf_process: Callable[..., Any]) -> dict[str, Any]:
    done = antmmf_process("doctor", "--json", folder=written)
    assert done.code == 1, done.err
    return dict(json.loads(done.out))


@pytest.mark.parametrize("name", BROKEN)
def test_doctor_names_every_broken_package_and_its_reason(name: str, report: dict[str, Any]) -> None:
    reasons = [entry["reason"] for entry in report["broken"] if entry["distribution"] == name]
    assert len(reasons) == 1
    assert reasons[0].startswith(name)
    assert BROKEN[name][1] in reasons[0]
    assert "\n" not in reasons[0]


def test_doctor_blames_nobody_else(report: dict[str, Any]) -> None:
    assert {entry["distribution"] for entry in report["broken"]} == set(BROKEN)
    assert [clash["name"] for clash in report["clashes"]] == ["twin"]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_package_alone_makes_doctor_exit_1(name: str, tmp_path: Path, antmmf: Callable[..., Any]) -> None:
    with on_path(write(tmp_path, name)):
        done = antmmf("doctor")
    assert done.code == 1
    assert BROKEN[name][1] in done.out


def test_a_clash_alone_makes_doctor_exit_1(tmp_path: Path, antmmf: Callable[..., Any]) -> None:
    for name in ("one", "two"):
        fake_distribution(
            tmp_path, name=name, entry_points={"antmmf.readers": {"twin": "m:Reader"}}, modules={"m": READER}
        )
    with on_path(tmp_path):
        done = antmmf("doctor")
    assert done.code == 1
    assert CLASH + "one:twin or two:twin" in done.out


def test_doctor_is_content_without_broken_packages(antmmf: Callable[..., Any]) -> None:
    done = antmmf("doctor")
    assert done.code == 0
    assert "everything loads" in done.out


def test_list_shows_everything_that_has_a_name(folder: Path, antmmf_process: Callable[..., Any]) -> None:
    done = antmmf_process("list", "--json", folder=folder)
    assert done.code == 0
    assert not done.err
    rows = {(row["distribution"], row["name"]) for row in json.loads(done.out)}
    assert set(READERS.items()) <= rows
    assert ("antmmf-tasks", "retrieval") in rows
    assert ("bad-twice", "again") in rows


@pytest.mark.usefixtures("folder")
def test_list_as_text_works_beside_broken_packages(antmmf: Callable[..., Any]) -> None:
    done = antmmf("list", "readers")
    assert done.code == 0
    assert "needy" in done.out


@pytest.mark.parametrize("name", [name for name in READERS if name not in ("bad-metadata", "bad-header")])
@pytest.mark.usefixtures("folder")
def test_show_says_in_one_line_why_a_component_is_broken(name: str, antmmf: Callable[..., Any]) -> None:
    done = antmmf("show", READERS[name])
    assert done.code == 2
    assert BROKEN[name][1] in done.err
    assert done.err.count("\n") == 1
    assert not done.out


@pytest.mark.parametrize("name", ["bad-metadata", "bad-header"])
@pytest.mark.usefixtures("folder")
def test_a_component_works_though_its_metadata_is_broken(name: str, antmmf: Callable[..., Any]) -> None:
    done = antmmf("show", READERS[name])
    assert done.code == 0
    assert "size" in done.out


@pytest.mark.usefixtures("folder")
def test_show_of_a_clash_shows_both(antmmf: Callable[..., Any]) -> None:
    done = antmmf("show", "twin")
    assert done.code == 0
    assert "bad-clash-one" in done.out
    assert "bad-clash-two" in done.out


def test_show_of_a_clash_shows_the_one_that_works(tmp_path: Path, antmmf: Callable[..., Any]) -> None:
    for name, module, source in (("one", "twin_one", READER), ("two", "twin_two", "raise OSError('gone')")):
        points = {"antmmf.readers": {"twin": f"{module}:Reader"}}
        fake_distribution(tmp_path, name=name, entry_points=points, modules={module: source})
    with on_path(tmp_path):
        done = antmmf("show", "twin")
    assert done.code == 2
    assert "reader of one 1.0" in done.out
    assert done.err == "antmmf: two 1.0: reader 'twin' (twin_two:Reader) cannot be loaded: OSError: gone\n"


@pytest.mark.usefixtures("folder")
def test_a_plan_without_the_broken_ones_works() -> None:
    plan = plan_run("quickstart", registry=Registry())
    assert {broken.distribution for broken in plan.broken} == set(HOOKS)
    assert all(BROKEN[broken.distribution][1] in broken.reason for broken in plan.broken)


@pytest.mark.parametrize("name", [name for name in READERS if name not in ("bad-metadata", "bad-header")])
@pytest.mark.usefixtures("folder")
def test_a_plan_that_uses_a_broken_one_fails_and_says_why(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan_run("quickstart", [f"input_attributes.reader={READERS[name]}"], registry=Registry())
    assert len(error.value.problems) == 1
    assert name in str(error.value)
    assert BROKEN[name][1] in str(error.value)


@pytest.mark.usefixtures("folder")
def test_a_clash_is_an_error_for_the_bare_name_only() -> None:
    registry = Registry()
    with pytest.raises(ComponentError, match=f"{CLASH}'bad-clash-one:twin' or 'bad-clash-two:twin'"):
        registry.find("readers", "twin")
    with pytest.raises(ConfigError, match="write 'bad-clash-one:twin' or"):
        plan_run("quickstart", ["input_attributes.reader=twin"], registry=registry)
    plan = plan_run("quickstart", ["input_attributes.reader=bad-clash-two:twin"], registry=registry)
    assert plan.inputs["reader"].full_name == "bad-clash-two:twin"


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.usefixtures("folder")
def test_a_broken_hook_plugin_is_an_error_where_it_is_required(name: str) -> None:
    with pytest.raises(AntmmfError) as error:
        plan_run("quickstart", [f"plugins.required=[{name}]"], registry=Registry())
    assert "plugins.required" in str(error.value)
    assert BROKEN[name][1] in str(error.value)


def test_a_required_plugin_that_is_absent_is_an_error() -> None:
    with pytest.raises(
        PluginError, match=r"plugins\.required: acme must be installed and offer hooks; pip install acme"
    ):
        load_plugins(Registry(), required=["acme"])


@pytest.mark.usefixtures("folder")
def test_a_required_plugin_that_is_disabled_is_an_error() -> None:
    with pytest.raises(PluginError, match="bad-hook-none must take part in this run, but is disabled"):
        load_plugins(Registry(disabled=["bad-hook-none"]), required=["bad-hook-none"])


@pytest.mark.parametrize("spelling", ["bad-dependency", "Bad_Dependency"])
@pytest.mark.usefixtures("folder")
def test_a_disabled_package_offers_nothing(spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Registry(disabled=[spelling]).find("readers", "needy") is None
    monkeypatch.setenv("ANTMMF_DISABLE_PLUGINS", f"other, {spelling}")
    assert Registry().find("readers", "needy") is None
    assert Registry().find("readers", "raising") is not None


@pytest.mark.usefixtures("folder")
def test_without_plugin_on_the_command_line(antmmf: Callable[..., Any]) -> None:
    done = antmmf("show", "needy", "--without-plugin", "bad-dependency")
    assert done.code == 2
    assert done.err.startswith("antmmf: nothing is called 'needy'")


@pytest.mark.usefixtures("folder")
def test_without_every_broken_package_doctor_is_content(antmmf: Callable[..., Any]) -> None:
    names = [*BROKEN, "bad-clash-one"]
    done = antmmf("doctor", *(part for name in names for part in ("--without-plugin", name)))
    assert done.code == 0, done.out


def test_a_module_that_prints_does_not_spoil_json(tmp_path: Path, antmmf: Callable[..., Any]) -> None:
    points = {"antmmf.readers": {"chatty": "chatty:Reader"}}
    fake_distribution(tmp_path, name="chatty", entry_points=points, modules={"chatty": f"print('hello')\n{READER}"})
    with on_path(tmp_path):
        done = antmmf("show", "chatty", "--json")
    assert json.loads(done.out)[0]["name"] == "chatty"
    assert done.err == "hello\n"


def test_what_an_interrupted_pip_leaves_behind_is_not_offered(tmp_path: Path) -> None:
    fake_distribution(tmp_path, name="left-over", entry_points={"antmmf.readers": {"left": "left:Reader"}})
    (tmp_path / "left_over-1.0.dist-info").rename(tmp_path / "~eft_over-1.0.dist-info")
    with on_path(tmp_path):
        assert Registry().find("readers", "left") is None


def test_the_first_version_on_the_path_counts(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    points = {"antmmf.readers": {"mine": "mine:Reader", "dropped": "mine:Reader"}}
    fake_distribution(old, name="mine", version="1.0", entry_points=points)
    fake_distribution(new, name="mine", version="2.0", entry_points={"antmmf.readers": {"mine": "mine:Reader"}})
    with on_path(old), on_path(new):
        found = Registry().find("readers", "mine")
        assert found is not None
        assert found.version == "2.0"
        assert Registry().find("readers", "dropped") is None


@pytest.mark.parametrize("name", FATAL)
def test_a_package_that_breaks_torch_itself_is_named(
    name: str, tmp_path: Path, antmmf_process: Callable[..., Any]
) -> None:
    write(tmp_path, name)
    listed = antmmf_process("list", "readers", folder=tmp_path)
    assert (listed.code, listed.err) == (0, "")
    done = antmmf_process("doctor", "--json", folder=tmp_path)
    assert done.code == 1, done.err
    broken = {entry["distribution"]: entry["reason"] for entry in json.loads(done.out)["broken"]}
    assert FATAL[name][1] in broken[name]
    assert "torch cannot be imported" in broken["torch"]
