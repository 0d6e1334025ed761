"""Upstream's defects of data and evaluation: every check holds for ours and fails on a copy of the wrong rule."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from antmmf.batch import Batch
from antmmf.contracts import Record, Sample
from antmmf.data.index import open_index
from antmmf.data.keyed import hashed, sample_id
from antmmf.data.loader import Loader
from antmmf.data.media import SampleReader
from antmmf.distributed.world import World
from antmmf.evaluate import measure, split_rows
from antmmf.task import Task, TaskOutput
from antmmf_tasks.metrics.recall import Recall
from defect_ranks import HOLES, RATE, STEPS, Energy, ShortPairs, made, train, train_loader, val_loader, weights_of
from defect_toys import wrong
from engine_toys import ToyCollator, ToyDataset, ToyReader, ToySampler, ToyTask, toy_loader
from torch import Tensor

RANKS = Path(__file__).with_name("defect_ranks.py")


def loader_of(dataset: ToyDataset, collate: ToyCollator, *, train: bool) -> Loader:
    index = open_index(dataset, name="toys:toy", version="1", parameters={}, folder=dataset.folder / "index")
    reader = SampleReader(
        index, dataset=dataset, reader=ToyReader(), reader_name="toy", sampler=ToySampler(), transform=None, seed=7,
        train=train,
    )  # fmt: skip
    return Loader(reader, collate, batch_size=4, train=train, seed=7)


# --- D12: nested tensors stay where they are --------------------------------------------------------------------------


def test_D12_every_tensor_of_a_batch_is_moved() -> None:
    batch = replace(
        ToyCollator()([Sample(1, Record("a", "a"), torch.zeros(1, 2, 3, 4, 4, dtype=torch.uint8), ("one",))]),
        targets=torch.tensor([1]),
        extras={"options": torch.zeros(1, 5), "answer": torch.tensor([2])},
    )

    def upstream(batch: Batch, device: str) -> Batch:
        values = {item.name: getattr(batch, item.name) for item in fields(batch)}
        return replace(batch, **{name: v.to(device) for name, v in values.items() if isinstance(v, Tensor)})

    def check(move: Callable[[Batch, str], Batch]) -> None:
        moved = move(batch, "meta")
        tensors = {item.name: getattr(moved, item.name) for item in fields(moved) if item.name != "extras"}
        assert [name for name, tensor in {**tensors, **moved.extras}.items() if not tensor.is_meta] == []

    check(Batch.to)
    wrong(check, upstream)


# --- D15: what is right is said by row numbers ------------------------------------------------------------------------

CAPTIONS = {"a": ("a dog", "a cat"), "b": ("a dog",), "c": ("a cow", "a hen", "a pig"), "d": ("a hen",)}


class CaptionDataset(ToyDataset):
    def records(self) -> Iterator[Record]:
        for key in self.keys:
            yield Record(key=key, media=key, texts=CAPTIONS[key])


class CaptionCollator(ToyCollator):
    """Extras say what each text is, and whose."""

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        texts = [(sample.id, hashed(text) >> 1) for sample in samples for text in sample.texts]
        extras = {"text_video_id": [id for id, _ in texts], "text_hash": [text for _, text in texts]}
        return replace(super().__call__(samples), extras={name: torch.tensor(ids) for name, ids in extras.items()})


class Vectors(ToyTask):
    """Every text, and every video, has a random vector that depends on what it is alone."""

    def forward(self, batch: Batch) -> TaskOutput:
        rows = {"video_id": batch.ids, **batch.extras}
        return TaskOutput(rows={**rows, "video": vectors(batch.ids), "text": vectors(batch.extras["text_hash"])})


def vectors(ids: Tensor) -> Tensor:
    draws = [torch.randn(4, generator=torch.Generator().manual_seed(id % 2**32)) for id in ids.tolist()]
    return torch.nn.functional.normalize(torch.stack(draws), dim=1)


def test_D15_recall_depends_neither_on_the_order_of_a_file_nor_on_equal_captions(tmp_path: Path) -> None:
    def ours(rows: Mapping[str, Tensor], order: str) -> float:  # noqa: ARG001
        return measure([Recall(ks=(1,), bootstrap=0)], rows)["v2t/MnR"].value

    def upstream(rows: Mapping[str, Tensor], order: str) -> float:
        """A text's number is its row: as many rows for each video as it has captions, every one a text of its own."""
        video_ids = [id for id, key in zip(rows["video_id"].tolist(), order, strict=True) for _ in CAPTIONS[key]]
        numbers = torch.arange(len(video_ids))
        return ours({**rows, "text_hash": numbers, "text_video_id": torch.tensor(video_ids)}, order)

    def check(mean_rank: Callable[[Mapping[str, Tensor], str], float], order: str) -> None:
        (tmp_path / order).mkdir(exist_ok=True)
        loader = loader_of(CaptionDataset(tmp_path / order, list(order)), CaptionCollator(), train=False)
        rows = split_rows(Vectors(), loader, device="cpu")
        texts = {name: rows[name].flip(0) for name in ("text", "text_hash", "text_video_id")}
        assert mean_rank({**rows, **texts}, order) == pytest.approx(mean_rank_by_hand())

    for order in ("abcd", "cadb", "dcba"):
        check(ours, order)
        wrong(check, upstream, order)


def mean_rank_by_hand() -> float:
    """The mean over videos of one plus the number of false captions that are nearer than the nearest true one."""
    texts = sorted({text for own in CAPTIONS.values() for text in own})
    ranks = []
    for key, own in CAPTIONS.items():
        video = vectors(torch.tensor([sample_id("toys:toy", key)]))[0]
        scores = dict(
            zip(texts, (vectors(torch.tensor([hashed(t) >> 1 for t in texts])) @ video).tolist(), strict=True)
        )
        ranks.append(1 + sum(scores[t] > max(scores[right] for right in own) for t in texts if t not in own))
    return float(np.mean(ranks))


# --- D17, D31: what an epoch is ---------------------------------------------------------------------------------------


def test_D17_an_epoch_has_the_same_steps_on_any_number_of_processes(tmp_path: Path) -> None:
    def upstream(num_ranks: int) -> int:
        return 40 // num_ranks // 8  # samples of a process by the global batch

    def told(num_ranks: int) -> int:
        return loader(num_ranks).steps_per_epoch

    def given(num_ranks: int) -> int:
        return len(list(loader(num_ranks).epoch(1)))

    def loader(num_ranks: int) -> Loader:
        return toy_loader(tmp_path, num=40, batch_size=8, rank=num_ranks - 1, num_ranks=num_ranks)

    def check(steps: Callable[[int], int]) -> None:
        assert [steps(num_ranks) for num_ranks in (1, 2, 8)] == [5, 5, 5]

    check(told)
    check(given)
    wrong(check, upstream)


class ImageDataset(ToyDataset):
    """Five records an image, one for each of its captions."""

    def records(self) -> Iterator[Record]:
        for key in self.keys:
            for caption in range(5):
                yield Record(key=f"{key}#{caption}", media=key, texts=(f"{key} {caption}",))


def test_D31_an_epoch_is_as_long_as_the_records_that_a_data_set_gives(tmp_path: Path) -> None:
    images = [f"image{number}" for number in range(8)]
    loader = loader_of(ImageDataset(tmp_path, images), ToyCollator(), train=True)

    def check(num_steps: int) -> None:
        assert num_steps == 8 * 5 / 4

    check(loader.steps_per_epoch)
    check(len(list(loader.epoch(1))))
    wrong(check, len(images) // 4)  # upstream's rule: a data set is as long as it has images


# --- D32: evaluation in a random order --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 7])
def test_D32_one_process_evaluates_in_the_order_of_the_file(tmp_path: Path, seed: int) -> None:
    loader = toy_loader(tmp_path, num=10, train=False, seed=seed)

    def ours(epoch: int) -> list[int]:
        return [id for step in loader.epoch(epoch) for batch in step.batches for id in batch.ids.tolist()]

    def upstream(epoch: int) -> list[int]:
        order = torch.randperm(10, generator=torch.Generator().manual_seed(seed + epoch))  # whatever ``shuffle`` says
        return [ours(epoch)[row] for row in order]

    def check(ids: Callable[[int], list[int]]) -> None:
        for epoch in (0, 1):
            assert ids(epoch) == [sample_id("toys:toy", f"clip{number}") for number in range(10)]

    check(ours)
    wrong(check, upstream)


# --- D19, D33: two processes with unequal shares ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(RANKS)]
    done = subprocess.run([*launch, str(folder)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What each of two processes found."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_D19_a_process_without_a_good_sample_takes_part_in_the_step(folder: Path, found: list[dict[str, Any]]) -> None:
    loaders = [train_loader(folder, World(rank, 2)) for rank in range(2)]
    skipping = [sum(len(step.batches) > 0 for step in loader.epoch(1)) for loader in loaders]  # upstream: ``continue``

    def check(passes: list[int]) -> None:
        assert passes == [STEPS, STEPS]  # else one waits for the other for ever

    for scene in ("energy", "pairs"):
        check([own[scene]["passes"] for own in found])
        assert [own[scene]["bad"] for own in found] == [len(HOLES)] * 2  # of both processes together
    wrong(check, skipping)


def test_D19_the_loss_of_unequal_shares_is_the_mean_over_all_good_samples(
    folder: Path, found: list[dict[str, Any]]
) -> None:
    def mean(shares: list[Tensor]) -> Tensor:
        return torch.cat(shares).mean()

    def upstream(shares: list[Tensor]) -> Tensor:
        return torch.stack([share.mean() for share in shares]).mean()

    def losses(mean: Callable[[list[Tensor]], Tensor]) -> list[float]:
        task = made(Energy)
        assert isinstance(task, Energy)
        return descend(task, lambda batches: mean([task.values(batch) for batch in batches]), folder)

    def check(losses: list[float]) -> None:
        assert losses == pytest.approx(expected, rel=1e-6)

    expected = losses(mean)
    check(found[0]["energy"]["losses"])
    wrong(check, losses(upstream))


def test_D19_contrasts_of_unequal_shares_are_those_of_the_whole_batch(
    folder: Path, found: list[dict[str, Any]]
) -> None:
    def upstream() -> list[float]:
        task = made(ShortPairs)

        def loss(batches: list[Batch]) -> Tensor:  # of each process's own samples, and then their mean
            terms = [term for batch in batches for term in task(batch).terms.values()]
            return sum(term.weight * term.sum / max(1, term.count) for term in terms) / len(batches)

        descend(task, loss, folder)
        return weights_of(task)

    expected = train(ShortPairs, folder, World())["weights"]

    def check(weights: list[float]) -> None:
        assert weights == pytest.approx(expected, rel=1e-9, abs=1e-12)

    for own in found:
        check(own["pairs"]["weights"])
    wrong(check, upstream())


def descend(task: Task, loss_of: Callable[[list[Batch]], Tensor], folder: Path) -> list[float]:
    """Descend the epoch's steps by hand, where ``loss_of`` gets the batches of the processes that have one."""
    losses = []
    for steps in zip(*(train_loader(folder, World(rank, 2)).epoch(1) for rank in range(2)), strict=True):
        loss = loss_of([batch for step in steps for batch in step.batches])
        gradients = torch.autograd.grad(loss, list(task.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(task.parameters(), gradients, strict=True):
                parameter -= RATE * gradient
        losses.append(loss.item())
    return losses


def test_D33_figures_of_a_shared_split_are_those_of_the_whole(folder: Path, found: list[dict[str, Any]]) -> None:
    task = made(Energy).eval()
    batches = [batch for step in val_loader(folder, World()).epoch(0) for batch in step.batches]
    values = torch.cat([task(batch).rows["value"] for batch in batches])  # (9,)
    expected = values.sort().values[4].item()

    def check(figures: list[float]) -> None:
        assert figures == pytest.approx([expected, expected])

    check([own["of all"] for own in found])
    own = [own["own"] for own in found]  # upstream's rule: each process reports its share
    wrong(check, own)
    wrong(check, [np.mean(own)] * 2)  # nor do means of shares help
