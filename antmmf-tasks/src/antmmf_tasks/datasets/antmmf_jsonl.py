"""AntMMF's own annotation files, unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from antmmf.contracts import Json, Record
from antmmf.errors import DataError

from antmmf_tasks.datasets.files import rows
from antmmf_tasks.datasets.msrvtt_mc import choice_of
from antmmf_tasks.datasets.questions import kind_of
from antmmf_tasks.datasets.release import FOREVER, Missing, Release, span_of, text


class AntmmfJsonl(Release):
    """A jsonl file as AntMMF reads it, one for each split.

    ``annotations`` is that file, below the root. Lines have ``clip_name``, ``caption`` and perhaps ``start`` and
    ``end``, which AntMMF's retrieval drops. ``task: retrieval`` makes one record of the lines with one clip and time;
    ``qa`` one of each line, whose caption is the question and whose ``label`` is the answer; ``choice`` one of each
    ``qid`` with its ``options``. Media are pictures and videos, found by their names.
    """

    home = "AntMMF's tests/data, or a converter of yours"
    terms = "those of the data set that was converted"
    kind = "any"
    has_folder = False

    def __init__(
        self,
        *,
        data_root_dir: Path,
        annotations: str,
        task: Literal["retrieval", "qa", "choice"] = "retrieval",
        language: str = "en",
        media_dir: Path | None = None,
        missing: Missing = "fail",
    ) -> None:
        super().__init__(data_root_dir=data_root_dir, split=annotations, media_dir=media_dir, missing=missing)
        self.task, self.language = task, language

    def files(self) -> Sequence[Path]:
        """The file."""
        return [self.file(self.split)]

    def items(self) -> Iterator[Record]:
        """The records, in the order in which their clips first occur."""
        lines = rows(self.files()[0])
        yield from self._grouped(lines) if self.task == "retrieval" else self._each(lines)

    def _grouped(self, lines: Iterator[tuple[str, dict[str, Json]]]) -> Iterator[Record]:
        clips: dict[tuple[str, float | None, float | None], tuple[str, list[str]]] = {}
        for place, row in lines:
            clip = text(row, "clip_name", place), *_span(row, place)
            clips.setdefault(clip, (place, []))[1].extend(self.texts_of([row.get("caption")], place))
        for (name, start, end), (place, texts) in clips.items():
            media = self.media_of(name, place)
            if media is not None and texts:
                key = name + span_of(start, end)
                yield Record(key=key, media=media, start=start, end=end, texts=tuple(texts), language=self.language)

    def _each(self, lines: Iterator[tuple[str, dict[str, Json]]]) -> Iterator[Record]:
        seen: Counter[str] = Counter()
        questions: set[str] = set()
        for place, row in lines:
            media = self.media_of(text(row, "clip_name", place), place)
            start, end = _span(row, place)
            if self.task == "choice":
                options, label = choice_of(row, place)
                fields: dict[str, Json] = {"options": options, "answer": options[label], "extras": {"label": label}}
                key = self.only_new(questions, text(row, "qid", place), place)
                usable = len(self.texts_of(options, place)) == len(options)
            else:
                asked = row.get("caption") or ""  # none where actions are to be told
                question = self.texts_of([asked], place) if asked else ("",)
                usable = len(question) == 1
                said = "".join(question)
                extras = {"kind": kind_of(said)} if said else {}
                fields = {"question": said, "answer": text(row, "label", place), "extras": extras}
                key = f"{row['clip_name']}/{fields['question']}"
            seen[key] += 1
            if media is not None and usable:
                number = f"/{seen[key]}" if seen[key] > 1 else ""
                yield Record(key=key + number, media=media, start=start, end=end, language=self.language, **fields)


def _span(row: dict[str, Json], place: str) -> tuple[float | None, float | None]:
    start, end = _seconds(row, "start", place), _seconds(row, "end", place)
    if end is not None and end <= (start or 0):
        raise DataError(f"{place}: end {end:g} must be after start {start or 0:g}")
    return start or 0.0 if end is not None else start, end


def _seconds(row: dict[str, Json], field: str, place: str) -> float | None:
    value = row.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < FOREVER:
        raise DataError(f"{place}: {field!r} must be seconds, 0 or more, is {value!r}")
    return float(value)
