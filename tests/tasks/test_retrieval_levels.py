"""The second level of retrieval: what is read in training and in evaluation, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from antmmf.contracts import Record, Sample
from antmmf.distributed.world import World
from antmmf.errors import ComponentError
from antmmf.step import Step
from antmmf_tasks.losses.infonce import InfoNCE
from antmmf_tasks.losses.mil_nce import mil_nce
from antmmf_tasks.metrics.recall import Recall
from antmmf_tasks.pretraining.settings import Pairs
from antmmf_tasks.tasks.reading import pair_scores, read_split
from antmmf_tasks.tasks.retrieval import Retrieval
from tiny import FusingText, TinyText, TinyVision
from torch import Tensor

TEXTS = [("a red ball",), ("two", "two cats run"), ("a dog",), ("two",), ("the very long name of it", "a red ball")]


def make(**params: Any) -> Retrieval:
    torch.manual_seed(0)
    parts = {"vision": TinyVision(4), "text": FusingText(4), "loss": InfoNCE(), "dropout": 0.0, "match": 1.0, **params}
    return Retrieval(**parts)


def samples() -> list[Sample]:
    found = []
    for key, texts in enumerate(TEXTS):
        generator = torch.Generator().manual_seed(key)
        frames = torch.randint(1, 256, (2, 1, 3, 4, 4), dtype=torch.uint8, generator=generator)
        record = Record(str(key), "v.mp4", texts=texts, negatives=("a ball red",) if key == 0 else ())
        found.append(Sample(key, record, frames, texts))
    return found


def rows_of(model: Retrieval, batches: int = 1) -> dict[str, Tensor]:
    model.eval()
    every = samples()
    parts = [every] if batches == 1 else [every[:2], every[2:]]
    with torch.no_grad():
        outputs = [model(model.collator(False)(part)).rows for part in parts]
    return {name: torch.cat([output[name] for output in outputs]) for name in outputs[0]}


def figures(rows: Any) -> dict[str, float]:
    metric = Recall(ks=(1, 2), bootstrap=0)
    metric.update(rows)
    return {name: figure.value for name, figure in metric.compute().items()}


@dataclass(frozen=True)
class Alone(World):
    """A process whose colleagues are elsewhere: it keeps what it would tell them."""

    told: list[Any] = field(default_factory=list)

    def collect(self, value: Any) -> list[Any]:
        self.told.append(value)
        return [value] * self.size


@pytest.mark.parametrize("batches", [1, 2])
def test_every_pair_is_scored_once_whatever_the_batches(batches: int) -> None:
    model = make()
    rows = rows_of(model, batches)
    with torch.no_grad():
        found = model.evaluate_split(rows, World())
    assert len(found["pair_score"]) == 5 * 5  # five different texts, five videos
    assert "video_tokens" not in found
    for hash, id, score in zip(found["pair_text_hash"], found["pair_video_id"], found["pair_score"], strict=True):
        text, video = int((rows["text_hash"] == hash).nonzero()[0]), int((rows["video_id"] == id).nonzero()[0])
        mask = rows["token_mask"][text]
        words = model.text.words(rows["tokens"][text, mask])
        fused = words.mean(0) + rows["video_tokens"][video].mean(0)
        expected = model.match_head(model.fused_pooler.dense(fused).tanh())
        assert score.item() == pytest.approx(expected.item(), rel=1e-5)


def test_all_of_the_best_are_all_pairs() -> None:
    rows = rows_of(make())
    with torch.no_grad():
        every = figures(make().eval().evaluate_split(rows, World()))
        best = figures(make(rerank=5).eval().evaluate_split(rows, World()))
        some = make(rerank=2).eval().evaluate_split(rows, World())
    assert best == every
    assert {"l2/t2v/R1", "l1+l2/v2t/MnR"} <= set(every)
    assert len(some["pair_score"]) < 25
    assert {"l2@2/t2v/R1", "l1+l2@2/v2t/MnR"} <= set(figures(some))


def test_ties_of_vectors_are_read_again_the_same_in_any_order_of_the_rows() -> None:
    model, rows = make(rerank=2).eval(), rows_of(make())
    rows["text"], rows["video"] = torch.ones_like(rows["text"]), torch.ones_like(rows["video"])  # a collapsed model
    turned = (len(rows["text"]), len(rows["video"]))
    assert turned[0] != turned[1]
    other = {name: value.flip(0) if len(value) in turned else value for name, value in rows.items()}
    with torch.no_grad():
        found = [model.evaluate_split(each, World()) for each in (rows, other)]
    read = [set(zip(each["pair_text_hash"].tolist(), each["pair_video_id"].tolist(), strict=True)) for each in found]
    assert read[0] == read[1]


def test_two_texts_more_than_videos_are_still_all_pairs() -> None:
    model, rows = make(rerank=4), rows_of(make())
    kept = {name: tensor[:4] if name.startswith("video") else tensor for name, tensor in rows.items()}
    owned = kept["text_video_id"] < 4
    kept = {name: tensor[owned] if len(tensor) == len(owned) else tensor for name, tensor in kept.items()}
    with torch.no_grad():
        assert any(name.startswith("l2/") for name in figures(model.eval().evaluate_split(kept, World())))


def test_all_videos_of_each_text_are_its_full_ranking_where_there_are_more_texts() -> None:
    model, rows = make(rerank=3), rows_of(make())
    kept = {name: tensor[:3] if name.startswith("video") else tensor for name, tensor in rows.items()}
    owned = torch.isin(kept["text_video_id"], kept["video_id"])
    kept = {name: tensor[owned] if len(tensor) == len(owned) else tensor for name, tensor in kept.items()}
    assert len(kept["text_hash"].unique()) == 4 > len(kept["video_id"])
    with torch.no_grad():
        found = figures(model.eval().evaluate_split(kept, World()))
        every = figures(make().eval().evaluate_split(kept, World()))
    assert {name: value for name, value in found.items() if name.startswith(("l2@3/t2v", "l1+l2@3/t2v"))} == {
        name.replace("l2/", "l2@3/"): value for name, value in every.items() if name.startswith(("l2/t2v", "l1+l2/t2v"))
    }


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("rerank", [None, 2])
def test_processes_share_the_pairs(size: int, rerank: int | None) -> None:
    model = make().eval()
    rows = rows_of(model)
    with torch.no_grad():
        whole = read_split(model, rows, World(), rerank=rerank, at_once=3)["pair_score"]
        worlds = [Alone(rank, size) for rank in range(size)]
        for world in worlds:
            read_split(model, rows, world, rerank=rerank, at_once=3)
    parts = [world.told[0] for world in worlds]
    assert len({len(part) for part in parts}) == 1  # as many forward passes on each
    torch.testing.assert_close(torch.cat(parts)[: len(whole)], whole)


def test_the_loss_is_mil_nce_of_all_pairs_where_a_group_is_the_batch() -> None:
    model = make(pairs=Pairs(group=8)).train()
    batch = model.collator(True)(samples())
    parts = Step(model)([batch], 0)
    features = model.encode(batch)
    owned = features.owner[features.owner >= 0]
    n = len(owned)
    text, video = torch.arange(n).repeat_interleave(5), torch.arange(5).repeat(n)
    scores = pair_scores(model, features.extras, text, video, at_once=1000).view(n, 5)
    counts = torch.bincount(owned, minlength=5)
    expected = mil_nce(scores, owned).mean()
    assert counts.tolist() == [1, 2, 1, 1, 2]
    assert parts["match"].item() == pytest.approx(expected.item(), rel=1e-5)
    sum(parts.values(), torch.zeros(())).backward()
    assert all(value.grad is not None for value in model.parameters())


def test_micro_batches_and_parts_of_pairs_change_nothing() -> None:
    def gradients(sizes: list[int], at_once: int) -> tuple[float, list[Tensor]]:
        model = make(pairs=Pairs(group=2, at_once=at_once)).double().train()
        every = samples()
        starts = [sum(sizes[:number]) for number in range(len(sizes))]
        batches = [model.collator(True)(every[at : at + size]) for at, size in zip(starts, sizes, strict=True)]
        parts = Step(model)(batches, 0)
        sum(parts.values(), torch.zeros(())).backward()
        return parts["match"].item(), [value.grad for value in model.parameters() if value.grad is not None]

    value, expected = gradients([5], 1000)
    for sizes, at_once in (([2, 3], 1000), ([1, 1, 3], 3), ([5], 2)):
        other, found = gradients(sizes, at_once)
        assert other == pytest.approx(value, rel=1e-9)
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_predictions_follow_the_cross_encoder() -> None:
    model, every = make(), samples()
    rows = rows_of(model)
    with torch.no_grad():
        found = dict(model.evaluate_split(rows, World()))
    found["pair_score"] = torch.arange(25.0)  # of each text the last video, of each video the last text
    lines = list(model.predictions(found, lambda id: every[id].record))
    of_texts, of_videos = lines[:7], lines[7:]
    assert {line["ranked"][0]["key"] for line in of_texts} == {"4"}
    last = int(found["pair_text_hash"][-1])
    text = next(t for t, hash in zip(sum(TEXTS, ()), rows["text_hash"].tolist(), strict=True) if hash == last)
    assert {line["ranked"][0]["text"] for line in of_videos} == {text}


def test_a_cross_encoder_needs_an_encoder_that_fuses_and_a_use() -> None:
    with pytest.raises(ComponentError, match="must offer fuse"):
        make(text=TinyText(4))
    with pytest.raises(ComponentError, match="no use without match"):
        make(match=0.0, fusion=FusingText(4))


def test_scores_have_the_bits_of_float32_under_autocast() -> None:
    model = make().eval()
    pooled = torch.randn(64, 4)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        scores = model.match_head(pooled.bfloat16())
    assert scores.dtype == torch.float32
    assert len(scores.unique()) == 64
