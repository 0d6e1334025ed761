"""What is said in a video as its text: segments, grown with their neighbours until they say enough."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from antmmf.contracts import Json, Record, Segment
from antmmf.errors import DataError

from antmmf_tasks.datasets.files import json_file, json_items
from antmmf_tasks.datasets.release import FOREVER, Missing, Release, fault_of, held_out, listed
from antmmf_tasks.datasets.tars import kept_list

_FOLDER = "asr_files"


class Transcripts(Release):
    """Base of HowTo100M and CNVid: a transcript for each video.

    They are in ``caption.json`` (video -> start, end, text), of which one video at a time is in memory, or in
    ``asr_files/<video>``, a file each. A sample is a segment drawn anew in every epoch and grown with its neighbours
    to ``min_words`` and ``min_seconds``; its frames come from those seconds. ``val`` is the middle segment of
    ``val_share`` of the videos, chosen by a hash of their names and held out of ``train``.
    """

    language: ClassVar[str]

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: str,
        min_words: int,
        min_seconds: float,
        val_share: float,
        media_dir: Path | None,
        missing: Missing,
    ) -> None:
        super().__init__(data_root_dir=data_root_dir, split=split, media_dir=media_dir, missing=missing)
        self.min_words, self.min_seconds, self.val_share = min_words, min_seconds, val_share

    def files(self) -> Sequence[Path]:
        """The transcripts: one file, or the folder of them."""
        folder = self.root / _FOLDER
        return [folder] if folder.is_dir() and not self.find_file("caption.json") else [self.file("caption.json")]

    def sources(self) -> Sequence[Path]:
        """As of other releases; a folder of transcripts is stood for by a list that changes when one of them does."""
        return [_listing(path) if path.is_dir() and path.name == _FOLDER else path for path in super().sources()]

    def items(self) -> Iterator[Record]:
        """One record a video, in the order of the file or of the names."""
        path = self.files()[0]
        any_here = False
        seen: set[str] = set()
        for place, name, spoken in _each_file(path) if path.is_dir() else json_items(path):
            if held_out(name, self.val_share) != (self.split == "val"):
                continue
            any_here = True
            self.only_new(seen, name, place)
            transcript = self._segments(spoken, place)
            if not transcript:
                self.drop("videos in which nothing is said", place)
                continue
            media = self.media_of(name, place)
            if media is None:
                continue
            record = Record(key=name, media=media, transcript=transcript, language=self.language)
            if self.split == "val":
                record = replace(self._drawn(record, len(transcript) // 2), transcript=())
            yield record
        if not any_here:
            raise DataError(
                f"{path}: val_share {self.val_share:g} of its videos is not one for {self.split}; change it"
            )

    def draw(self, record: Record, rng: np.random.Generator) -> Record:
        """A segment of the transcript, grown, as the record's text, start and end."""
        return self._drawn(record, int(rng.integers(len(record.transcript))))

    def _drawn(self, record: Record, index: int) -> Record:
        start, end, said = grown(
            record.transcript,
            index,
            min_words=self.min_words,
            min_seconds=self.min_seconds,
            by_characters=self.language == "zh",
        )
        return replace(record, texts=(said,), start=start, end=end)

    def _segments(self, spoken: Json, place: str) -> tuple[Segment, ...]:
        starts, ends, texts = (listed(spoken, field, place) for field in ("start", "end", "text"))
        if not len(starts) == len(ends) == len(texts):
            raise DataError(f"{place}: has {len(starts)} starts, {len(ends)} ends and {len(texts)} texts")
        found = []
        for start, end, said in zip(starts, ends, texts, strict=True):
            line = " ".join(said.split()) if isinstance(said, str) else ""
            if fault := fault_of(line, "segments"):
                self.drop(fault, place)
            elif not (isinstance(start, int | float) and isinstance(end, int | float) and 0 <= start < end < FOREVER):
                self.drop("segments without a start and a later end", place)
            else:
                found.append(Segment(float(start), float(end), line))
        return tuple(sorted(found, key=lambda segment: (segment.start, segment.end)))


def grown(
    transcript: Sequence[Segment], index: int, *, min_words: int, min_seconds: float, by_characters: bool
) -> tuple[float, float, str]:
    """Start, end and text of segment ``index`` with neighbours until it has both minima, or there are no more.

    Of two neighbours the earlier one is taken where that makes it no longer (SNP-S3's sampler of transcripts, which
    compares the lengths of the texts where ``min_seconds`` is 0). A text
    that repeats the one before it counts once, as rolling captions do; Chinese is counted in characters and joined
    without spaces.
    """
    first = last = index

    def span(first: int, last: int) -> float:
        return max(segment.end for segment in transcript[first : last + 1]) - transcript[first].start

    said = _joined(transcript[first : last + 1], by_characters)
    while _length(said, by_characters) < min_words or span(first, last) < min_seconds:
        before, after = first > 0, last + 1 < len(transcript)
        if not before and not after:
            break
        if before and (not after or span(first - 1, last) <= span(first, last + 1)):
            first -= 1
        else:
            last += 1
        said = _joined(transcript[first : last + 1], by_characters)
    return transcript[first].start, transcript[first].start + span(first, last), said


def _joined(segments: Sequence[Segment], by_characters: bool) -> str:
    texts = [segment.text for segment in segments]
    new = [text for number, text in enumerate(texts) if number == 0 or text != texts[number - 1]]
    return ("" if by_characters else " ").join(new)


def _length(said: str, by_characters: bool) -> int:
    return sum(not character.isspace() for character in said) if by_characters else len(said.split())


def _listing(folder: Path) -> Path:
    """A small file with a hash of the name, size and time of each file: there may be millions of them."""
    digest = hashlib.blake2b(digest_size=16)
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            state = entry.stat()
            digest.update(f"{entry.name}/{state.st_size}/{state.st_mtime_ns}\n".encode("utf-8", "surrogatepass"))
    return kept_list(folder, digest.hexdigest())


def _each_file(folder: Path) -> Iterator[tuple[str, str, Json]]:
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            yield str(path), path.name.removesuffix(".json"), json_file(path)
