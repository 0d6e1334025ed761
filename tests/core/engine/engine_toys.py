"""A data set, a reader, a task and a metric as small as the contracts allow; random where real ones are."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from antmmf.batch import Batch
from antmmf.contracts import Clip, Figure, Metric, Record, Sample, Source, Term
from antmmf.data.index import open_index
from antmmf.data.keyed import hashed
from antmmf.data.loader import Loader
from antmmf.data.media import SampleReader
from antmmf.errors import DataError
from antmmf.evaluate import measure, split_rows
from antmmf.task import Task, TaskOutput
from torch import Tensor, nn


@dataclass
class ToyDataset:
    """``keys`` are also the media; a key with ``bad`` in it does not decode."""

    folder: Path
    keys: Sequence[str]

    def __post_init__(self) -> None:
        (self.folder / "list.txt").write_text("\n".join(self.keys))

    def sources(self) -> Sequence[Path]:
        return [self.folder / "list.txt"]

    def records(self) -> Iterator[Record]:
        for key in self.keys:
            yield Record(key=key, media=key, texts=(f"{key} one", f"{key} two", f"{key} three"))


class ToyReader:
    """Ten frames of 4 x 4 at 10 per second, noise that depends on the file's name."""

    def read(self, source: Source, pick: Callable[[np.ndarray], np.ndarray]) -> Clip:
        if "bad" in str(source):
            raise DataError(f"{source}: no video stream", reason="no_video")
        noise = np.random.Generator(np.random.Philox(hashed(source.path.name))).integers(
            0, 256, (10, 4, 4, 3), np.uint8
        )
        return Clip(frames=noise[pick(np.arange(10) / 10)], num_total=10)


class DeadlyReader(ToyReader):
    """Kills its process, as the system does when memory runs out."""

    def read(self, source: Source, pick: Callable[[np.ndarray], np.ndarray]) -> Clip:  # noqa: ARG002
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("killed")


class ToySampler:
    """One clip of two frames."""

    def __call__(self, times: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        if rng is None:
            return np.array([[0, len(times) - 1]])
        return np.sort(rng.integers(0, len(times), (1, 2)))


class ToyTransform:
    """Mirrors half of the clips."""

    def __call__(self, frames: Tensor, rng: np.random.Generator | None) -> Tensor:
        return frames.flip(-1) if rng is not None and rng.random() < 0.5 else frames


class ToyCollator:
    def __call__(self, samples: Sequence[Sample]) -> Batch:
        texts = [(row, text) for row, sample in enumerate(samples) for text in sample.texts]
        frames = torch.stack([sample.frames for sample in samples])
        tokens = torch.tensor([[hashed(text) % 50, hashed(text, 1) % 50] for _, text in texts])
        return Batch(
            ids=torch.tensor([sample.id for sample in samples]),
            frames=frames,
            sizes=torch.full((len(samples), 2), 4),
            tokens=tokens,
            token_mask=torch.ones_like(tokens, dtype=torch.bool),
            owner=torch.tensor([row for row, _ in texts]),
        )


class ToyTask(Task):
    """Two terms with different counts, dropout, and tied weights."""

    def __init__(self, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.vision = nn.Linear(2 * 3 * 16, 8)
        self.text = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 50)
        self.head.weight = self.text.weight
        self.dropout = nn.Dropout(dropout)

    def collator(self, train: bool) -> ToyCollator:  # noqa: ARG002
        return ToyCollator()

    def forward(self, batch: Batch) -> TaskOutput:
        video = self.dropout(self.vision(batch.frames.flatten(1) / 255))  # (B, 8), in the default type
        if not self.training:
            return TaskOutput(rows={"video": video, "video_id": batch.ids})
        own = video[batch.owner]  # (N, 8)
        distance = (own - self.text(batch.tokens).mean(1)).square().sum()
        even = batch.tokens[:, 0] % 2 == 0
        said = nn.functional.cross_entropy(self.head(own), batch.tokens[:, 0], reduction="none")
        return TaskOutput(
            terms={
                "distance": Term(distance, float(len(own))),
                "said": Term((said * even).sum(), even.sum(), 0.5),
            }
        )


@dataclass
class ToyMetric:
    """The number of rows, and the mean of all videos."""

    rows: list[Mapping[str, Tensor]] = field(default_factory=list)

    def update(self, rows: Mapping[str, Tensor]) -> None:
        self.rows.append(rows)

    def compute(self) -> dict[str, Figure]:
        video = torch.cat([rows["video"] for rows in self.rows])
        return {"num": Figure(len(video)), "mean": Figure(float(video.mean()), n=len(video))}

    def reset(self) -> None:
        self.rows.clear()


def toy_reader(folder: Path, *, keys: Sequence[str], train: bool, seed: int = 7) -> SampleReader:
    folder.mkdir(parents=True, exist_ok=True)
    dataset = ToyDataset(folder, keys)
    index = open_index(dataset, name="toys:toy", version="1", parameters={}, folder=folder / "index")
    return SampleReader(
        index,
        dataset=dataset,
        reader=ToyReader(),
        reader_name="toy",
        sampler=ToySampler(),
        transform=ToyTransform(),
        seed=seed,
        train=train,
    )


def toy_loader(
    folder: Path, *, num: int = 20, keys: Sequence[str] | None = None, train: bool = True, seed: int = 7, **options: Any
) -> Loader:
    keys = [f"clip{i}" for i in range(num)] if keys is None else keys
    reader = toy_reader(folder, keys=keys, train=train, seed=seed)
    return Loader(reader, ToyCollator(), train=train, seed=seed, **{"batch_size": 4, **options})


def evaluate(task: Task, loader: Loader, metrics: Sequence[Metric]) -> dict[str, Figure]:
    """The figures of a split on the CPU."""
    return measure(metrics, split_rows(task, loader, device="cpu"))


def load_file(path: Path) -> None:
    """Import a file under the name ``file_plugin``, as ``--plugin FILE.py`` does in the main process."""
    spec = importlib.util.spec_from_file_location("file_plugin", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["file_plugin"] = module
    spec.loader.exec_module(module)
