"""A data set whose frames are in memory, and what our data path costs a sample of it: ``python -m toys.data 4000``."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from antmmf.batch import Batch
from antmmf.contracts import Clip, Record, Sample, Source
from antmmf.data.index import Index, open_index
from antmmf.data.keyed import generator
from antmmf.data.loader import Loader
from antmmf.data.media import SampleReader
from antmmf.data.order import Permutation
from torch import Tensor

BATCH = 8
ROUNDS = 5


@dataclass
class ToyDataset:
    """``num`` clips, each with one text."""

    folder: Path
    num: int

    def sources(self) -> Sequence[Path]:
        return []

    def records(self) -> Iterator[Record]:
        for number in range(self.num):
            yield Record(key=f"clip{number}", media=f"clip{number}", texts=(f"text {number}",))


class ToyReader:
    """Four frames of ``size`` x ``size`` at 1 per second; their brightness is the clip's number, modulo 251."""

    def __init__(self, size: int = 1) -> None:
        self.size = size

    def read(self, source: Source, pick: Callable[[np.ndarray], np.ndarray]) -> Clip:
        number = int(source.path.name.removeprefix("clip"))
        picked = pick(np.arange(4.0))
        shape = (len(picked), self.size, self.size, 3)
        frames = np.arange(number, number + np.prod(shape)).reshape(shape) % 251
        return Clip(frames=frames.astype(np.uint8), num_total=4)


class OneFrame:
    """One clip of one frame, drawn in training."""

    def __call__(self, times: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        return np.array([[0 if rng is None else int(rng.integers(len(times)))]])


class Noise:
    """Random augmentation: a random number is added to each value, modulo 256."""

    def __call__(self, frames: Tensor, rng: np.random.Generator | None) -> Tensor:
        if rng is None:
            return frames
        return frames + torch.from_numpy(rng.integers(0, 256, tuple(frames.shape), np.uint8))


class ToyCollator:
    """Frames and ids; the texts become two numbers each."""

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        ids = torch.tensor([sample.id for sample in samples])
        tokens = torch.tensor([[len(text), len(text) % 7] for sample in samples for text in sample.texts])
        return Batch(
            ids=ids,
            frames=torch.stack([sample.frames for sample in samples]),
            sizes=torch.full((len(samples), 2), samples[0].frames.shape[-1]),
            tokens=tokens,
            token_mask=torch.ones_like(tokens, dtype=torch.bool),
            owner=torch.arange(len(samples)),
        )


def toy_index(folder: Path, num: int) -> Index:
    """The real index of a toy data set."""
    dataset = ToyDataset(folder, num)
    return open_index(dataset, name="toys:toy", version="1", parameters={"num": num}, folder=folder / "index")


def toy_reader(index: Index, *, size: int = 1, noise: bool = False, seed: int = 7) -> SampleReader:
    """The real reader over frames in memory, for training."""
    return SampleReader(
        index,
        dataset=ToyDataset(index.path, len(index)),
        reader=ToyReader(size),
        reader_name="toy",
        sampler=OneFrame(),
        transform=Noise() if noise else None,
        seed=seed,
        train=True,
    )


def data_path(num: int) -> dict[str, float]:
    """Microseconds a sample, least of some rounds: of the whole path, and of its parts one by one."""
    with tempfile.TemporaryDirectory() as folder:
        index = toy_index(Path(folder), num)
        reader = toy_reader(index)
        loader = Loader(reader, ToyCollator(), batch_size=BATCH, train=True, seed=7)
        collate = ToyCollator()
        samples = [reader.read(row, epoch=1) for row in range(BATCH)]
        rows = range(0, num, 3)
        order = Permutation(num, seed=7, epoch=1)
        steps = [np.arange(first, first + BATCH) for first in range(0, num - BATCH, BATCH)]
        return {
            "total": _least(lambda: [None for _ in loader.epoch(1)], num),
            "reading": _least(lambda: [reader.read(row, epoch=1) for row in rows], len(rows)),
            "record from the index": _least(lambda: [index.record(row) for row in rows], len(rows)),
            "three random generators": _least(lambda: [generator(7, 1, row, "x") for row in rows], len(rows)) * 3,
            "order": _least(lambda: [order(positions) for positions in steps], len(steps) * BATCH),
            "collating": _least(lambda: [collate(samples) for _ in rows], len(rows) * BATCH),
        }


def _least(action: Callable[[], Any], num: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - started)
    return round(best / num * 1e6, 1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(data_path(int(sys.argv[1]))))
