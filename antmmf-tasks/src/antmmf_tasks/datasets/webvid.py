"""WebVid: stock videos, each with its title."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from antmmf.contracts import Record

from antmmf_tasks.datasets.files import rows
from antmmf_tasks.datasets.release import Missing, Release, text


class Webvid(Release):
    """WebVid-2M or WebVid-10M (Bain et al., ICCV 2021).

    Expects ``results_2M_train.csv`` and ``results_2M_val.csv`` (or ``10M``) with the columns ``videoid``, ``name`` and
    ``page_dir``, in any order, among others. Media are ``<page_dir>/<videoid>.mp4`` or ``<videoid>.mp4``. About 2.5 M
    and 5,000 records. Terms: withdrawn by its publisher in 2024; the videos are Shutterstock's.
    """

    home = "https://github.com/m-bain/webvid"
    terms = "withdrawn by its publisher in 2024; the videos belong to Shutterstock"

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: Literal["train", "val"],
        version: Literal["2M", "10M"] = "2M",
        media_dir: Path | None = None,
        missing: Missing = "fail",
    ) -> None:
        super().__init__(data_root_dir=data_root_dir, split=split, media_dir=media_dir, missing=missing)
        self.version = version

    def files(self) -> Sequence[Path]:
        """The table of the split."""
        return [self.file(f"results_{self.version}_{self.split}.csv")]

    def items(self) -> Iterator[Record]:
        """One record a video, in the order of the table."""
        for place, row in rows(self.files()[0]):
            folder, video = str(row.get("page_dir") or ""), text(row, "videoid", place)
            name = f"{folder}/{video}.mp4" if folder else f"{video}.mp4"
            if name in self._found:
                self.drop("rows on videos that an earlier row describes", place)
                continue
            media = self.media_of(name, place)
            captions = self.texts_of([text(row, "name", place)], place)
            if media is not None and captions:
                yield Record(key=name, media=media, texts=captions)
