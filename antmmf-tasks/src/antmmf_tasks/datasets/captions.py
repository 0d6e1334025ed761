"""The data set `captions`: a folder of videos or images and one file that says what they show."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from antmmf.contracts import Json, Record
from antmmf.errors import DataError, did_you_mean

from antmmf_tasks.datasets.tables import TABLE_SUFFIXES, Row, find_column, read_table

Split = Literal["train", "val", "test"]

MEDIA_FOLDERS = ("", "videos", "images")
MEDIA_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".gif", ".jpg", ".jpeg", ".png", ".webp", ".bmp")
_USUAL = {
    "media": ("media", "video", "image", "file", "clip_name", "path", "video_id", "filename", "file_name"),
    "text": ("caption", "captions", "text", "sentence", "name"),
    "split": ("split",),
    "group": ("group",),
    "start": ("start",),
    "end": ("end",),
}
_SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_NUM_NAMED = 3
_LOG = logging.getLogger("antmmf")


class Captions:
    """Videos or images under ``data_root_dir`` with the captions that a jsonl, csv or tsv file there gives them.

    ``captions`` is that file, relative to the root (default: the one ``captions.*`` there is). Columns have usual
    names (``media``, ``video``, ...; ``caption``, ``text``, ...) or are named here. Rows with the same media, start
    and end are one record with several texts; in jsonl a row may have a list of them. Media are looked for in the
    root, ``videos`` and ``images``, with a usual suffix where the name has none. Without a split column, groups
    (``group_column``, else each media its own) are divided 80/10/10 by a hash, from three groups on with one at least
    in val and test; media in two splits are an error. ``missing="drop"`` leaves out rows whose media do not exist,
    with one warning. Nothing is decoded.
    """

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: Split,
        captions: str | None = None,
        media_column: str | None = None,
        text_column: str | None = None,
        split_column: str | None = None,
        group_column: str | None = None,
        start_column: str | None = None,
        end_column: str | None = None,
        missing: Literal["fail", "drop"] = "fail",
        language: str = "en",
    ) -> None:
        self.root = Path(os.path.abspath(Path(data_root_dir).expanduser()))
        self.captions, self.split = captions, split
        self.named = {
            "media": media_column,
            "text": text_column,
            "split": split_column,
            "group": group_column,
            "start": start_column,
            "end": end_column,
        }
        self.missing, self.language = missing, language

    def sources(self) -> Sequence[Path]:
        """The captions file, and the folders of the media, so that media that come or go are noticed.

        Raises ``DataError`` when the file, or the root, does not exist.
        """
        folders = (self.root / folder for folder in MEDIA_FOLDERS)
        return [self._file(), *(folder for folder in folders if folder.is_dir())]

    def records(self) -> Iterator[Record]:
        """One record for each (media, start, end) of the split, in the order of the file."""
        path = self._file()
        lines = self._lines(path)
        chosen = [line for line in lines if line.split == self.split]
        if not chosen:
            raise DataError(f"{path}: no row is of split {self.split!r}; rows there are: {_count_splits(lines)}")
        self._check_missing(path, chosen)
        merged: dict[tuple[Path, float | None, float | None], list[_Line]] = {}
        for line in chosen:
            if line.exists:
                merged.setdefault((line.media, line.start, line.end), []).append(line)
        for (media, start, end), same in merged.items():
            yield Record(
                key=_relative(media, self.root) + _span(start, end),
                media=str(media),
                start=start,
                end=end,
                texts=tuple(text for line in same for text in line.texts),
                language=self.language,
                extras={"group": same[0].group},
            )

    def split_table(self) -> list[tuple[str, str, str]]:
        """(media, group, split) of every media in the file, whatever its split, sorted."""
        lines = self._lines(self._file())
        return sorted({(_relative(line.media, self.root), line.group, line.split) for line in lines})

    def _file(self) -> Path:
        if not self.root.is_dir():
            raise DataError(f"data_root_dir {self.root} is not a folder")
        there = sorted(entry.name for entry in self.root.iterdir())
        if self.captions is not None:
            path = self.root / self.captions
            if not path.is_file():
                hint = did_you_mean(self.captions, there)
                raise DataError(f"captions file {path} does not exist{hint}; the folder holds {_shortened(there)}")
            return path
        usual = [f"captions{suffix}" for suffix in TABLE_SUFFIXES if f"captions{suffix}" in there]
        if len(usual) == 1:
            return self.root / usual[0]
        if usual:
            raise DataError(f"{self.root} holds {' and '.join(usual)}; say which with captions")
        raise DataError(
            f"{self.root} holds no captions.jsonl, captions.csv or captions.tsv; it holds {_shortened(there)}; "
            "name the file with captions"
        )

    def _lines(self, path: Path) -> list[_Line]:
        """Every row of the file, checked, with its split."""
        rows = read_table(path)
        if not rows:
            raise DataError(f"{path}: the file has no rows")
        columns = self._columns(path, rows)
        finder = _MediaFinder(self.root)
        lines = [_line(path, row, columns, finder) for row in rows]
        if columns["split"] is None:
            splits = _divide({line.group for line in lines})
            lines = [replace(line, split=splits[line.group]) for line in lines]
        _check_splits(path, lines)
        return lines

    def _columns(self, path: Path, rows: Sequence[Row]) -> dict[str, str | None]:
        columns = {
            part: find_column(path, rows, named=self.named[part], usual=usual, option=f"{part}_column")
            for part, usual in _USUAL.items()
        }
        for part in ("media", "text"):
            if columns[part] is None:
                there = ", ".join(dict.fromkeys(column for row in rows for column in row.values))
                usual = ", ".join(_USUAL[part])
                raise DataError(f"{path}: none of the columns {there} is called {usual}; name one with {part}_column")
        return columns

    def _check_missing(self, path: Path, lines: Sequence[_Line]) -> None:
        """Say once what is missing; ``DataError`` unless it is to be dropped and something is left."""
        absent: dict[str, int] = {}
        for line in lines:
            if not line.exists:
                absent.setdefault(_relative(line.media, self.root), line.number)
        if not absent:
            return
        num_media = len({line.media for line in lines})
        first = _shortened([f"{name} (line {number})" for name, number in absent.items()])
        summary = f"{path}: {len(absent)} of {num_media} media of split {self.split!r} do not exist: {first}"
        if self.missing == "fail":
            raise DataError(f"{summary}; they should lie in {self.root}; missing: drop leaves them out")
        if len(absent) == num_media:
            raise DataError(f"{summary}; nothing is left")
        _LOG.warning("%s; left out", summary)


@dataclass(frozen=True, slots=True)
class _Line:
    """One row, checked; ``media`` is where it is, or should be."""

    number: int
    media: Path
    exists: bool
    start: float | None
    end: float | None
    texts: tuple[str, ...]
    group: str
    split: Split


class _MediaFinder:
    """Finds media by name below a root; remembers what it found."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._known: dict[str, tuple[Path, bool]] = {}

    def find(self, name: str) -> tuple[Path, bool] | None:
        """Where the media is and whether it exists; None when the name leaves the root."""
        if name not in self._known:
            plain = os.path.normpath(os.path.join(self.root, name))
            if not plain.startswith(os.path.join(self.root, "")):
                return None
            has_suffix = name.lower().endswith(MEDIA_SUFFIXES)
            suffixes = ("",) if has_suffix else ("", *MEDIA_SUFFIXES)
            tried = (
                Path(os.path.normpath(os.path.join(self.root, folder, name + suffix)))
                for folder in MEDIA_FOLDERS
                for suffix in suffixes
            )
            found = next((path for path in tried if path.is_file()), None)
            self._known[name] = (Path(plain), False) if found is None else (found, True)
        return self._known[name]


def _line(path: Path, row: Row, columns: dict[str, str | None], finder: _MediaFinder) -> _Line:
    where = f"{path}:{row.line}"
    name = _text(where, row, columns["media"])
    place = finder.find(name)
    if place is None:
        raise DataError(f"{where}: {name!r} leads out of {finder.root}; media must lie below data_root_dir")
    media, exists = place
    start, end = (_seconds(where, row, columns[part]) for part in ("start", "end"))
    if end is not None and end <= (start or 0):
        raise DataError(f"{where}: end {end:g} must be after start {start or 0:g}")
    group = name if columns["group"] is None else _text(where, row, columns["group"])
    split = "train" if columns["split"] is None else _split(where, row, columns["split"])
    return _Line(row.line, media, exists, start, end, _texts(where, row, columns["text"]), group, split)


def _texts(where: str, row: Row, column: str | None) -> tuple[str, ...]:
    """One text, or in JSON a list of them."""
    assert column is not None
    value: Json = row.values.get(column)
    if isinstance(value, list) and value:
        return tuple(_checked_text(where, column, each) for each in value)
    return (_checked_text(where, column, value),)


def _text(where: str, row: Row, column: str | None) -> str:
    assert column is not None
    return _checked_text(where, column, row.values.get(column))


def _checked_text(where: str, column: str, value: Json) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {column} must be a text that is not empty, got {value!r}")
    return value.strip()


def _seconds(where: str, row: Row, column: str | None) -> float | None:
    value: Json = None if column is None else row.values.get(column)
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise DataError(f"{where}: {column} must be seconds, 0 or more, got {value!r}")
    return seconds


def _split(where: str, row: Row, column: str) -> Split:
    value = _text(where, row, column)
    split = _SPLIT_NAMES.get(value.lower())
    if split is None:
        hint = did_you_mean(value, _SPLIT_NAMES)
        raise DataError(f"{where}: {column} must be train, val or test, got {value!r}{hint}")
    return split


def _divide(groups: Set[str]) -> dict[str, Split]:
    """80/10/10 by each group's hash, so that a group keeps its split when others are added.

    From three groups on no split is empty: the smallest hashes fill test and val, the largest train.
    """
    shares = {group: _share(group) for group in sorted(groups, key=lambda group: (_share(group), group))}
    splits: dict[str, Split] = {
        group: "test" if share < 0.1 else "val" if share < 0.2 else "train" for group, share in shares.items()
    }
    ordered = list(splits)
    places: tuple[tuple[Split, int], ...] = (("train", -1), ("test", 0), ("val", 1))
    for split, place in places if len(ordered) >= 3 else ():
        if split not in splits.values():
            splits[ordered[place]] = split
    return splits


def _share(group: str) -> float:
    """The group's hash as a number from 0 to 1."""
    return int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest(), "big") / 2**64


def _check_splits(path: Path, lines: Sequence[_Line]) -> None:
    """``DataError`` when one file, under whatever name, is in two splits."""
    real = _contents({line.media for line in lines})
    first: dict[str, _Line] = {}
    for line in lines:
        before = first.setdefault(real[line.media], line)
        if before.split != line.split:
            raise DataError(
                f"{path}:{line.number}: {line.media.name} is in split {line.split!r}, but line {before.number} puts "
                f"the same file in {before.split!r}; give all rows of a file one split (or one group)"
            )


def _contents(media: Set[Path]) -> dict[Path, str]:
    """What each file holds, told by its size and, where several have one size, by a hash; else by its path."""
    sizes: dict[Path, int] = {path: path.stat().st_size for path in media if path.is_file()}
    counts = Counter(sizes.values())
    return {path: _hash(path) if sizes.get(path) and counts[sizes[path]] > 1 else str(path.resolve()) for path in media}


def _hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _count_splits(lines: Sequence[_Line]) -> str:
    counts = {split: sum(line.split == split for line in lines) for split in ("train", "val", "test")}
    return ", ".join(f"{split} {count}" for split, count in counts.items())


def _span(start: float | None, end: float | None) -> str:
    """What tells the segments of one file apart in a key; nothing for the whole file."""
    if start is None and end is None:
        return ""
    return f"#{start or 0:g}-" + ("" if end is None else f"{end:g}")


def _relative(media: Path, root: Path) -> str:
    return Path(os.path.relpath(media, root)).as_posix()


def _shortened(names: Sequence[str]) -> str:
    rest = len(names) - _NUM_NAMED
    return ", ".join(names[:_NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "") if names else "nothing"
