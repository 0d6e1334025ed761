"""Read what every installed distribution offers from its metadata, whatever state that metadata is in.

Nothing is imported, and no file of one distribution can keep another one from being found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import importlib_metadata as metadata

_FOLDER = re.compile(r"(.+?)(-v?\d.*)?\.(dist|egg)-info$")


class _Distribution(Protocol):
    """What we need of a distribution; importlib_metadata's own names for it differ between versions."""

    def read_text(self, filename: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry point: ``group`` (``antmmf.readers``), ``name`` and ``value`` (``module:attribute``)."""

    group: str
    name: str
    value: str


@dataclass(slots=True)
class Offer:
    """A distribution with entry points in ``antmmf.*``; ``problems`` are what is wrong with its metadata."""

    distribution: str
    version: str
    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def normalized(distribution: str) -> str:
    """A distribution's name as packaging compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def offers() -> Iterator[Offer]:
    """Every distribution that offers something to us, in the order of ``sys.path``.

    Of two versions of one distribution only the first counts, as for ``import``.
    """
    seen: set[str] = set()
    for distribution in metadata.distributions():
        folder = _folder(distribution)
        if folder.startswith("~") or normalized(folder) in seen:  # what an interrupted pip leaves; a shadowed version
            continue
        if folder:
            seen.add(normalized(folder))
        text, problem = _read(distribution, "entry_points.txt")
        if not problem and "[antmmf." not in text:
            continue
        name, version, no_name = _header(distribution, folder)
        if normalized(name) in seen - {normalized(folder)}:
            continue
        seen.add(normalized(name))
        offer = Offer(name, version, problems=[reason for reason in (no_name, problem) if reason])
        _parse(text, offer)
        yield offer


def versions() -> dict[str, str]:
    """Name -> version of everything that is installed."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name, version, _ = _header(distribution, _folder(distribution))
        found.setdefault(name, version)
    return found


def _header(distribution: _Distribution, folder: str) -> tuple[str, str, str]:
    """(name, version, problem); a header without a name is a problem, and the folder's name stands in."""
    text, problem = _read(distribution, "METADATA")
    if not text and not problem:
        text, problem = _read(distribution, "PKG-INFO")
    header = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    found = {key: re.search(rf"^{key}:[ \t]*(\S+)", header, re.MULTILINE) for key in ("Name", "Version")}
    name = found["Name"][1] if found["Name"] else normalized(folder) or "a-nameless-package"
    version = found["Version"][1] if found["Version"] else "without a version"
    lacking = [key for key, match in found.items() if match is None]
    if lacking and not problem:
        problem = f"its METADATA has no {' and no '.join(lacking)}"
    return name, version, problem


def _folder(distribution: _Distribution) -> str:
    """The name in ``NAME-1.0.dist-info``: known without reading a file; empty where there is no such folder."""
    path = getattr(distribution, "_path", None)  # has no public name
    match = _FOLDER.match(Path(str(path)).name) if path is not None else None
    return match[1] if match else ""


def _read(distribution: _Distribution, name: str) -> tuple[str, str]:
    """(text, problem) of a metadata file; both empty where it is absent."""
    try:
        return distribution.read_text(name) or "", ""
    except Exception as error:
        return "", f"its {name} cannot be read: {type(error).__name__}: {error}"


def _parse(text: str, offer: Offer) -> None:
    """Add the ``antmmf.*`` entries of an entry_points.txt to ``offer``, and what is wrong with them."""
    group, known = "", set()
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            group = line.strip("[]").strip()
            continue
        if not group.startswith("antmmf.") or not line or line.startswith(("#", ";")):
            continue
        name, _, value = (part.strip() for part in line.partition("="))
        if not name or not value:
            offer.problems.append(f"in [{group}] of its entry_points.txt, {line!r} is not name = module:attribute")
        elif (group, name) in known:
            offer.problems.append(f"in [{group}] of its entry_points.txt, {name!r} stands twice")
        else:
            known.add((group, name))
            offer.entries.append(Entry(group, name, value))
