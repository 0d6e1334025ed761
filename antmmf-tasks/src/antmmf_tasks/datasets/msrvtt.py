"""MSR-VTT: 10,000 video clips with 20 captions each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

from antmmf.contracts import Json, Record
from antmmf.errors import DataError

from antmmf_tasks.datasets.files import json_file, rows
from antmmf_tasks.datasets.release import Missing, Release, Sizes, Split, listed, text

Protocol = Literal["1k-A", "7k-1k", "full"]

_WHOLE = ("MSRVTT_data.json",)
_PARTS = ("train_val_videodatainfo.json", "test_videodatainfo.json")
_TEST_1K = "MSRVTT_JSFUSION_test.csv"
_PUBLISHED = {"train": "train", "val": "validate", "test": "test"}


class Msrvtt(Release):
    """MSR-VTT retrieval (Xu et al., CVPR 2016).

    Expects ``MSRVTT_data.json``, or ``train_val_videodatainfo.json`` and ``test_videodatainfo.json``, and for the
    protocols with 1,000 test videos ``MSRVTT_JSFUSION_test.csv`` (one caption each; Yu et al., ECCV 2018); all are in
    the ``MSRVTT.zip`` of Frozen in Time. Media are ``video0.mp4`` to ``video9999.mp4``.

    ``1k-A`` (also called 9k) trains on the 9,000 other videos, ``7k-1k`` on the 7,010 of the published train and val
    splits, ``full`` is the published division 6,513 / 497 / 2,990. The first two have no validation split: here it is
    the published one, 497 videos with one caption each, held out of training (8,503 and 6,513 are left).
    ``hold_out: false`` trains on all, as most papers do, and leaves no ``val``. Terms: research only; the videos are
    their uploaders'.
    """

    home = "https://www.robots.ox.ac.uk/~maxbain/frozen-in-time/data/MSRVTT.zip"
    terms = "for research; the videos belong to those who uploaded them to YouTube"
    hashes = MappingProxyType(
        {
            _PARTS[0]: "542997a95196eb7983c16860ad416c7b32c6c07236bcf189cbfae904ea2e8335",
            _TEST_1K: "e61144b312c8a2fc2126f96504c981f8c23c05b3ba9655a56e2af50ac8a4b16a",
        }
    )
    sizes: ClassVar[Sizes] = {
        "1k-A train": (8503, 170060),
        "1k-A train, nothing held out": (9000, 180000),
        "1k-A val": (497, 497),
        "1k-A test": (1000, 1000),
        "7k-1k train": (6513, 130260),
        "7k-1k train, nothing held out": (7010, 140200),
        "7k-1k val": (497, 497),
        "7k-1k test": (1000, 1000),
        "full train": (6513, 130260),
        "full val": (497, 9940),
        "full test": (2990, 59800),
    }

    def __init__(
        self,
        *,
        data_root_dir: Path,
        split: Split,
        protocol: Protocol = "1k-A",
        hold_out: bool = True,
        media_dir: Path | None = None,
        missing: Missing = "fail",
    ) -> None:
        super().__init__(data_root_dir=data_root_dir, split=split, media_dir=media_dir, missing=missing)
        self.protocol, self.hold_out = protocol, hold_out
        if split == "val" and protocol != "full" and not hold_out:
            raise DataError(f"msrvtt: with hold_out false the val videos of protocol {protocol} are trained on")

    @property
    def part(self) -> str:
        """Protocol and split."""
        whole = self.split == "train" and self.protocol != "full" and not self.hold_out
        return f"{self.protocol} {self.split}" + (", nothing held out" if whole else "")

    def files(self) -> Sequence[Path]:
        """The annotations, and the list of test videos where the protocol has one of its own."""
        whole = self.find_file(*_WHOLE)
        if whole is not None:
            found = [whole]
        elif self.protocol == "full" and self.split == "test":
            found = [self.file(_PARTS[1], *_WHOLE)]
        else:
            found = [self.file(_PARTS[0], *_WHOLE)]
            needs_all = self.protocol == "1k-A" and self.split == "train"
            found += [self.file(_PARTS[1])] if needs_all else []
        if self.protocol == "full" or self.split == "val":
            return found
        return [*found, self.file(_TEST_1K)] if self.split == "train" else [self.file(_TEST_1K)]

    def items(self) -> Iterator[Record]:
        """One record a video, in the order of the annotations."""
        if self.split == "test" and self.protocol != "full":
            yield from self._test_1k()
            return
        for video, (published, captions, place) in self._videos.items():
            media = self.media_of(video, place) if self._is_in(video, published) else None
            if media is not None:
                kept = captions[:1] if self.split == "val" and self.protocol != "full" else captions
                yield Record(key=video, media=media, texts=self.texts_of(kept, place))

    def _is_in(self, video: str, published: str) -> bool:
        if self.protocol == "full" or self.split == "val":
            return published == _PUBLISHED[self.split]
        is_held_out = self.hold_out and published == "validate"
        in_list = published != "test" if self.protocol == "7k-1k" else video not in self._test_videos
        return in_list and not is_held_out

    def _test_1k(self) -> Iterator[Record]:
        seen: set[str] = set()
        for place, row in rows(self.file(_TEST_1K)):
            video = self.only_new(seen, text(row, "video_id", place), place)
            media = self.media_of(video, place)
            if media is not None:
                yield Record(key=video, media=media, texts=self.texts_of([text(row, "sentence", place)], place))

    @cached_property
    def _test_videos(self) -> set[str]:
        return {text(row, "video_id", place) for place, row in rows(self.file(_TEST_1K))}

    @cached_property
    def _videos(self) -> dict[str, tuple[str, list[Json], str]]:
        """Video -> its published split, its captions, and where it stands."""
        videos: dict[str, tuple[str, list[Json], str]] = {}
        for path in (path for path in self.files() if path.suffix == ".json"):
            content = json_file(path)
            for number, video in enumerate(listed(content, "videos", str(path)), 1):
                place = f"{path}: video {number}"
                name = text(video, "video_id", place)
                if name in videos:
                    raise DataError(f"{place}: {name!r} is there twice")
                videos[name] = text(video, "split", place), [], place
            for number, sentence in enumerate(listed(content, "sentences", str(path)), 1):
                place = f"{path}: sentence {number}"
                name = text(sentence, "video_id", place)
                if name not in videos:
                    raise DataError(f"{place}: {name!r} is none of the file's videos")
                videos[name][1].append(sentence.get("caption"))  # type: ignore[attr-defined]
        return videos
