"""What the data sets of the field have in common: files of a publisher, media somewhere below them, splits."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal

from antmmf.contracts import Record
from antmmf.errors import DataError

from antmmf_tasks.datasets.media import Kind, MediaFinder

Missing = Literal["fail", "drop"]
Split = Literal["train", "val", "test"]
Sizes = Mapping[str, tuple[int, int]]

MOST_WORDS, MOST_CHARACTERS = 1000, 10_000
FOREVER = 1e9  # seconds: 32 years; JSON can hold infinity, and whole numbers that no float can
_NUM_NAMED = 3
_NUM_FOLDERS = 1000
_LOG = logging.getLogger("antmmf")


class Release(ABC):
    """Base of a data set: a subclass says where its files come from and yields their ``items``.

    ``data_root_dir`` holds the annotation files, in itself or a folder ``annotations``, or all that in a folder of the
    data set's name; media lie anywhere below ``media_dir``, by default the same folder. Media that do not exist fail,
    or are dropped, with one summary.
    """

    home: ClassVar[str]  # where the files come from
    terms: ClassVar[str]  # of use, in a sentence
    kind: ClassVar[Kind] = "video"
    has_folder: ClassVar[bool] = True  # whether its files may lie in a folder of its name
    sizes: ClassVar[Sizes] = {}  # split -> records and texts of a complete copy
    downloads: ClassVar[Sequence[str]] = ()  # addresses of annotations that anyone may fetch
    hashes: ClassVar[Mapping[str, str]] = {}  # file -> sha256 of what was published

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: str,
        media_dir: Path | None = None,
        missing: Missing = "fail",
    ) -> None:
        given = Path(os.path.abspath(Path(data_root_dir).expanduser()))
        self.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()
        self.root = given / self.name if self.has_folder and (given / self.name).is_dir() else given
        self.split, self.missing = split, missing
        self.media_dir = given / Path(media_dir).expanduser() if media_dir else self.root
        self._dropped: dict[str, tuple[int, list[str]]] = {}
        self._found: dict[str, str | None] = {}
        self._absent: dict[str, str] = {}  # name -> where it is first named
        self.look_in(self.media_dir)

    def look_in(self, media_dir: Path) -> None:
        """Find media below this folder."""
        self._finder = MediaFinder(media_dir, kind=self.kind)
        self.media_dir = self._finder.root

    @abstractmethod
    def files(self) -> Sequence[Path]:
        """The annotation files of the split. Raises ``DataError`` where one is missing."""

    @abstractmethod
    def items(self) -> Iterator[Record]:
        """The records, with what ``media_of`` gives; raises ``DataError`` with file:line."""

    @property
    def part(self) -> str:
        """What of the release is read, as it is called in ``sizes``."""
        return self.split

    def sources(self) -> Sequence[Path]:
        """The annotation files, and the first thousand folders of the media, so that what comes or goes is noticed."""
        return [*self.files(), *self._media_folders()]

    def records(self) -> Iterator[Record]:
        """Every record of the split whose media exist and whose texts can be used; what is left out is summed up."""
        self._dropped.clear()
        self._absent.clear()
        states, count = self._states(), 0
        for record in self.items():
            if record.texts or record.transcript or record.question is not None or record.options:
                count += 1
                yield record
            else:
                self.drop("records without a text", f"{record.key} in {self.files()[0]}")
        name = f"{self.name} {self.part}"
        if self._states() != states:
            raise DataError(f"{name}: {' or '.join(map(str, states))} changed while it was read; begin again")
        if self._absent:
            self._tell_absent(name, count)
        for what, (number, where) in self._dropped.items():
            _LOG.warning("%s: left out %d %s, such as %s", name, number, what, ", ".join(where))

    def _tell_absent(self, name: str, count: int) -> None:
        """Say once which media are missing; ``DataError`` unless they are to be dropped and something is left."""
        ends_otherwise = {media: place for media, place in self._absent.items() if self._finder.ends_otherwise(media)}
        gone = {media: place for media, place in self._absent.items() if media not in ends_otherwise}
        told = []
        if gone:
            told.append(
                f"{len(gone)} of {len(self._found)} media do not exist: {_first(gone)}; "
                f"they should lie in {self.media_dir}"
            )
        if ends_otherwise:
            told.append(
                f"{len(ends_otherwise)} of {len(self._found)} media are there, but must end as one of "
                f"{', '.join(self._finder.suffixes)}: {_first(ends_otherwise)}"
            )
        summary = f"{name}: {'; '.join(told)}"
        if self.missing == "fail":
            raise DataError(f"{summary}; missing: drop leaves them out", reason="missing")
        if not count:
            raise DataError(f"{summary}; nothing is left", reason="missing")
        _LOG.warning("%s; left out", summary)

    def file(self, *names: str) -> Path:
        """The first of ``names`` that exists in the root or in ``annotations``. Raises ``DataError``."""
        if not self.root.is_dir():
            raise DataError(f"data_root_dir {self.root} is not a folder", reason="missing")
        path = self.find_file(*names)
        if path is None:
            there = sorted(entry.name for entry in self.root.iterdir())
            shown = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
            raise DataError(
                f"{self.root} must hold {' or '.join(names)} (from {self.home}); it holds {shown or 'nothing'}",
                reason="missing",
            )
        return path

    def find_file(self, *names: str) -> Path | None:
        """The first of ``names`` that exists, or None."""
        places = (self.root / folder / name for name in names for folder in ("", "annotations"))
        return next((path for path in places if path.is_file()), None)

    def media_of(self, name: str, place: str, *, or_else: Sequence[str] = ()) -> str | None:
        """The media called ``name``, which stands at ``place``, or by one of the other names; None where there is none,
        which is counted."""
        found = self._found.get(name)
        if found is not None:
            return found
        if name not in self._found:
            if not self._finder.inside(name):
                message = f"{place}: {name!r} leads out of {self.media_dir}; media must lie below it"
                if self.missing == "fail":
                    raise DataError(message)
                self.drop("media names that lead out of the data root", f"{name!r} ({place})")
                return None
            names = (name, *(other for other in or_else if other and self._finder.inside(other)))
            self._found[name] = next(filter(None, map(self._finder.find, names)), None)
        if self._found[name] is None:
            self._absent.setdefault(name, place)
        return self._found[name]

    def texts_of(self, texts: Iterable[object], place: str) -> tuple[str, ...]:
        """The texts that can be used, each with single spaces; empty ones and books are counted and left out."""
        good = []
        for text in texts:
            joined = " ".join(text.split()) if isinstance(text, str) else ""
            if 0 < len(joined) <= MOST_WORDS and joined.isascii():
                good.append(joined)  # as nearly always
            elif fault := fault_of(joined):
                self.drop(fault, place)
            else:
                good.append(joined)
        return tuple(good)

    def drop(self, what: str, where: str) -> None:
        """Count something that is left out; the first few places are told at the end."""
        number, places = self._dropped.get(what, (0, []))
        self._dropped[what] = number + 1, [*places, where] if number < _NUM_NAMED else places

    def only_new(self, seen: set[str], key: str, place: str) -> str:
        """``key``, which must not have been ``seen``. Raises ``DataError``."""
        if key in seen:
            raise DataError(f"{place}: {key!r} is there twice; each must be there once")
        seen.add(key)
        return key

    def _states(self) -> dict[Path, tuple[int, int]]:
        """Size and time of the annotation files."""
        states = {path: path.stat() for path in self.files()}
        return {path: (state.st_size, state.st_mtime_ns) for path, state in states.items()}

    def _media_folders(self) -> list[Path]:
        if not self.media_dir.is_dir():
            raise DataError(f"media_dir {self.media_dir} is not a folder", reason="missing")
        if self.media_dir == self.media_dir.parent:  # names are whole paths, and there is always something going on
            return []
        found = [self.media_dir]
        for folder in found:  # those nearest to the root first; links in circles end with the number
            with suppress(OSError), os.scandir(folder) as entries:
                inside = sorted(entry.path for entry in entries if entry.is_dir() and entry.name[0] != ".")
                found += map(Path, inside[: _NUM_FOLDERS - len(found)])
        return found


def _first(named: Mapping[str, str]) -> str:
    """The first few names and where they stand."""
    shown = ", ".join(f"{name} ({place})" for name, place in islice(named.items(), _NUM_NAMED))
    rest = len(named) - _NUM_NAMED
    return f"{shown} and {rest} more" if rest > 0 else shown


def need(values: object, field: str, place: str) -> object:
    """``values[field]``. Raises ``DataError`` where there is none: mostly another file under this one's name."""
    if not isinstance(values, dict) or values.get(field) is None:
        there = ", ".join(map(str, values)) if isinstance(values, dict) else type(values).__name__
        if isinstance(values, dict) and field in values:
            raise DataError(f"{place}: {field!r} must not be null")
        raise DataError(f"{place}: must have {field!r}, has {there[:200] or 'nothing'}; is it the right file?")
    return values[field]


def text(values: object, field: str, place: str) -> str:
    """``values[field]`` as a text; a number becomes one. Raises ``DataError``."""
    found = need(values, field, place)
    if not is_plain(found):
        raise DataError(
            f"{place}: {field!r} must be a text, is {found if isinstance(found, float) else type(found).__name__}"
        )
    if not is_unicode(str(found)):
        raise DataError(f"{place}: {field!r} must be a text, has half of a character: {found!r}")
    return str(found).strip()


def is_plain(value: object) -> bool:
    """Whether it is a text, or a number that can stand for one; NaN means that there is none."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int) and not isinstance(value, bool)


def fault_of(text: str, what: str = "texts") -> str:
    """How texts are called that cannot be used as this one; empty where it can. Words have single spaces between."""
    if not text:
        return f"empty {what}"
    if text.count(" ") >= MOST_WORDS:
        return f"{what} of more than {MOST_WORDS} words"
    if len(text) > MOST_CHARACTERS:
        return f"{what} of more than {MOST_CHARACTERS} characters"
    return "" if is_unicode(text) else f"{what} with halves of characters"


def span_of(start: float | None, end: float | None) -> str:
    """What tells the segments of one file apart in a key; nothing for the whole file."""
    if end is None:
        return "" if start is None else f"#{start:.10g}-"
    return "#%.10g-%.10g" % (start or 0, end)  # noqa: UP031  # half the time of an f-string


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; JSON can hold halves of characters, such as ``\\ud83d``, which cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def listed(values: object, field: str, place: str) -> list[object]:
    """``values[field]`` as a list. Raises ``DataError``."""
    found = need(values, field, place)
    if not isinstance(found, list):
        raise DataError(f"{place}: {field!r} must be a list, is {type(found).__name__}")
    return found


def held_out(key: str, share: float) -> bool:
    """Whether ``key`` belongs to the ``share`` of training data that is kept for validation: a function of it alone."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64
