"""Where people keep their media: flat or nested folders, folders of frames, LMDBs of encoded files, tars."""

from __future__ import annotations

import os
import tarfile
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from antmmf.data.sources import member
from antmmf.errors import DataError, PluginError

_USUAL_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".3gp", ".flv", ".gif", ".mpg", ".mpeg", ".wmv")
_RARE_SUFFIXES = (".ts", ".m2ts", ".mts", ".m2v", ".vob", ".ogv", ".asf", ".f4v", ".3g2")
VIDEO_SUFFIXES = _USUAL_SUFFIXES + _RARE_SUFFIXES
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif")
SUFFIXES = VIDEO_SUFFIXES + IMAGE_SUFFIXES

Kind = Literal["video", "image", "any"]

_MANY = 100  # folders beside one another that are then taken to be alike


class MediaFinder:
    """Finds media below ``root`` by name: by their path, else by their name without folder and ending.

    Videos may be files, folders of frames, values of an LMDB (``*.lmdb``) whose keys are names without an ending, or
    members of tars. The folder is read once, when a name is not where its path says. Of several files with one name
    the first in the order of their paths counts. Nothing outside of ``root`` is ever found.
    """

    def __init__(self, root: Path, *, kind: Kind = "any") -> None:
        self.root = Path(os.path.abspath(root.expanduser()))
        self._top = os.path.join(self.root, "")
        self._kind = kind
        self.suffixes = {"video": VIDEO_SUFFIXES, "image": IMAGE_SUFFIXES, "any": SUFFIXES}[kind]
        self._there: dict[str, set[str]] = {}

    def inside(self, name: str) -> bool:
        """Whether ``name``, taken as a path, does not lead out of the root; links that are in it do not."""
        return os.path.normpath(os.path.join(self._top, name)).startswith(self._top) and "\0" not in name

    def ends_otherwise(self, name: str) -> bool:
        """Whether a file lies at the path ``name``; of one that is not found it is the ending that is at fault."""
        folder, _, last = name.rpartition("/")
        return self.inside(name) and last in self._names_in(folder) and os.path.isfile(self._top + name)

    def find(self, name: str) -> str | None:
        """What a record's ``media`` must be for ``name``; None where there is nothing."""
        if ".." in name or "//" in name or "./" in name or name[:1] == "/":  # ``..`` behind a link would lead out of it
            name = os.path.normpath(os.path.join(self._top, name)).removeprefix(self._top)
        folder, _, last = name.rpartition("/")
        there = self._names_in(folder)
        if last in there and (last.lower().endswith(self.suffixes) or self._is_frames(name)):
            return f"{self._top}{name}"
        stem = last
        for suffix in self.suffixes:
            if last.lower().endswith(suffix):
                stem = last[: -len(suffix)]
                break
        for other in (stem, last):
            for suffix in self.suffixes:
                if other + suffix in there:
                    return f"{self._top}{folder}/{other}{suffix}" if folder else f"{self._top}{other}{suffix}"
        return self._elsewhere.get(stem) or self._elsewhere.get(last) or self._in_lmdb(stem)

    def _is_frames(self, name: str) -> bool:
        folder = self._top + name
        return self._kind != "image" and os.path.isdir(folder) and _holds_pictures(folder)

    def _names_in(self, folder: str) -> set[str]:
        if folder not in self._there:
            try:
                path = os.path.join(self._top, folder)
                self._there[folder] = set(os.listdir(path)) if self.inside(folder or ".") or not folder else set()
            except (OSError, ValueError):
                self._there[folder] = set()
        return self._there[folder]

    @cached_property
    def _walked(self) -> tuple[dict[str, str], list[Path]]:
        """Name without ending -> media, and the LMDBs, of all that lies below the root."""
        found: dict[str, str] = {}
        databases: list[Path] = []
        seen: set[tuple[int, int]] = set()  # a link may lead back
        if self.root == self.root.parent:  # names are whole paths; nobody wants all of the machine searched
            return found, databases
        for folder, folders, files in os.walk(self._top, followlinks=True):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            databases += [Path(folder, name) for name in (*folders, *files) if name.endswith(".lmdb")]
            folders[:] = sorted(name for name in folders if not name.endswith(".lmdb") and not name.startswith("."))
            if len(folders) > _MANY and self._kind == "video" and _holds_pictures(os.path.join(folder, folders[0])):
                found |= {name: os.path.join(folder, name) for name in folders if name not in found}
                folders.clear()  # millions of folders of frames: looking into each would take hours
            pictures = 0
            for name in sorted(files):
                stem, suffix = os.path.splitext(name)
                suffix = suffix.lower()
                if suffix in self.suffixes:
                    found.setdefault(stem, os.path.join(folder, name))
                elif suffix == ".tar":
                    self._add_members(Path(folder, name), found)
                pictures += suffix in IMAGE_SUFFIXES
            if self._kind == "video" and pictures:
                found.setdefault(os.path.basename(folder), folder)
        return found, databases

    def _add_members(self, tar: Path, found: dict[str, str]) -> None:
        try:
            with tarfile.open(tar, "r:") as archive:  # parts of a compressed one could not be read in place
                for info in archive:
                    stem, suffix = os.path.splitext(os.path.basename(info.name))
                    if info.isreg() and suffix.lower() in self.suffixes:
                        found.setdefault(
                            stem, member(str(tar), name=info.name, offset=info.offset_data, size=info.size)
                        )
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"{tar}: cannot be read as a tar ({error})") from error

    @property
    def _elsewhere(self) -> dict[str, str]:
        return self._walked[0]

    @cached_property
    def _databases(self) -> list[tuple[Path, Any]]:
        if not self._walked[1]:
            return []
        try:
            import lmdb  # type: ignore[import-untyped, import-not-found, unused-ignore]
        except ImportError as error:
            raise PluginError(
                f"{self._walked[1][0]}: to read it, pip install 'antmmf-vision[lmdb]' ({error})"
            ) from error
        found = []
        for path in self._walked[1]:
            try:
                found.append((path, lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False)))
            except lmdb.Error as error:
                raise DataError(f"{path}: cannot be read as an LMDB ({error})", reason="damaged") from error
        return found

    def _in_lmdb(self, stem: str) -> str | None:
        key = stem.encode("utf-8", "surrogatepass")
        for path, database in self._databases if key else ():
            with database.begin() as transaction:
                if transaction.get(key) is not None:
                    return f"{path}/{stem}"
        return None


def _holds_pictures(folder: str) -> bool:
    """Whether a folder holds pictures and, but for hidden files, nothing else."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    return bool(names) and all(name.lower().endswith(IMAGE_SUFFIXES) for name in names)
