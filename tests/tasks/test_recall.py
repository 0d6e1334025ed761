"""Recall on score matrices small enough to rank by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
import torch
from antmmf.errors import ComponentError
from antmmf_tasks.metrics import ranks
from antmmf_tasks.metrics.ranks import rank
from antmmf_tasks.metrics.recall import Recall
from torch import Tensor


def rows_of(
    scores: Sequence[Sequence[float]], owner: Sequence[int], captions: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """Rows whose dot products are ``scores`` (texts, videos): the videos are the axes."""
    text = torch.tensor(scores)
    names = captions or [str(i) for i in range(len(text))]
    return {
        "video": torch.eye(text.shape[1]),
        "video_id": torch.arange(text.shape[1]) * 7 - 3,
        "text": text,
        "text_video_id": torch.tensor(owner) * 7 - 3,
        "text_hash": torch.tensor([sorted(set(names)).index(name) - 2 for name in names]),
    }


def values(rows: dict[str, Tensor], **params: int) -> dict[str, float]:
    metric = Recall(ks=(1, 2), bootstrap=0, **params)
    metric.update(rows)
    return {name: figure.value for name, figure in metric.compute().items()}


def test_one_caption_a_video_ranked_by_hand() -> None:
    scores = [[0.9, 0.1, 0.2], [0.8, 0.5, 0.6], [0.1, 0.7, 0.3]]
    found = values(rows_of(scores, [0, 1, 2]))
    # t2v ranks 1, 3, 2; v2t: columns (.9 .8 .1) -> 1, (.1 .5 .7) -> 2, (.2 .6 .3) -> 2
    assert found == pytest.approx(
        {"t2v/R1": 100 / 3, "t2v/R2": 200 / 3, "t2v/mR": 50, "t2v/MdR": 2, "t2v/MnR": 2}
        | {"v2t/R1": 100 / 3, "v2t/R2": 100, "v2t/mR": 200 / 3, "v2t/MdR": 2, "v2t/MnR": 5 / 3}
    )


def test_several_captions_of_a_video_are_queries_each_and_do_not_stand_in_each_others_way() -> None:
    scores = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.4], [0.7, 0.6]]
    found = values(rows_of(scores, [0, 0, 0, 1]))
    assert found["t2v/MnR"] == pytest.approx((1 + 1 + 2 + 2) / 4)
    assert found["v2t/MnR"] == pytest.approx((1 + 1) / 2)  # video 0: its best caption leads; video 1: .6 leads


def test_a_repeated_caption_is_right_for_every_video_that_owns_it() -> None:
    scores = [[0.2, 0.9, 0.1], [0.2, 0.9, 0.1], [0.3, 0.5, 0.4]]
    found = values(rows_of(scores, [0, 1, 2], ["a cat", "a cat", "a dog"]))
    assert found["t2v/R1"] == pytest.approx(200 / 3)  # both cats find video 1; the dog is second
    # v2t over two strings: video 0 prefers the dog (.3), video 1 the cat, video 2 the dog
    assert found["v2t/MnR"] == pytest.approx((2 + 1 + 1) / 3)


def test_a_repeated_caption_is_one_candidate() -> None:
    scores = [[0.5, 0.9], [0.6, 0.8], [0.6, 0.8]]
    found = values(rows_of(scores, [0, 1, 1], ["a", "b", "b"]))
    assert found["v2t/MnR"] == pytest.approx((2 + 2) / 2)
    assert found["t2v/MnR"] == pytest.approx((2 + 1) / 2)  # and, twice with one video, one query


@pytest.mark.parametrize("num", [5, 7, 1003])
@pytest.mark.parametrize("seed", range(5))
def test_a_collapsed_model_scores_chance_exactly(num: int, seed: int) -> None:
    # of 5 dimensions: there a plain product gives equal columns scores that differ in the last bit for some seeds
    vector = torch.nn.functional.normalize(torch.randn(5, generator=torch.Generator().manual_seed(seed)), dim=0)
    ids = torch.arange(num)
    rows = {"video": vector.repeat(num, 1), "video_id": ids, "text": vector.repeat(num, 1)}
    found = values(rows | {"text_video_id": ids, "text_hash": ids})
    for way in ("t2v", "v2t"):
        assert found[f"{way}/R1"] == pytest.approx(100 / num, rel=1e-9)
        assert found[f"{way}/R2"] == pytest.approx(200 / num, rel=1e-9)
        assert found[f"{way}/MdR"] == found[f"{way}/MnR"] == (num + 1) / 2


def test_ties_count_the_mean_over_all_orders() -> None:
    scores = np.array([5, 3, 3, 3, 3, 1])
    right = {2, 3, 5}
    found = rank(
        torch.ones(1, 1), torch.tensor(scores)[:, None].float(), query=np.zeros(3, int), right=np.array([2, 3, 5])
    )
    orders = [sorted(order, key=lambda i: -scores[i]) for order in permutations(range(6))]
    firsts = [min(place for place, i in enumerate(order) if i in right) for order in orders]
    # counting only wrong ones above the first right one is its place
    assert found.expected() == pytest.approx([np.mean(firsts) + 1])
    for k in range(1, 6):
        assert found.hit(k) == pytest.approx([np.mean([first < k for first in firsts])])


def test_the_order_of_rows_and_the_chunk_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    owner = torch.randint(0, 20, (50,), generator=generator)
    rows = rows_of(torch.randn(50, 20, generator=generator).tolist(), owner.tolist(), [f"c{i % 40}" for i in range(50)])
    text_by_hash = {int(h): rows["text"][i] for i, h in enumerate(rows["text_hash"])}
    rows["text"] = torch.stack([text_by_hash[int(h)] for h in rows["text_hash"]])
    mixed_texts, mixed_videos = torch.randperm(50, generator=generator), torch.randperm(20, generator=generator)
    mixed = {n: v[mixed_videos if n in ("video", "video_id") else mixed_texts] for n, v in rows.items()}
    plain, other = Recall(), Recall()
    plain.update(rows)
    expected = plain.compute()
    monkeypatch.setattr(ranks, "CHUNK_SCORES", 60)
    for half in (slice(0, 10), slice(10, 100)):
        other.update({name: value[half] for name, value in mixed.items()})
    assert other.compute() == expected


def test_recall_counts_a_repeated_video_once() -> None:
    rows = rows_of([[0.9, 0.1], [0.8, 0.5]], [0, 1])
    assert values({name: torch.cat([value, value[:1]]) for name, value in rows.items()}) == values(rows)


def test_a_video_without_captions_is_a_candidate_and_no_query() -> None:
    found = values(rows_of([[0.3, 0.9]], [0]))
    assert (found["t2v/R1"], found["v2t/R1"]) == (0, 100)


def test_intervals_hold_the_value_and_n_counts_queries() -> None:
    generator = torch.Generator().manual_seed(2)
    metric = Recall()
    metric.update(rows_of((torch.eye(60) * 2 + torch.randn(60, 60, generator=generator)).tolist(), list(range(60))))
    for figure in metric.compute().values():
        assert figure.n == 60
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value <= figure.high
        assert figure.low < figure.high


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_refused_by_name(bad: float) -> None:
    rows = rows_of([[0.9, 0.1], [0.8, 0.5]], [0, 1])
    rows["text"][1, 0] = bad
    with pytest.raises(ComponentError, match="1 of 2 rows of 'text'"):
        values(rows)


def test_missing_rows_strangers_and_an_empty_split_are_refused() -> None:
    rows = rows_of([[0.9, 0.1]], [1])
    with pytest.raises(ComponentError, match=r"needs the rows video, video_id, .* gives logits"):
        Recall().update({"logits": torch.zeros(1)})
    with pytest.raises(ComponentError, match="1 texts belong to videos that are not in the split"):
        values(rows | {"text_video_id": torch.tensor([99])})
    metric = Recall()
    metric.update(rows)
    metric.reset()
    with pytest.raises(ComponentError, match="empty"):
        metric.compute()
