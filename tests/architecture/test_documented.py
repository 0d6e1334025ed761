"""Nothing is offered without a test or a document: hooks, components, config keys, commands."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import pytest
from antmmf import torchvision_shim
from antmmf.cli.main import COMMANDS
from antmmf.config.schema import BLOCKS, Block, RunConfig, Section, known_keys
from antmmf.recipes import recipe_files
from antmmf.registry import Registry
from tree import ROOT, entry_points, hooks

DOCS = ROOT / "docs"


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("hook", hooks())
def test_every_hook_is_documented_with_its_arguments(hook: str) -> None:
    assert f"### {hook}({', '.join(hooks()[hook])})\n" in read("plugins.md")


@pytest.mark.parametrize("hook", hooks())
def test_every_hook_is_tested(hook: str) -> None:
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if path.parent.name not in ("architecture", "docs")]
    assert any(re.search(rf"\b{hook}\b", path.read_text(encoding="utf-8")) for path in files)


def test_the_plugin_document_names_no_hook_that_does_not_exist() -> None:
    assert set(re.findall(r"\bantmmf_[a-z_]+(?=\()", read("plugins.md"))) == set(hooks())


@pytest.mark.parametrize(("distribution", "kind", "name", "value"), list(entry_points()))
def test_every_component_is_documented(distribution: str, kind: str, name: str, value: str) -> None:
    section = read("components.md").partition(f"\n## {kind}\n")[2].partition("\n## ")[0]
    assert f"| `{name}` | {distribution} |" in section
    module, _, attribute = value.partition(":")
    torchvision_shim.apply()
    loaded: Any = import_module(module)
    for part in filter(None, attribute.split(".")):
        loaded = getattr(loaded, part)
    assert (getattr(loaded, "help", None) or vars(loaded).get("__doc__") or "").strip(), f"{value} has no docstring"


def test_the_component_document_names_none_that_does_not_exist() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (antmmf-\w+) \|", read("components.md"), flags=re.MULTILINE)
    assert {(dist, name) for name, dist in rows} == {(dist, name) for dist, _, name, _ in entry_points()}


def test_every_recipe_is_documented() -> None:
    section = read("components.md").partition("\n## recipes\n")[2].partition("\n## ")[0]
    for name in recipe_files(Registry()):
        assert f"- `{name}`: " in section, name


@pytest.mark.parametrize("key", list(known_keys()))
def test_every_config_key_is_documented_with_its_default(key: str) -> None:
    rows = dict(re.findall(r"^\| `([^`]+)` \| ([^|]*) \|", read("config.md"), flags=re.MULTILINE))
    assert rows.get(key) == default_of(key)


def test_the_config_document_names_no_key_that_does_not_exist() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", read("config.md"), flags=re.MULTILINE)
    assert set(rows) == set(known_keys())


@pytest.mark.parametrize("key", BLOCKS)
def test_every_block_names_a_kind_that_is_documented(key: str) -> None:
    assert f"\n## {BLOCKS[key]}\n" in read("components.md")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    assert f"`antmmf {command}" in read("tour.md") + read("quickstart.md") + read("config.md") + read("plugins.md")


def default_of(key: str) -> str:
    """What the document's second column must say: the default as YAML, ``required``, or nothing for a section."""
    model: Any = RunConfig
    *parents, last = key.split(".")
    for part in parents:
        model = model.model_fields[part].annotation
    field = model.model_fields[last]
    if field.is_required():
        return "required"
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section) and field.annotation is not Block:
        return "section"
    return _yaml(field.get_default(call_default_factory=True))


def _yaml(value: Any) -> str:
    if isinstance(value, Block):
        return f"`{value.type}`"
    if isinstance(value, list):
        return ", ".join(_yaml(item) for item in value) or "none"
    if value is None:
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
