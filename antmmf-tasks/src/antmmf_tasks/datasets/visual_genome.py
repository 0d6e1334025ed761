"""Visual Genome: pictures with descriptions of about fifty regions each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from antmmf.contracts import Record
from antmmf.errors import DataError
from pydantic import Field

from antmmf_tasks.datasets.coco import KARPATHY
from antmmf_tasks.datasets.files import json_file, json_items
from antmmf_tasks.datasets.release import Missing, Release, held_out, listed, text


class VisualGenome(Release):
    """Visual Genome's region descriptions as captions of the whole picture (Krishna et al., IJCV 2017).

    Expects ``region_descriptions.json`` (1.2 or 1.4): 108,077 pictures, 5.4 M phrases, each kept once a picture. Media
    are ``VG_100K/<image id>.jpg`` or ``VG_100K_2/<image id>.jpg``. There is no published split: ``val`` is
    ``val_share`` of the pictures, chosen by a hash of their ids and held out of ``train``. ``drop_coco`` leaves out
    those that are val or test pictures of COCO, which ``image_data.json`` and ``dataset_coco.json`` tell; the latter
    may lie in a folder ``coco`` beside this one. Terms: CC BY 4.0; the pictures are under the terms of Flickr.
    """

    home = "https://homes.cs.washington.edu/~ranjay/visualgenome/api.html"
    terms = "annotations under CC BY 4.0; the pictures under the terms of Flickr"
    kind = "image"
    downloads = (
        "https://homes.cs.washington.edu/~ranjay/visualgenome/data/dataset/region_descriptions.json.zip",
        "https://homes.cs.washington.edu/~ranjay/visualgenome/data/dataset/image_data.json.zip",
    )

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: Literal["train", "val"],
        val_share: Annotated[float, Field(ge=0, lt=1)] = 0.01,
        drop_coco: bool = False,
        media_dir: Path | None = None,
        missing: Missing = "fail",
    ) -> None:
        super().__init__(data_root_dir=data_root_dir, split=split, media_dir=media_dir, missing=missing)
        self.val_share, self.drop_coco = val_share, drop_coco

    def files(self) -> Sequence[Path]:
        """The descriptions, and what tells the pictures of COCO."""
        coco = [self.file("image_data.json"), self._karpathy()] if self.drop_coco else []
        return [self.file("region_descriptions.json"), *coco]

    def items(self) -> Iterator[Record]:
        """One record a picture, in the order of the file."""
        left_out = self._coco() if self.drop_coco else set()
        seen: set[str] = set()
        any_here = False
        for place, _, image in json_items(self.files()[0]):
            regions = listed(image, "regions", place)
            if not regions:
                self.drop("pictures without descriptions", place)
                continue
            field = next((field for field in ("id", "image_id") if field in image), None)
            name = text(image, field, place) if field else text(regions[0], "image_id", place)
            self.only_new(seen, name, place)
            if held_out(name, self.val_share) != (self.split == "val") or name in left_out:
                continue
            any_here = True
            media = self.media_of(f"{name}.jpg", place)
            phrases = dict.fromkeys(self.texts_of((_phrase(region, place) for region in regions), place))
            if media is not None and phrases:
                yield Record(key=name, media=media, texts=tuple(phrases))
        if not any_here:
            message = f"val_share {self.val_share:g} of its {len(seen)} pictures is not one for {self.split}; change it"
            raise DataError(f"{self.files()[0]}: {message}")

    def _karpathy(self) -> Path:
        """COCO's file, here or where one data root has a folder for each data set."""
        beside = Path("..", "coco")
        return self.file(KARPATHY, str(beside / KARPATHY), str(beside / "annotations" / KARPATHY))

    def _coco(self) -> set[str]:
        """Pictures that are in COCO's val or test split."""
        path = self._karpathy()
        images = listed(json_file(path), "images", str(path))
        ids = {
            text(image, "cocoid", str(path)) for image in images if text(image, "split", str(path)) in ("val", "test")
        }
        left_out = set()
        for place, _, image in json_items(self.file("image_data.json")):
            name = text(image, "image_id", place)
            if str(image.get("coco_id")) in ids:
                left_out.add(name)
        return left_out


def _phrase(region: object, place: str) -> object:
    if not isinstance(region, dict):
        raise DataError(f"{place}: a region must have 'phrase', is {type(region).__name__}; is it the right file?")
    return region.get("phrase")
