"""A data set made of nothing but a folder of well-named videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal

from antmmf import DataError, Record

SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov")
SPLITS = ("train",) * 8 + ("val", "test")


class FileNames:
    """Videos below ``data_root_dir`` with their file names as captions; a hash of the name chooses the split, 8:1:1."""

    def __init__(self, *, data_root_dir: Path, split: Literal["train", "val", "test"]) -> None:
        self._root, self._split = data_root_dir, split

    def sources(self) -> Sequence[Path]:
        """The videos themselves."""
        found = sorted(path for path in self._root.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not found:
            raise DataError(f"{self._root}: must be a folder with videos ({' '.join(SUFFIXES)}), has none")
        return found

    def records(self) -> Iterator[Record]:
        """One record a video of the split."""
        for path in self.sources():
            if SPLITS[sha256(path.stem.encode()).digest()[0] % 10] == self._split:
                caption = path.stem.replace("_", " ")
                yield Record(key=path.relative_to(self._root).as_posix(), media=str(path), texts=(caption,))
