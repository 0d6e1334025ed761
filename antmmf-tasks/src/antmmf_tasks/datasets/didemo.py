"""DiDeMo: Flickr videos whose moments are described."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar

from antmmf.contracts import Record
from pydantic import Field

from antmmf_tasks.datasets.files import json_items, rows
from antmmf_tasks.datasets.release import FOREVER, Missing, Release, Sizes, Split, text


class Didemo(Release):
    """DiDeMo paragraph-to-video retrieval (Hendricks et al., ICCV 2017).

    Expects ``train_data.json``, ``val_data.json`` and ``test_data.json`` of LisaAnne/LocalizingMoments, or
    ``DiDeMo_<split>.tsv`` (paragraph, file name). All descriptions of a video, in the order of the file, make one
    paragraph; papers count 8,395 / 1,065 / 1,004 videos that could still be had (``val`` names 1,094). Media keep their
    Flickr names, whatever their ending. ``seconds`` reads
    only the beginning (31 in CLIP4Clip). Terms: annotations BSD 2-clause; the videos have Creative Commons licences.
    """

    home = "https://github.com/LisaAnne/LocalizingMoments"
    terms = "annotations under BSD 2-clause; each video under its own Creative Commons licence"
    downloads = tuple(
        f"https://raw.githubusercontent.com/LisaAnne/LocalizingMoments/master/data/{split}_data.json"
        for split in ("train", "val", "test")
    )
    hashes = MappingProxyType({"val_data.json": "b0364cc256553332feb19d46bcc4cd2b09774949fe6c0b25e7ed0ff3c6aefebb"})
    sizes: ClassVar[Sizes] = {"val": (1094, 1094)}  # counted in the published file

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: Split,
        seconds: Annotated[float, Field(gt=0, lt=FOREVER)] | None = None,
        media_dir: Path | None = None,
        missing: Missing = "fail",
    ) -> None:
        super().__init__(data_root_dir=data_root_dir, split=split, media_dir=media_dir, missing=missing)
        self.seconds = seconds

    def files(self) -> Sequence[Path]:
        """The annotations of the split."""
        return [self.file(f"{self.split}_data.json", f"DiDeMo_{self.split}.tsv")]

    def items(self) -> Iterator[Record]:
        """One record a video, in the order in which they first occur."""
        path = self.files()[0]
        paragraphs: dict[str, tuple[list[str], str]] = {}
        for place, video, description in _from_tsv(path) if path.suffix == ".tsv" else _from_json(path):
            paragraphs.setdefault(video, ([], place))[0].append(description)
        for video, (descriptions, place) in paragraphs.items():
            media = self.media_of(video, place)
            if media is not None:
                found = self.texts_of(descriptions, place)
                whole = self.texts_of([" ".join(found)], place) if found else ()
                yield Record(key=video, media=media, end=self.seconds, texts=whole)


def _from_json(path: Path) -> Iterator[tuple[str, str, str]]:
    for place, _, moment in json_items(path):
        yield place, text(moment, "video", place), text(moment, "description", place)


def _from_tsv(path: Path) -> Iterator[tuple[str, str, str]]:
    for place, row in rows(path, header=("description", "video")):
        yield place, text(row, "video", place), text(row, "description", place)
