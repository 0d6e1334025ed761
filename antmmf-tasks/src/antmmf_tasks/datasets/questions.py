"""MSR-VTT-QA and MSVD-QA: questions with one word as answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar

from antmmf.contracts import Record
from pydantic import Field

from antmmf_tasks.datasets.files import json_items, rows
from antmmf_tasks.datasets.msvd import MAPPING, youtube_names
from antmmf_tasks.datasets.release import Missing, Release, Sizes, Split, text

KINDS = ("what", "who", "how", "when", "where")


class Questions(Release):
    """Base of both: a record is a question; ``extras`` has its kind (what, who, ...) and the ``video``.

    Only the ``num_answers`` most frequent answers of the training split (of equally frequent ones those that come
    first in the alphabet) can be learnt: training questions with others are left out. Those of ``val`` and ``test``
    stay, and whatever a model says to them is wrong; AntMMF left that open.
    """

    names: ClassVar[tuple[str, ...]]  # of the file of a split

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: Split,
        num_answers: int,
        media_dir: Path | None,
        missing: Missing,
    ) -> None:
        super().__init__(data_root_dir=data_root_dir, split=split, media_dir=media_dir, missing=missing)
        self.num_answers = num_answers

    def files(self) -> Sequence[Path]:
        """The questions of the split."""
        return [self.file(*(name.format(self.split) for name in self.names))]

    def items(self) -> Iterator[Record]:
        """One record a question, in the order of the file."""
        path = self.files()[0]
        known = self._vocabulary(path) if self.split == "train" else None
        seen: Counter[str] = Counter()
        numbers: set[str] = set()
        for place, row in _questions(path):
            answer = text(row, "answer", place)
            if known is not None and answer not in known:
                self.drop(f"questions whose answers are not among the {self.num_answers} most frequent", place)
                continue
            video = self.video_of(text(row, "video_id" if "video_id" in row else "video", place), place)
            media = self.media_of(video, place) if video is not None else None
            question = self.texts_of([row.get("question")], place)
            answers = self.texts_of([answer], place)
            if media is None or not question or not answers:
                continue
            answer = answers[0]
            number = "id" if "id" in row else "qid"
            name = f"{video}/{question[0]}/{answer}"  # ClipBERT's files have no numbers
            seen[name] += 1
            key = name + (f"/{seen[name]}" if seen[name] > 1 else "")
            if row.get(number) is not None:
                key = self.only_new(numbers, text(row, number, place), place)
            extras = {"video": video, "kind": kind_of(question[0])}
            yield Record(key=key, media=media, question=question[0], answer=answer, extras=extras)

    def video_of(self, number: str, place: str) -> str | None:
        """The name of the video that the file calls ``number``; None where it has none, which is counted."""
        raise NotImplementedError

    def _vocabulary(self, path: Path) -> set[str]:
        counts = Counter(text(row, "answer", place) for place, row in _questions(path))
        ranked = sorted(counts, key=lambda answer: (-counts[answer], answer))
        return set(ranked[: self.num_answers])


def _questions(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    if path.suffix == ".json":
        for place, _, row in json_items(path):
            text(row, "question", place)
            yield place, row
    else:
        yield from rows(path)


class MsrvttQa(Questions):
    """MSR-VTT-QA (Xu et al., ACM MM 2017): 158,581 / 12,278 / 72,821 questions.

    Expects ``train_qa.json``, ``val_qa.json`` and ``test_qa.json``, or ClipBERT's ``train.jsonl``, ``val.jsonl`` and
    ``test.jsonl``. Media are those of MSR-VTT. AntMMF and ClipBERT know 1,500 answers, the paper 1,000. Terms:
    research only; the videos are their uploaders'.
    """

    home = "https://github.com/xudejing/video-question-answering"
    terms = "for research; the videos belong to those who uploaded them to YouTube"
    sizes: ClassVar[Sizes] = {"train": (158581, 0), "val": (12278, 0), "test": (72821, 0)}
    names = ("{}_qa.json", "{}.jsonl", "{}_qa.csv")

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: Split,
        num_answers: Annotated[int, Field(ge=1)] = 1500,
        media_dir: Path | None = None,
        missing: Missing = "fail",
    ) -> None:
        super().__init__(
            data_root_dir=data_root_dir, split=split, num_answers=num_answers, media_dir=media_dir, missing=missing
        )

    def video_of(self, number: str, place: str) -> str | None:  # noqa: ARG002
        """``video<k>``."""
        return f"video{number}" if number.isdigit() else number


class MsvdQa(Questions):
    """MSVD-QA (Xu et al., ACM MM 2017): 30,933 / 6,415 / 13,157 questions.

    Expects ``train_qa.json``, ``val_qa.json`` and ``test_qa.json``, and ``youtube_mapping.txt``, which says which clip
    of MSVD ``vid<k>`` is. The splits are those of the questions, not MSVD's. Terms: research only; the videos are
    their uploaders'.
    """

    home = "https://github.com/xudejing/video-question-answering"
    terms = "for research; the videos belong to those who uploaded them to YouTube"
    hashes = MappingProxyType(
        {
            "val_qa.json": "ea312053d521bb3e518fca33ea2f0c5059f65210e723fa5cd072c0aeb737d5fc",
            "test_qa.json": "61b02e89ab49e9ec442f9be234d016e65a76bb9e4fb9a2b0eef7d7ac0af575f0",
        }
    )
    sizes: ClassVar[Sizes] = {"train": (30933, 0), "val": (6415, 0), "test": (13157, 0)}
    names = ("{}_qa.json",)

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: Split,
        num_answers: Annotated[int, Field(ge=1)] = 1000,
        media_dir: Path | None = None,
        missing: Missing = "fail",
    ) -> None:
        super().__init__(
            data_root_dir=data_root_dir, split=split, num_answers=num_answers, media_dir=media_dir, missing=missing
        )
        self._clips: dict[str, str] | None = None

    def files(self) -> Sequence[Path]:
        """The questions of the split, and the mapping."""
        return [*super().files(), self.file(MAPPING)]

    def video_of(self, number: str, place: str) -> str | None:
        """The clip that is ``vid<k>``."""
        if self._clips is None:
            self._clips = youtube_names(self.file(MAPPING))
        clip = self._clips.get(f"vid{number.removeprefix('vid')}")
        if clip is None:
            self.drop(f"questions on videos that {MAPPING} lacks", place)
        return clip


def kind_of(question: str) -> str:
    """What a question asks for, by its first word."""
    first = question.partition(" ")[0].lower()
    return first if first in KINDS else "other"
