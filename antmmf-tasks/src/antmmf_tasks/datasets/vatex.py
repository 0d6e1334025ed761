"""VATEX: YouTube clips with captions in English and Chinese."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

from antmmf.contracts import Json, Record

from antmmf_tasks.datasets.files import json_items, lines, rows
from antmmf_tasks.datasets.release import Missing, Release, Sizes, Split, listed, text

_FIELDS = {"en": "enCap", "zh": "chCap"}
_PUBLISHED = {
    "train": "vatex_training_v1.0.json",
    "val": "vatex_validation_v1.0.json",
    "test": "vatex_public_test_english_v1.1.json",
}


_VALUE = {"train": "vatex_en_c_train_release.jsonl", "val": "vatex_en_c_val_release.jsonl"}


class Vatex(Release):
    """VATEX retrieval (Wang et al., ICCV 2019).

    Expects ``vatex_training_v1.0.json`` and ``vatex_validation_v1.0.json``, or for English VALUE's
    ``vatex_en_c_train_release.jsonl`` and ``vatex_en_c_val_release.jsonl``. Protocol ``hgr`` (Chen et al., CVPR 2020),
    which the field uses, divides the published validation split by ``val_list.txt`` and ``test_list.txt``: 25,991 /
    1,500 / 1,500 videos with 10 captions in each language. ``official`` takes all 3,000 as ``val``, and
    ``vatex_public_test_english_v1.1.json`` (6,000, English only) as ``test``. Media are
    ``<YouTube id>_<start>_<end>.mp4``. Terms: annotations CC BY 4.0; the videos are their uploaders'.
    """

    home = "https://eric-xw.github.io/vatex-website/download.html"
    terms = "annotations under CC BY 4.0; the videos belong to those who uploaded them to YouTube"
    downloads = tuple(f"https://eric-xw.github.io/vatex-website/data/{name}" for name in _PUBLISHED.values())
    hashes = MappingProxyType(
        {
            "val_list.txt": "223d6d6b0b8c88f093ac1942e1165ae6d21a982362252ba574059e1a27083066",
            "test_list.txt": "652fd9bbfe53d53935b292b0e4127bc8e41cae6846b3c9faa4f502d96f160a42",
        }
    )
    sizes: ClassVar[Sizes] = {
        "hgr train": (25991, 259910),
        "hgr val": (1500, 15000),
        "hgr test": (1500, 15000),
        "official train": (25991, 259910),
        "official val": (3000, 30000),
        "official test": (6000, 60000),
    }

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: Split,
        language: Literal["en", "zh"] = "en",
        protocol: Literal["hgr", "official"] = "hgr",
        media_dir: Path | None = None,
        missing: Missing = "fail",
    ) -> None:
        super().__init__(data_root_dir=data_root_dir, split=split, media_dir=media_dir, missing=missing)
        self.language, self.protocol = language, protocol

    @property
    def part(self) -> str:
        """Protocol and split."""
        return f"{self.protocol} {self.split}"

    def files(self) -> Sequence[Path]:
        """The annotations, and the list of names that divides them where there is one."""
        if self.protocol == "hgr" and self.split != "train":
            return [self._annotations("val"), self.file(f"{self.split}_list.txt")]
        return [self._annotations(self.split)]

    def _annotations(self, published: str) -> Path:
        names = [_PUBLISHED[published]]
        if self.language == "en" and published in _VALUE:
            names.append(_VALUE[published])
        return self.file(*names)

    def items(self) -> Iterator[Record]:
        """One record a video, in the order of the annotations."""
        path, *divided = self.files()
        wanted = {name: place for each in divided for place, name in lines(each)}
        seen: set[str] = set()
        for place, video in _videos(path):
            name = self.only_new(seen, text(video, "videoID", place), place)
            media = self.media_of(name, place) if not divided or name in wanted else None
            if media is not None:
                captions = self.texts_of(listed(video, _FIELDS[self.language], place), place)
                yield Record(key=name, media=media, texts=captions, language=self.language)
        for name in sorted(wanted.keys() - seen):
            self.drop(f"names of a list that {path.name} lacks", wanted[name])


def _videos(path: Path) -> Iterator[tuple[str, Json]]:
    """Place and annotations of each video, with the names of the release."""
    if path.suffix == ".json":
        yield from ((place, video) for place, _, video in json_items(path))
        return
    for place, row in rows(path):
        captions = [text(each, "desc", place) for each in listed(row, "descs", place)]
        yield place, {"videoID": text(row, "vid_name", place), _FIELDS["en"]: captions}
