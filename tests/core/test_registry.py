"""Names are found without an import, and a name that is missing says where to get it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from antmmf.errors import ComponentError, ConfigError, PluginError
from antmmf.known import KNOWN
from antmmf.recipes import find_config, recipe_files
from antmmf.registry import KINDS, Registry, singular
from antmmf.scan import normalized, offers, versions
from antmmf.testing import fake_distribution, on_path

ROOT = Path(__file__).parents[2]


def test_a_bare_name_and_a_full_name_find_the_same() -> None:
    registry = Registry()
    found = registry.find("tasks", "retrieval")
    assert found is not None
    assert found == registry.find("tasks", "antmmf-tasks:retrieval") == registry.find("tasks", "ANTMMF_tasks:retrieval")
    assert found.full_name == "antmmf-tasks:retrieval"


def test_finding_imports_nothing(tmp_path: Path) -> None:
    points = {"antmmf.readers": {"loud": "loud:Reader"}}
    with on_path(fake_distribution(tmp_path, name="loud", entry_points=points, modules={"loud": "raise OSError"})):
        component = Registry().find("readers", "loud")
        assert component is not None
        assert str(component) == "loud 1.0: reader 'loud' (loud:Reader)"
        with pytest.raises(PluginError, match=r"loud 1\.0: reader 'loud' \(loud:Reader\) cannot be loaded: OSError"):
            component.load()


def test_components_come_sorted_by_name_and_distribution(tmp_path: Path) -> None:
    for name in ("b-two", "a-one"):
        fake_distribution(tmp_path, name=name, entry_points={"antmmf.schedules": {"zz": "z:z", "Aa": "z:z"}})
    with on_path(tmp_path):
        names = [component.full_name for component in Registry().components("schedules")]
    assert names[:2] == ["a-one:Aa", "b-two:Aa"]
    assert names[-2:] == ["a-one:zz", "b-two:zz"]


@pytest.mark.parametrize("kind", KINDS)
def test_singular_names_one_of_a_kind(kind: str) -> None:
    assert singular(kind).replace(" ", "_") in (kind[:-1], kind[:-2])


# --- a name that nobody offers ----------------------------------------------------------------------------------------


def test_a_misspelt_name_is_corrected() -> None:
    assert Registry().missing("tasks", "retreival") == ("no task is called 'retreival' (did you mean 'retrieval'?)")


def test_a_strange_name_gets_the_list() -> None:
    assert "; there are: " in Registry().missing("readers", "xxxxxxxx")


def test_a_name_of_a_package_of_ours_says_how_to_install_it() -> None:
    registry = Registry(disabled=["antmmf-tasks"])
    registry.disabled = frozenset()  # as if it were not installed
    told = "no task is called 'retrieval' here; antmmf-tasks offers it: pip install antmmf-tasks"
    assert registry.missing("tasks", "retrieval") == told


def test_a_name_of_a_disabled_package_says_so() -> None:
    told = "no task is called 'retrieval' here: its package antmmf-tasks is disabled"
    assert Registry(disabled=["antmmf_tasks"]).missing("tasks", "retrieval") == told


def test_a_full_name_of_an_absent_package_names_the_package() -> None:
    told = "no reader is called 'acme:fast'; its package acme is not installed: pip install acme"
    assert Registry().missing("readers", "acme:fast") == told


def test_known_lists_what_our_packages_offer() -> None:
    """So that an environment without them can name them; renew antmmf/known.py from the message."""
    offered: dict[str, dict[str, tuple[str, ...]]] = {name: {} for name in KNOWN}
    for name, kinds in offered.items():
        group = ""
        for line in (ROOT / name / "pyproject.toml").read_text(encoding="utf-8").splitlines():
            if line.startswith("["):
                found = re.fullmatch(r'\[project\.entry-points\."antmmf\.(\w+)"\]', line)
                group = found[1] if found else ""
            elif group and group != "recipes" and "=" in line:
                entry = line.partition("=")[0].strip().strip('"')
                kinds[group] = tuple(sorted((*kinds.get(group, ()), entry)))
    assert {
        name: {kind: tuple(sorted(names.split())) for kind, names in kinds.items()} for name, kinds in KNOWN.items()
    } == offered


# --- clashes ----------------------------------------------------------------------------------------------------------


def test_a_clash_counts_only_for_the_bare_name(tmp_path: Path) -> None:
    fake_distribution(tmp_path, name="acme", entry_points={"antmmf.tasks": {"retrieval": "acme:Task"}})
    with on_path(tmp_path):
        registry = Registry()
        with pytest.raises(ComponentError) as error:
            registry.find("tasks", "retrieval")
        found = registry.find("tasks", "antmmf-tasks:retrieval")
    assert str(error.value) == (
        "task 'retrieval' is offered by 2 packages; write 'acme:retrieval' or 'antmmf-tasks:retrieval'"
    )
    assert found is not None
    assert found.value == "antmmf_tasks.tasks.retrieval:Retrieval"
    assert [[component.distribution for component in offers] for offers in registry.clashes()] == [
        ["acme", "antmmf-tasks"]
    ]


def test_a_recipe_that_two_packages_offer_must_be_written_in_full(tmp_path: Path) -> None:
    points = {"antmmf.recipes": {"acme": "acme_recipes"}}
    fake_distribution(tmp_path, name="acme", entry_points=points, modules={"acme_recipes.a": "raise OSError"})
    for name in ("quickstart.yml", "more/own.yml", "_part.yml"):
        (tmp_path / "acme_recipes" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "acme_recipes" / name).write_text("task_attributes: retrieval\n")
    with on_path(tmp_path):
        registry = Registry()
        assert {"acme:quickstart", "antmmf-tasks:quickstart", "more/own"} <= set(recipe_files(registry))
        with pytest.raises(
            ConfigError, match="offered by 2 packages; write acme:quickstart or antmmf-tasks:quickstart"
        ):
            find_config("quickstart", registry)
        assert find_config("acme:quickstart", registry) == ("quickstart", tmp_path / "acme_recipes" / "quickstart.yml")
        for name in ("more/own", "acme:more/own"):
            assert find_config(name, registry) == ("more/own", tmp_path / "acme_recipes" / "more" / "own.yml")


# --- metadata ---------------------------------------------------------------------------------------------------------


def test_entry_points_are_read_with_comments_extras_and_other_groups(tmp_path: Path) -> None:
    fake_distribution(tmp_path, name="acme", version="2.5")
    text = "# ours\n[console_scripts]\nx = y:z\n[antmmf.readers]\n; note\n  a  =  m:A  \nb=m:B [fast]\n\n"
    text += "[ antmmf.tasks ]\nt = m:T\n"
    (tmp_path / "acme-2.5.dist-info" / "entry_points.txt").write_text(text)
    with on_path(tmp_path):
        (offer,) = (offer for offer in offers() if offer.distribution == "acme")
    assert offer.version == "2.5"
    assert offer.problems == []
    assert [(entry.group, entry.name, entry.value) for entry in offer.entries] == [
        ("antmmf.readers", "a", "m:A"),
        ("antmmf.readers", "b", "m:B [fast]"),
        ("antmmf.tasks", "t", "m:T"),
    ]


def test_a_distribution_without_entry_points_is_passed_over(tmp_path: Path) -> None:
    fake_distribution(tmp_path, name="acme")
    with on_path(tmp_path):
        assert "acme" not in {offer.distribution for offer in offers()}
        assert versions()["acme"] == "1.0"


def test_a_path_that_stands_twice_is_read_once(tmp_path: Path) -> None:
    fake_distribution(tmp_path, name="acme", entry_points={"antmmf.readers": {"a": "m:A"}})
    with on_path(tmp_path), on_path(tmp_path):
        registry = Registry()
    assert registry.clashes() == []
    assert registry.problems == []


@pytest.mark.parametrize(
    ("spelling", "name"), [("Antmmf_Core", "antmmf-core"), ("a.b--c", "a-b-c"), ("plain", "plain")]
)
def test_names_are_compared_as_packaging_does(spelling: str, name: str) -> None:
    assert normalized(spelling) == name
