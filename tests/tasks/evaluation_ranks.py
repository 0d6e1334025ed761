"""Evaluates tiny models of all three tasks on this process's share of a few splits; run by test_evaluation_ranks.py.

``python evaluation_ranks.py FOLDER OUT`` writes the figures and predictions of each task and split to OUT.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from antmmf.assets import RunAssets
from antmmf.contracts import Clip, Metric, Pick, Record, Source
from antmmf.data.index import open_index
from antmmf.data.loader import Loader
from antmmf.data.media import SampleReader
from antmmf.data.quarantine import Quarantine
from antmmf.distributed.world import World, joined_world
from antmmf.errors import DataError
from antmmf.evaluate import measure, split_rows
from antmmf.task import Task
from antmmf_tasks.losses.infonce import InfoNCE
from antmmf_tasks.metrics.accuracy import Accuracy
from antmmf_tasks.metrics.recall import Recall
from antmmf_tasks.tasks.mcqa import Mcqa
from antmmf_tasks.tasks.retrieval import Retrieval
from antmmf_tasks.tasks.vqa import Vqa
from tiny import FusingText, TinyVision

SPLITS = {"many": 17, "few": 2}  # clips, of which the sixth is broken; a third process gets none of the few
WORDS = [length * "a" for length in range(1, 12)]
ANSWERS = ["red", "blue", "green", "two"]


def record(number: int) -> Record:
    """One to three captions, the third also that of others; a question about the clip, and its options."""
    draw = np.random.default_rng(number)
    captions = tuple(" ".join(draw.choice(WORDS, size=draw.integers(2, 7))) for _ in range(1 + number % 3))
    texts = (*captions[:2], "a common caption") if number % 3 == 2 else captions
    options = tuple(" ".join(draw.choice(WORDS, size=2)) + str(place) for place in range(2 + number % 4))
    answer = options[number % len(options)]
    kind = ("what", "who", "how")[number % 3]
    return Record(f"v{number}", f"v{number}", texts=texts, options=options, answer=answer, extras={"kind": kind})


@dataclass(frozen=True)
class Clips:
    """The records of a split; ``asks`` makes them questions with an answer of ``ANSWERS``, or one that nobody knows."""

    num: int
    asks: bool
    backwards: bool

    def sources(self) -> Sequence[Path]:
        return []

    def records(self) -> Iterator[Record]:
        for number in sorted(range(self.num), reverse=self.backwards):
            found = record(number)
            asked = {"question": found.texts[0], "answer": [*ANSWERS, "unheard of"][number % 5], "texts": ()}
            yield Record(**{**{name: getattr(found, name) for name in found.__slots__}, **(asked if self.asks else {})})


class Noise:
    """Two frames of noise, of the third and of the tenth clip the same."""

    def read(self, source: Source, pick: Pick) -> Clip:
        number = int(source.path.name[1:])
        if number == 5:
            raise DataError(f"{source}: no video stream", reason="no_video")
        frames = np.random.default_rng(number % 7).integers(0, 256, (2, 4, 4, 3), np.uint8)
        return Clip(frames[pick(np.arange(2.0))], 2)


def both_frames(times: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:  # noqa: ARG001
    """The sampler: one clip of all frames."""
    return np.arange(len(times))[None]


def make_tasks() -> dict[str, tuple[Task, Metric]]:
    """Retrieval by vectors, with all pairs read and with the best of each query, and both tasks of questions."""

    def parts() -> dict[str, Any]:
        torch.manual_seed(3)
        return {"vision": TinyVision(4), "text": FusingText(4), "dropout": 0.0}

    assets = RunAssets(texts=lambda: iter(()), answers=lambda: iter(ANSWERS))
    retrieval: dict[str, Any] = {"loss": InfoNCE(), "dim": 4}
    return {
        "l1": (Retrieval(**parts(), **retrieval), Recall(dual_softmax=0.1)),
        "l2": (Retrieval(**parts(), **retrieval, match=1.0), Recall()),
        "rerank": (Retrieval(**parts(), **retrieval, match=1.0, rerank=3), Recall()),
        "mcqa": (Mcqa(**parts()), Accuracy()),
        "mcqa by vectors": (Mcqa(**parts(), score="contrast", head="linear"), Accuracy()),
        "vqa": (Vqa(**parts(), assets=assets), Accuracy()),
    }


def evaluated(folder: Path, world: World, *, batch_size: int = 3, backwards: bool = False) -> dict[str, Any]:
    """The figures, and the lines that are predicted, of each task on each split."""
    torch.set_default_dtype(torch.float64)
    try:
        found = {}
        for name, (task, metric) in make_tasks().items():
            for split, num in SPLITS.items():
                dataset = Clips(num, asks=name == "vqa", backwards=backwards)
                index = open_index(dataset, name="clips", version="1", parameters=asdict(dataset), folder=folder)
                reader = SampleReader(
                    index, dataset=None, reader=Noise(), reader_name="noise", sampler=both_frames, transform=None,
                    seed=0, train=False,
                )  # fmt: skip
                shared = {
                    "rank": world.rank,
                    "num_ranks": world.size,
                    "quarantine": Quarantine(policy="skip", max_bad_rate=1.0),
                }
                loader = Loader(reader, task.collator(False), batch_size=batch_size, train=False, seed=0, **shared)  # type: ignore[arg-type]
                rows = split_rows(task, loader, device="cpu", world=world)
                figures = {name: asdict(figure) for name, figure in measure([metric], rows, world).items()}
                place = {int(id): number for number, id in enumerate(index.ids)}
                lines = list(task.predictions(rows, lambda id, own=index, at=place: own.record(at[id])))
                found[f"{name}, {split}"] = {"figures": figures, "lines": lines}
    finally:
        torch.set_default_dtype(torch.float32)
    return found


def main(folder: str, out: str) -> None:
    torch.set_num_threads(1)
    with joined_world("cpu") as world:
        every = world.collect(evaluated(Path(folder), world))
        if world.is_first:
            Path(out).write_text(json.dumps(every), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
