"""The data set `shapes`: an embedded video-text world that needs no download."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from antmmf.cache import cache_folder
from antmmf.contracts import Json, Record, Segment
from antmmf.errors import ConfigError, DataError
from pydantic import Field

from antmmf_tasks.datasets.shapes.language import LANGUAGES, captions, reversed_captions, transcript
from antmmf_tasks.datasets.shapes.questions import choices, questions
from antmmf_tasks.datasets.shapes.world import WORLD_VERSION, Scene, Split, make_scenes
from antmmf_tasks.datasets.shapes.write import (
    ANNOTATIONS,
    CLIPS,
    Annotation,
    damaged_files,
    make_folder,
    read_annotations,
    whats_wrong,
)

RecordKind = Literal["captions", "transcripts", "questions", "options"]


class Shapes:
    """Coloured shapes that move, change or act one after the other, as real H.264 clips with texts in two languages.

    Val and test show combinations of colour, shape and motion that training never shows. Half of their clips are
    order clips: twins with the same frames, told apart only by which of two events comes first; the ``negatives``
    of such a record are its captions with the events reversed.

    ``kind``: ``captions`` (retrieval), ``transcripts`` (timed sentences; val and test have a caption as well),
    ``questions`` (one record a question, its type in ``extras["kind"]``) or ``options`` (the same, with four
    options, one of them equal to ``answer``). ``texts_per_video`` None: all phrasings in train, one in val and test.
    With ``language="both"`` a record has the texts of both.
    """

    def __init__(
        self,
        *,
        split: Split,
        root: Path | None = None,
        language: Literal["en", "zh", "both"] = "en",
        kind: RecordKind = "captions",
        texts_per_video: Annotated[int, Field(gt=0)] | None = None,
        seed: Annotated[int, Field(ge=0)] = 0,
        num_train: Annotated[int, Field(gt=0)] = 3000,
        num_val: Annotated[int, Field(gt=0)] = 200,
        num_test: Annotated[int, Field(gt=0)] = 600,
        size: Annotated[int, Field(ge=32, le=512, multiple_of=2)] = 64,
        fps: Annotated[int, Field(gt=0, le=60)] = 8,
        seconds: Annotated[float, Field(gt=0, le=60)] = 2.0,
    ) -> None:
        num_frames = round(fps * seconds)
        if num_frames < 8:
            raise ConfigError(
                f"shapes: fps x seconds must give 8 frames or more, {fps} x {seconds:g} gives {num_frames}"
            )
        self.split, self.kind, self.texts_per_video = split, kind, texts_per_video
        self.languages = LANGUAGES if language == "both" else (language,)
        self.num = {"train": num_train, "val": num_val, "test": num_test}[split]
        self.seed, self.size, self.fps, self.num_frames = seed, size, fps, num_frames
        made_of = [WORLD_VERSION, split, self.num, seed, size, fps, num_frames]
        self.folder = (
            root or cache_folder() / "shapes"
        ) / f"{split}-{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]}"

    def prepare(self) -> None:
        """Make the clips, or find them whole; safe in several processes at once. A damaged folder is made again."""
        if whats_wrong(self.folder) is None:
            return
        scenes = make_scenes(self.num, split=self.split, seed=self.seed)
        seconds = self.num_frames / self.fps
        annotations = [_annotate(scene, seconds=seconds) for scene in scenes]
        make_folder(self.folder, annotations, size=self.size, fps=self.fps, num_frames=self.num_frames)

    def verify(self) -> list[str]:
        """Read every file and return the names of those that are not as they were made; empty when all is well."""
        return damaged_files(self.folder)

    def sources(self) -> Sequence[Path]:
        """The annotations; clips are named in them."""
        return [self.folder / ANNOTATIONS]

    def records(self) -> Iterator[Record]:
        """Every record of the split; ``DataError`` when ``prepare`` was not called."""
        path = self.folder / ANNOTATIONS
        if not path.exists():
            raise DataError(f"{path} does not exist; call prepare() before records()")
        for annotation in read_annotations(path):
            media = str(self.folder / annotation["media"])
            if self.kind in ("questions", "options"):
                yield from self._question_records(annotation, media)
            else:
                yield self._text_record(annotation, media)

    def draw(self, record: Record, rng: np.random.Generator) -> Record:
        """One text with its own false caption, or one timed sentence of a transcript; questions stay as they are."""
        if record.transcript:
            segment = record.transcript[int(rng.integers(len(record.transcript)))]
            return replace(record, texts=(segment.text,), start=segment.start, end=segment.end, transcript=())
        if not record.texts:
            return record
        i = int(rng.integers(len(record.texts)))
        return replace(record, texts=(record.texts[i],), negatives=record.negatives[i : i + 1])

    def _text_record(self, annotation: Annotation, media: str) -> Record:
        parts = [annotation["texts"][language] for language in self.languages]
        if self.kind == "transcripts" and self.split == "train":
            texts, negatives = [], []
        else:
            keep = [self._kept(len(part["captions"]), annotation["scene"]["phrasing"]) for part in parts]
            texts = [part["captions"][i] for part, kept in zip(parts, keep, strict=True) for i in kept]
            negatives = [
                part["reversed"][i] for part, kept in zip(parts, keep, strict=True) if part["reversed"] for i in kept
            ]
        spoken = [Segment(*line) for part in parts for line in part["transcript"]] if self.kind == "transcripts" else []
        return Record(
            key=annotation["key"],
            media=media,
            texts=tuple(texts),
            negatives=tuple(negatives),
            transcript=tuple(spoken),
            language=self._language,
            extras=_extras(annotation),
        )

    def _kept(self, num: int, phrasing: int) -> list[int]:
        """Which phrasings a record shows: from its own on, as many as asked for."""
        count = self.texts_per_video or (num if self.split == "train" else 1)
        return [(phrasing + i) % num for i in range(min(count, num))]

    def _question_records(self, annotation: Annotation, media: str) -> Iterator[Record]:
        for language in self.languages:
            for i, asked in enumerate(annotation["texts"][language][self.kind]):
                yield Record(
                    key=f"{annotation['key']}-{language}-{i}",
                    media=media,
                    question=asked["question"],
                    answer=asked["answer"],
                    options=tuple(asked["options"]),
                    language=language,
                    extras={**_extras(annotation), "kind": asked["kind"]},
                )

    @property
    def _language(self) -> str:
        return self.languages[0] if len(self.languages) == 1 else "both"


def _annotate(scene: Scene, *, seconds: float) -> Annotation:
    texts = {
        language: {
            "captions": captions(scene, language=language),
            "reversed": reversed_captions(scene, language=language),
            "transcript": transcript(scene, language=language, seconds=seconds),
            "questions": [asdict(each) for each in questions(scene, language=language)],
            "options": [asdict(each) for each in choices(scene, language=language)],
        }
        for language in LANGUAGES
    }
    return {"key": scene.key, "media": f"{CLIPS}/{scene.key}.mp4", "scene": scene.to_json(), "texts": texts}


def _extras(annotation: Annotation) -> Mapping[str, Json]:
    return {"clip_kind": annotation["scene"]["kind"], "twin": annotation["scene"]["twin"]}
