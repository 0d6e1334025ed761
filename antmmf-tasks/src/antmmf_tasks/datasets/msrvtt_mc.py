"""MSR-VTT-MC: which of five captions belongs to the video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from antmmf.contracts import Record
from antmmf.errors import DataError

from antmmf_tasks.datasets.files import rows
from antmmf_tasks.datasets.release import Missing, Release, Sizes, is_plain, listed, text


class MsrvttMc(Release):
    """MSR-VTT multiple choice (Yu et al., ECCV 2018): 2,990 test videos, five captions each, one of them true.

    Expects ``msrvtt_mc_test.jsonl``, as ClipBERT and AntMMF have it. Media are those of MSR-VTT. The options keep their
    order, ``extras`` has the number of the true one as ``label``. It is a test split and nothing else. Terms: research
    only; the videos are their uploaders'.
    """

    home = "https://github.com/jayleicn/ClipBERT"
    terms = "for research; the videos belong to those who uploaded them to YouTube"
    sizes: ClassVar[Sizes] = {"test": (2990, 0)}

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: Literal["test"] = "test",
        media_dir: Path | None = None,
        missing: Missing = "fail",
    ) -> None:
        super().__init__(data_root_dir=data_root_dir, split=split, media_dir=media_dir, missing=missing)

    def files(self) -> Sequence[Path]:
        """The questions."""
        return [self.file("msrvtt_mc_test.jsonl", "msrvtt_retrieval_mc_test.jsonl", "mc_test.jsonl")]

    def items(self) -> Iterator[Record]:
        """One record a question, in the order of the file."""
        seen: set[str] = set()
        for place, row in rows(self.files()[0]):
            key = self.only_new(seen, text(row, "qid", place), place)
            media = self.media_of(text(row, "clip_name", place), place)
            options, label = choice_of(row, place)
            if len(self.texts_of(options, place)) < len(options):
                self.drop("questions with an option that cannot be used", place)
            elif media is not None:
                yield Record(key=key, media=media, options=options, answer=options[label], extras={"label": label})


def choice_of(row: dict[str, object], place: str) -> tuple[tuple[str, ...], int]:
    """The options of a question and the number of the true one. Raises ``DataError``."""
    found = listed(row, "options", place)
    if len(found) < 2 or not all(map(is_plain, found)):
        raise DataError(f"{place}: 'options' must be two texts or more, is {str(found)[:80]}")
    options = tuple(" ".join(str(option).split()) for option in found)
    answer = text(row, "answer", place)
    if not answer.isdecimal() or len(answer) > 9 or int(answer) >= len(options):
        raise DataError(
            f"{place}: 'answer' must be the number of an option, 0 to {len(options) - 1}, is {answer[:80]!r}"
        )
    return options, int(answer)
