"""The data set `folder`: videos and pictures of which nothing is said."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from antmmf.contracts import Record
from antmmf.errors import DataError

from antmmf_tasks.datasets.media import IMAGE_SUFFIXES, SUFFIXES, VIDEO_SUFFIXES, Kind


class Folder:
    """Every video and picture below ``data_root_dir``, without texts: what ``antmmf embed`` and ``predict`` look at.

    Told by their names; ``kind`` keeps to videos or to pictures. A key is the path inside the folder. Hidden files and
    folders are left out.
    """

    def __init__(self, *, data_root_dir: Path, kind: Kind = "any") -> None:
        self.root = Path(os.path.abspath(data_root_dir.expanduser()))
        self.suffixes = {"video": VIDEO_SUFFIXES, "image": IMAGE_SUFFIXES, "any": SUFFIXES}[kind]

    def sources(self) -> Sequence[Path]:
        """All folders, whose names of files count. Raises ``DataError`` where there is none."""
        if not self.root.is_dir():
            raise DataError(f"data_root_dir {self.root} is not a folder")
        return [Path(folder) for folder, _ in self._walked()]

    def records(self) -> Iterator[Record]:
        """A record for each file, in the order of folders and names."""
        for folder, names in self._walked():
            for name in names:
                if name.lower().endswith(self.suffixes):
                    path = os.path.join(folder, name)
                    yield Record(Path(path).relative_to(self.root).as_posix(), path)

    def _walked(self) -> Iterator[tuple[str, list[str]]]:
        for folder, folders, names in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield folder, sorted(name for name in names if not name.startswith("."))
