"""Conceptual Captions: pictures of the web with their alternative texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from antmmf.contracts import Record
from antmmf.errors import DataError

from antmmf_tasks.datasets.files import json_file, rows
from antmmf_tasks.datasets.release import Missing, Release, Sizes, listed, need, text

_DERIVED = "txt_cc3m.json"
_FILES = {"train": "Train_GCC-training.tsv", "val": "Validation_GCC-1.1.0-Validation.tsv"}


class Cc3m(Release):
    """CC3M (Sharma et al., ACL 2018).

    Expects ``Train_GCC-training.tsv`` and ``Validation_GCC-1.1.0-Validation.tsv``: caption and address, no header;
    3,318,333 and 15,840 rows. Pictures are named as img2dataset names them (nine digits: the row), by the MD5 of the
    address, or as in the address, below a folder ``train`` or ``val``, or ``media_dir``. In place of the tables there
    may be VIOLET's ``txt_cc3m.json`` (Fu et al. 2021): split -> name of the picture -> captions. Many addresses are
    dead, so pictures that are missing are dropped. Terms: free for any purpose, without warranty; the pictures have
    owners.
    """

    home = "https://ai.google.com/research/ConceptualCaptions/download"
    terms = "the captions may be used for any purpose, without warranty; the pictures belong to their owners"
    kind = "image"
    sizes: ClassVar[Sizes] = {"train": (3318333, 3318333), "val": (15840, 15840)}

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: Literal["train", "val"],
        media_dir: Path | None = None,
        missing: Missing = "drop",
    ) -> None:
        super().__init__(data_root_dir=data_root_dir, split=split, media_dir=media_dir, missing=missing)
        folders = (self.root / name for name in (split, f"{split}ing"))
        own = next((folder for folder in folders if folder.is_dir()), None)
        if media_dir is None and own is not None:
            self.look_in(own)

    def files(self) -> Sequence[Path]:
        """The table of the split, or else the derived file, which has both."""
        return [self.file(_FILES[self.split], _DERIVED)]

    def items(self) -> Iterator[Record]:
        """One record a picture, in the order of the file."""
        if self.files()[0].name == _DERIVED:
            yield from self._derived(self.files()[0])
            return
        addresses: set[bytes] = set()
        media_taken: set[str] = set()
        for number, (place, row) in enumerate(rows(self.files()[0], header=("caption", "url"), quoted=False)):
            address = text(row, "url", place)
            digest = hashlib.md5(address.encode(), usedforsecurity=False)
            if digest.digest() in addresses:
                self.drop("rows with the address of an earlier one", place)
                continue
            addresses.add(digest.digest())
            media = self.media_of(f"{number:09d}", place, or_else=(digest.hexdigest(), _last(address)))
            if media is None:
                continue
            if media in media_taken:  # of several addresses that end in photo.jpg
                self.drop("rows whose picture has the name of an earlier one's", place)
                continue
            media_taken.add(media)
            captions = self.texts_of([row["caption"]], place)
            if captions:
                yield Record(key=address, media=media, texts=captions)

    def _derived(self, path: Path) -> Iterator[Record]:
        pictures = need(json_file(path), self.split, str(path))
        if not isinstance(pictures, dict):
            raise DataError(f"{path}: {self.split!r} must be an object, picture -> captions")
        for name in pictures:
            media = self.media_of(name, f"{path}: {name}")
            if media is not None:
                captions = self.texts_of(listed(pictures, name, str(path)), f"{path}: {name}")
                yield Record(key=name, media=media, texts=captions)


def _last(address: str) -> str:
    return address.partition("?")[0].rpartition("/")[2]
