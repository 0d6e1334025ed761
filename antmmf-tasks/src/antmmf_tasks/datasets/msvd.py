"""MSVD: short YouTube clips with about forty captions each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

from antmmf.contracts import Json, Record
from antmmf.errors import DataError

from antmmf_tasks.datasets.files import json_file, lines, plain_pickle, rows, unique
from antmmf_tasks.datasets.release import Missing, Release, Sizes, Split, text

MAPPING = "youtube_mapping.txt"
_CHINESE = "msvd_cn_captions_release_utf8.csv"


class Msvd(Release):
    """MSVD retrieval (Chen and Dolan, ACL 2011), in the split of Venugopalan et al.

    Expects ``train_list.txt``, ``val_list.txt`` and ``test_list.txt`` (1,200 / 100 / 670 names) and
    ``raw-captions.pkl`` (name -> lists of words), as in CLIP4Clip's ``msvd_data.zip``, or ``captions.json`` (name ->
    captions, or a list of ``id`` and ``caption``); with ``language: zh`` instead
    ``msvd_cn_captions_release_utf8.csv`` and ``youtube_mapping.txt``. Media
    are ``YouTubeClips/<name>.avi``. All 27,763 captions of the test split are queries. Terms: research only; the
    videos are their uploaders'.
    """

    home = "https://github.com/ArrowLuo/CLIP4Clip/releases/download/v0.0/msvd_data.zip"
    terms = "for research; the videos belong to those who uploaded them to YouTube"
    hashes = MappingProxyType(
        {
            "train_list.txt": "223a750f33fcec3c5fcb1894123564e67286edd1e9f9473be97930340027d659",
            "val_list.txt": "0e6b31c93757d25115f04e1974bcdc7962b3fce17832b397f6e83e9ff096881b",
            "test_list.txt": "95eacd1fddb1d88cd7144267913ef02d0ecb8cc94a88bc484035433a2d8f9c7a",
            MAPPING: "28ad09f8b345eab9722cfeb2e43fe011689c9a1bdb2a10eb75f3801cc24508d7",
        }
    )
    sizes: ClassVar[Sizes] = {"train": (1200, 48774), "val": (100, 4290), "test": (670, 27763)}

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: Split,
        language: Literal["en", "zh"] = "en",
        media_dir: Path | None = None,
        missing: Missing = "fail",
    ) -> None:
        super().__init__(data_root_dir=data_root_dir, split=split, media_dir=media_dir, missing=missing)
        self.language = language

    @property
    def part(self) -> str:
        """The split, and the language where it is not English."""
        return self.split if self.language == "en" else f"{self.split} {self.language}"

    def files(self) -> Sequence[Path]:
        """The list of the split, and the captions."""
        if self.language == "zh":
            return [self.file(f"{self.split}_list.txt"), self.file(_CHINESE), self.file(MAPPING)]
        return [self.file(f"{self.split}_list.txt"), self.file("raw-captions.pkl", "captions.json")]

    def items(self) -> Iterator[Record]:
        """One record a clip, in the order of the list."""
        names, path, *_ = self.files()
        captions = self._chinese(path) if self.language == "zh" else _english(path)
        seen: set[str] = set()
        for place, name in lines(names):
            self.only_new(seen, name, place)
            media = self.media_of(name, place)
            if name not in captions:
                self.drop(f"clips without captions in {path.name}", place)
            elif media is not None:
                texts = self.texts_of(captions[name], f"{path}: {name}")
                yield Record(key=name, media=media, texts=texts, language=self.language)

    def _chinese(self, path: Path) -> dict[str, list[Json]]:
        names = youtube_names(self.file(MAPPING))
        captions: dict[str, list[Json]] = {}
        for place, row in rows(path):
            number = text(row, "video_id", place).rpartition(".")[0]
            if number in names:
                captions.setdefault(names[number], []).append(row.get("sentence"))
            else:
                self.drop(f"captions of videos that {MAPPING} lacks", place)
        return captions


def youtube_names(path: Path) -> dict[str, str]:
    """``vid<k>`` -> name of the clip, from ``youtube_mapping.txt``. Raises ``DataError``."""
    names: dict[str, str] = {}
    for place, line in lines(path):
        name, _, number = line.partition(" ")
        if not number.strip().startswith("vid"):
            raise DataError(f"{place}: must be a clip's name, a space and vid<number>, is {line[:80]!r}")
        if number.strip() in names:
            raise DataError(f"{place}: {number.strip()!r} is there twice; each must be there once")
        names[number.strip()] = name
    return names


def _english(path: Path) -> Mapping[str, list[Json]]:
    if path.suffix == ".json":
        found, what = json_file(path), "captions"
        if isinstance(found, list):  # of clips, as the training labels of courses have them
            names = (text(clip, "id", f"{path}: clip {number}") for number, clip in enumerate(found, 1))
            found = unique(
                [(name.removesuffix(".avi"), clip.get("caption")) for name, clip in zip(names, found, strict=True)],
                path,
            )
    else:
        found, what = plain_pickle(path), "lists of words"
    if not isinstance(found, dict) or not all(isinstance(value, list) for value in found.values()):
        raise DataError(f"{path}: must be names with lists of {what}; is it the right file?")
    return {
        str(name): [" ".join(map(str, words)) if isinstance(words, list | tuple) else words for words in captions]
        for name, captions in found.items()
    }
