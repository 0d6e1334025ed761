"""Documents that cannot go stale quietly: links resolve, and both READMEs say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPPED = {".nox", ".git", ".venv", "save", "node_modules"}
DOCUMENTS = sorted(path for path in ROOT.rglob("*.md") if not SKIPPED & set(path.relative_to(ROOT).parts[:-1]))
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
README, README_CN = ROOT / "README.md", ROOT / "README-CN.md"


def links(path: Path) -> list[str]:
    """Targets of all links, without code blocks."""
    return [first or second for first, second in LINK.findall(BLOCK.sub("", path.read_text(encoding="utf-8")))]


def anchors(path: Path) -> set[str]:
    """The anchors that headings make."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", path.read_text(encoding="utf-8")), flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.strip().lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_inside_the_project_resolve(document: Path) -> None:
    for link in links(document):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: there is no such heading"


def test_both_readmes_have_the_same_commands() -> None:
    assert BLOCK.findall(README.read_text(encoding="utf-8")) == BLOCK.findall(README_CN.read_text(encoding="utf-8"))


def test_both_readmes_have_the_same_shape_and_links() -> None:
    english, chinese = (path.read_text(encoding="utf-8") for path in (README, README_CN))
    for pattern in (r"^#+ ", r"^\|", r"^- "):
        assert len(re.findall(pattern, english, re.MULTILINE)) == len(re.findall(pattern, chinese, re.MULTILINE))
    assert sorted(set(links(README)) - {"README-CN.md"}) == sorted(set(links(README_CN)) - {"README.md"})
    assert sorted(set(re.findall(r"`[^`\n]+`", BLOCK.sub("", english)))) == sorted(
        set(re.findall(r"`[^`\n]+`", BLOCK.sub("", chinese)))
    )


def test_the_first_commands_of_the_readme_are_the_two_that_matter() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()[:40]
    commands = [line.partition("#")[0].strip() for line in lines if "python3 -m pip install nox" in line]
    assert commands == [
        "python3 -m pip install nox && nox -s quickstart",
        "python3 -m pip install nox && nox -s tests",
    ]
    assert commands[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_session_that_a_document_names_exists() -> None:
    sessions = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        named = {name for name in re.findall(r"nox -s (\w+)", text) if name != "NAME"}
        assert named <= sessions, f"{document.relative_to(ROOT)} names {named - sessions}"


@pytest.mark.parametrize("document", sorted((ROOT / "docs" / "adr").glob("0*.md")), ids=lambda path: path.name)
def test_a_decision_says_context_decision_and_consequences_in_forty_lines(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert len(text.splitlines()) <= 40
