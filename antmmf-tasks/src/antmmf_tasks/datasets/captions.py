"""The data set `captions`: a folder of videos or images and one file that says what they show."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import islice
from pathlib import Path

from antmmf.contracts import Json, Record
from antmmf.errors import DataError, did_you_mean

from antmmf_tasks.datasets.files import TABLE_SUFFIXES, rows
from antmmf_tasks.datasets.release import FOREVER, Missing, Release, Split, is_plain, is_unicode, span_of

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
_LOOKED_AT = 100  # rows, for the names of columns
_COMPARED = 10_000  # media of which copies in another split are looked for
_NUM_SHOWN = 3

_Span = tuple[float | None, float | None]


class Captions(Release):
    """Videos or images under ``data_root_dir`` with the captions that a jsonl, csv, tsv or parquet file there gives.

    ``captions`` is that file, relative to the root (default: the one ``captions.*`` there is). Columns have usual
    names (``media``, ``video``, ...; ``caption``, ``text``, ...) or are named here. Rows with the same media, start
    and end are one record with several texts; in jsonl a row may have a list of them. Media are found by name anywhere
    in the root, or in ``media_dir``. Without a split column, groups (``group_column``, else each media its own) are
    divided 80/10/10 by a hash, from three groups on with one at least in val and test; media in two splits are an
    error. ``missing="drop"`` leaves out rows whose media do not exist, with one warning. Nothing is decoded.
    """

    home = "you"
    terms = "yours"
    kind = "any"
    has_folder = False

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
        media_dir: Path | None = None,
        missing: Missing = "fail",
        language: str = "en",
    ) -> None:
        super().__init__(data_root_dir=data_root_dir, split=split, media_dir=media_dir, missing=missing)
        self.captions, self.language = captions, language
        self.named = {
            "media": media_column,
            "text": text_column,
            "split": split_column,
            "group": group_column,
            "start": start_column,
            "end": end_column,
        }

    def files(self) -> Sequence[Path]:
        """The captions file. Raises ``DataError`` when it, or the root, does not exist."""
        if not self.root.is_dir():
            raise DataError(f"data_root_dir {self.root} is not a folder")
        there = sorted(entry.name for entry in self.root.iterdir())
        shown = ", ".join(there[:_NUM_SHOWN]) + (
            f" and {len(there) - _NUM_SHOWN} more" if len(there) > _NUM_SHOWN else ""
        )
        if self.captions is not None:
            path = self.root / self.captions
            if not path.is_file():
                hint = did_you_mean(self.captions, there)
                raise DataError(f"captions file {path} does not exist{hint}; the folder holds {shown or 'nothing'}")
            return [path]
        usual = [f"captions{suffix}" for suffix in TABLE_SUFFIXES if f"captions{suffix}" in there]
        if len(usual) == 1:
            return [self.root / usual[0]]
        if usual:
            raise DataError(f"{self.root} holds {' and '.join(usual)}; say which with captions")
        raise DataError(
            f"{self.root} holds no captions.jsonl, .csv, .tsv or .parquet; it holds "
            f"{shown or 'nothing'}; name the file with captions"
        )

    def items(self) -> Iterator[Record]:
        """One record for each (media, start, end) of the split, as soon as the file's last row of these media is read:
        in memory are those whose rows stand apart."""
        path = self.files()[0]
        columns = self._columns(path)
        left = self._rows_of_media(path, columns)
        of_media, of_text, of_start, of_end = (columns[part] for part in ("media", "text", "start", "end"))
        of_group = columns["group"]
        begun: dict[str, dict[_Span, Sequence[str]]] = {}
        top = len(os.path.join(self.media_dir, ""))
        media, before = "", None
        for place, row in rows(path):
            name = row.get(of_media or "")
            if name != before or type(name) is not str:  # segments of a video mostly stand together; 1 is 1.0
                before = name
                media = self._found.get(_text(place, row, of_media)) or ""
                spans = begun.setdefault(media, {}) if media in left else {}
            if media not in left:
                continue
            start, end = _seconds(place, row, of_start), _seconds(place, row, of_end)
            if end is not None and end <= (start or 0):
                raise DataError(f"{place}: end {end:g} must be after start {start or 0:g}")
            start = start or 0.0 if end is not None else start
            texts = self.texts_of(_texts(place, row, of_text), place)
            earlier = spans.get((start, end))
            spans[start, end] = texts if earlier is None else [*earlier, *texts]
            left[media] -= 1
            if left[media]:
                continue
            extras = {} if of_group is None else {"group": _text(place, row, of_group)}
            for (start, end), found in begun.pop(media).items():
                if found:
                    key = media[top:] + span_of(start, end)
                    yield Record(key, media, start, end, tuple(found), language=self.language, extras=extras)

    def _rows_of_media(self, path: Path, columns: Mapping[str, str | None]) -> dict[str, int]:
        """Media of the split, which rows may call by several names -> how many rows they have. Raises ``DataError``."""
        homes, others, counts = self._homes(path, columns)
        if not columns["split"]:
            divided = _divide({home for home, _ in homes.values()} | {home for _, home in others})
            homes = {name: (divided[home], place) for name, (home, place) in homes.items()}
            others = {(name, divided[home]): place for (name, home), place in others.items()}
        for (name, split), place in others.items():
            if homes[name][0] != split:
                raise _in_two_splits(name, split, place, homes[name])
        self._check(path, homes)
        left: Counter[str] = Counter()
        for name, count in counts.items():
            split, place = homes[name]
            media = self.media_of(name, place) if split == self.split else None
            if media is not None:
                left[media] += count
        return dict(left)

    def split_table(self) -> list[tuple[str, str, str]]:
        """(media, group, split) of every media in the file, sorted; nothing where the file itself has the splits."""
        path = self.files()[0]
        columns = self._columns(path)
        if columns["split"]:
            return []
        homes, others, _ = self._homes(path, columns)
        found = {(name, home) for name, (home, _) in homes.items()} | set(others)
        divided = _divide({home for _, home in found})
        return sorted((name, home, divided[home]) for name, home in found)

    def _homes(
        self, path: Path, columns: Mapping[str, str | None]
    ) -> tuple[dict[str, tuple[str, str]], dict[tuple[str, str], str], Counter[str]]:
        """Name of media -> split, or without such a column group, and place of its first row; (name, split or group) ->
        place of the first row that says so where an earlier one says otherwise; name -> number of rows."""
        of_media, of_split, of_group = columns["media"], columns["split"], columns["group"]
        homes: dict[str, tuple[str, str]] = {}
        others: dict[tuple[str, str], str] = {}
        counts: Counter[str] = Counter()
        name, before = "", None
        for place, row in rows(path):
            told = row.get(of_media or ""), row.get(of_split or ""), row.get(of_group or "")
            if told == before and type(told[0]) is str:  # as nearly always: segments of a video stand together
                counts[name] += 1
                continue
            before = told
            name = _text(place, row, of_media)
            counts[name] += 1
            home = _split(place, row, of_split) if of_split else _text(place, row, of_group) if of_group else name
            if homes.setdefault(name, (home, place))[0] != home:
                others.setdefault((name, home), place)
        return homes, others, counts

    def _columns(self, path: Path) -> dict[str, str | None]:
        """Part -> the column that has it."""
        first = list(islice(rows(path), _LOOKED_AT))
        if not first:
            raise DataError(f"{path}: the file has no rows")
        there = list(dict.fromkeys(column for _, row in first for column in row))
        columns: dict[str, str | None] = {}
        for part, usual in _USUAL.items():
            named = self.named[part]
            if named is not None and named not in there:
                hint = did_you_mean(named, there)
                raise DataError(f"{path}: {part}_column is {named!r}, but the columns are {', '.join(there)}{hint}")
            columns[part] = named or next((column for column in usual if column in there), None)
            if columns[part] is None and part in ("media", "text"):
                raise DataError(
                    f"{path}: none of the columns {', '.join(there)} is called {', '.join(usual)}; "
                    f"name one with {part}_column"
                )
        return columns

    def _check(self, file: Path, homes: Mapping[str, tuple[str, str]]) -> None:
        """``DataError`` when the split is empty, or one file, under whatever name, is in two splits."""
        counts = Counter(split for split, _ in homes.values())
        if self.split not in counts:
            there = ", ".join(f"{split} {counts[split]}" for split in ("train", "val", "test"))
            raise DataError(f"{file}: no row is of split {self.split!r}; media there are: {there}")
        if len(homes) > _COMPARED:
            return
        found = {name: self._finder.find(name) for name in homes if self._finder.inside(name)}
        media = {name: path for name, path in found.items() if path is not None}
        same = _contents({Path(path) for path in media.values()})
        first: dict[str, tuple[str, str]] = {}
        for name, path in media.items():
            before = first.setdefault(same[Path(path)], homes[name])
            if before[0] != homes[name][0]:
                raise _in_two_splits(name, *homes[name], before)


def _in_two_splits(name: str, split: str, place: str, before: tuple[str, str]) -> DataError:
    return DataError(
        f"{place}: {name} is in split {split!r}, but line {before[1].rpartition(':')[2]} puts the same file in "
        f"{before[0]!r}; give all rows of a file one split (or one group)"
    )


def _texts(place: str, row: Mapping[str, Json], column: str | None) -> Sequence[Json]:
    """One text, or a list of them."""
    value: Json = row.get(column or "")
    if type(value) is str:  # as nearly always
        return (value,)
    texts = value if type(value) is list else [value]
    return [text if type(text) is str or text is None else _checked(place, text, column) for text in texts]


def _text(place: str, row: Mapping[str, Json], column: str | None) -> str:
    value: Json = row.get(column or "")
    text = value.strip() if type(value) is str else _checked(place, value, column)
    if not text or not (text.isascii() or is_unicode(text)):
        raise DataError(f"{place}: {column} must be a text that is not empty, got {value!r}")
    return text


def _checked(place: str, value: Json, column: str | None) -> str:
    """A text, or a number as one."""
    if not is_plain(value):
        raise DataError(f"{place}: {column} must be a text that is not empty, got {value!r}")
    return str(value)


def _seconds(place: str, row: Mapping[str, Json], column: str | None) -> float | None:
    value: Json = None if column is None else row.get(column)
    if type(value) is float and 0 <= value < FOREVER:  # as nearly always
        return value
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < FOREVER:
        raise DataError(f"{place}: {column} must be seconds, 0 or more, got {value!r}")
    return seconds


def _split(place: str, row: Mapping[str, Json], column: str | None) -> Split:
    given = row.get(column or "")
    if type(given) is str and given in _SPLIT_NAMES:  # as nearly always
        return _SPLIT_NAMES[given]
    value = _text(place, row, column)
    split = _SPLIT_NAMES.get(value) or _SPLIT_NAMES.get(value.lower())
    if split is None:
        hint = did_you_mean(value, _SPLIT_NAMES)
        raise DataError(f"{place}: {column} must be train, val or test, got {value!r}{hint}")
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
