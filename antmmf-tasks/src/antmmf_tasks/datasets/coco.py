"""COCO Captions: pictures with five captions each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from antmmf.contracts import Json, Record
from antmmf.errors import DataError

from antmmf_tasks.datasets.files import json_file
from antmmf_tasks.datasets.release import Missing, Release, Sizes, Split, listed, need, text

KARPATHY = "dataset_coco.json"


class Coco(Release):
    """COCO Captions (Chen et al., 2015).

    ``release: karpathy`` expects ``dataset_coco.json`` (Karpathy and Fei-Fei, CVPR 2015): 113,287 / 5,000 / 5,000
    pictures, where ``train`` has ``restval`` in it. ``2017`` and ``2014`` expect ``captions_train<year>.json`` and
    ``captions_val<year>.json``: 118,287 / 5,000 and 82,783 / 40,504 pictures, and no test captions. Media are
    ``train2014/COCO_train2014_000000000009.jpg`` or ``train2017/000000000009.jpg``. Terms: annotations CC BY 4.0; the
    pictures are under the terms of Flickr.
    """

    home = "https://cocodataset.org/#download"
    terms = "annotations under CC BY 4.0; the pictures under the terms of Flickr"
    kind = "image"
    downloads = (
        "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
        "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
    )
    sizes: ClassVar[Sizes] = {
        "karpathy train": (113287, 566747),
        "karpathy val": (5000, 25010),
        "karpathy test": (5000, 25010),
        "2017 train": (118287, 591753),
        "2017 val": (5000, 25014),
        "2014 train": (82783, 414113),
        "2014 val": (40504, 202654),
    }

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: Split,
        release: Literal["karpathy", "2017", "2014"] = "karpathy",
        media_dir: Path | None = None,
        missing: Missing = "fail",
    ) -> None:
        super().__init__(data_root_dir=data_root_dir, split=split, media_dir=media_dir, missing=missing)
        self.release = release
        if split == "test" and release != "karpathy":
            raise DataError(
                f"coco: the captions of {release}'s test pictures are not public; release karpathy has a test split"
            )

    @property
    def part(self) -> str:
        """Release and split."""
        return f"{self.release} {self.split}"

    def files(self) -> Sequence[Path]:
        """The annotations."""
        return [self.file(KARPATHY if self.release == "karpathy" else f"captions_{self.split}{self.release}.json")]

    def items(self) -> Iterator[Record]:
        """One record a picture, in the order of the file."""
        path = self.files()[0]
        content = json_file(path)
        seen: set[str] = set()
        for name, captions, place in (
            _karpathy(path, content, self.split) if self.release == "karpathy" else _captions(path, content)
        ):
            self.only_new(seen, name, place)
            media = self.media_of(name if self.release == "karpathy" else f"{self.split}{self.release}/{name}", place)
            if media is not None:
                yield Record(key=name.rpartition("/")[2], media=media, texts=self.texts_of(captions, place))


def _karpathy(path: Path, content: Json, split: str) -> Iterator[tuple[str, list[Json], str]]:
    wanted = ("train", "restval") if split == "train" else (split,)
    for number, image in enumerate(listed(content, "images", str(path)), 1):
        place = f"{path}: image {number}"
        if text(image, "split", place) in wanted:
            folder = image.get("filepath") or ""  # type: ignore[attr-defined]
            captions = [need(sentence, "raw", place) for sentence in listed(image, "sentences", place)]
            yield f"{folder}/{text(image, 'filename', place)}".lstrip("/"), captions, place


def _captions(path: Path, content: Json) -> Iterator[tuple[str, list[Json], str]]:
    captions: dict[str, list[Json]] = {}
    for number, image in enumerate(listed(content, "images", str(path)), 1):
        place = f"{path}: image {number}"
        id = text(image, "id", place)
        if id in captions:
            raise DataError(f"{place}: id {id} is there twice")
        captions[id] = [image, place]
    for number, annotation in enumerate(listed(content, "annotations", str(path)), 1):
        place = f"{path}: annotation {number}"
        id = text(annotation, "image_id", place)
        if id not in captions:
            raise DataError(f"{place}: there is no image {id}")
        captions[id].append(annotation.get("caption"))  # type: ignore[attr-defined]
    for image, place, *texts in captions.values():
        yield text(image, "file_name", place), texts, place
