"""Recall on score matrices small enough to rank by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
import torch
from antmmf.errors import ComponentError
from antmmf_tasks.metrics import scores as scores_module
from antmmf_tasks.metrics.ranks import rank
from antmmf_tasks.metrics.recall import Recall
from antmmf_tasks.metrics.scores import Dots, DualSoftmax
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
        Dots(torch.ones(1, 1), torch.tensor(scores)[:, None].float()),
        query=np.zeros(3, int),
        right=np.array([2, 3, 5]),
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
    monkeypatch.setattr(scores_module, "CHUNK_SCORES", 60)
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


def with_pairs(rows: dict[str, Tensor], pairs: Sequence[tuple[int, int, float, int]]) -> dict[str, Tensor]:
    """Rows with (text, video, score, way) of what a cross encoder read."""
    text, video, score, way = zip(*pairs, strict=True)
    return {
        **rows,
        "pair_text_hash": rows["text_hash"][list(text)],
        "pair_video_id": rows["video_id"][list(video)],
        "pair_score": torch.tensor(score),
        "pair_way": torch.tensor(way),
    }


L1 = [[0.75, 0.5625, 0.25], [0.625, 0.5, 0.3125], [0.25, 0.4375, 0.375]]
L2 = [[1.0, 2.0, 9.0], [1.0, 5.0, 3.0], [4.0, 3.0, 2.0]]


def test_all_pairs_are_ranked_by_the_cross_encoder_alone() -> None:
    pairs = [(t, v, L2[t][v], 3) for t in range(3) for v in range(3)]
    found = values(with_pairs(rows_of(L1, [0, 1, 2]), pairs))
    assert found["l2/t2v/MnR"] == pytest.approx((3 + 1 + 3) / 3)
    assert found["l2/v2t/MnR"] == pytest.approx((2.5 + 1 + 3) / 3)  # columns 1 1 4, 2 5 3, 9 3 2
    assert found["t2v/MnR"] == pytest.approx((1 + 2 + 2) / 3)  # as ever by the vectors


def test_the_sum_of_both_scores() -> None:
    pairs = [(t, v, L2[t][v], 3) for t in range(3) for v in range(3)]
    metric = Recall(ks=(1, 2), bootstrap=0, l1_scale=4.0)
    metric.update(with_pairs(rows_of(L1, [0, 1, 2]), pairs))
    # 4 x L1 + L2: (4, 4.25, 10), (3.5, 7, 4.25), (5, 4.75, 3.5)
    assert metric.compute()["l1+l2/t2v/MnR"].value == pytest.approx((3 + 1 + 3) / 3)


def test_the_best_of_each_query_are_ranked_anew_before_the_others() -> None:
    best_of_texts = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (2, 2)]
    best_of_videos = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 2), (1, 2)]
    ways = {pair: (pair in best_of_texts) + 2 * (pair in best_of_videos) for pair in {*best_of_texts, *best_of_videos}}
    found = values(with_pairs(rows_of(L1, [0, 1, 2]), [(t, v, L2[t][v], way) for (t, v), way in ways.items()]))
    # text 0: of videos 0, 1 the second leads; text 1: 1 leads; text 2: of videos 1, 2 the first leads
    assert found["l2@2/t2v/MnR"] == pytest.approx((2 + 1 + 2) / 3)
    # video 0: texts 0, 1 are equal; video 1: of 0, 1 the second leads; video 2: of 1, 2 the first leads
    assert found["l2@2/v2t/MnR"] == pytest.approx((1.5 + 1 + 2) / 3)
    assert not any(name.startswith("l2/") for name in found)


def test_a_right_answer_beyond_the_ranked_ones_keeps_its_place() -> None:
    pairs = [(0, 1, 5.0, 1), (1, 0, 5.0, 1), (2, 1, 5.0, 1)]  # only the best but for text 0
    rows = rows_of([[0.1, 0.8, 0.5], [0.7, 0.6, 0.2], [0.3, 0.5, 0.4]], [0, 1, 2])
    pairs += [(0, 0, 1.0, 2), (1, 1, 1.0, 2), (2, 2, 1.0, 2)]
    assert values(with_pairs(rows, pairs))["l2@1/t2v/MnR"] == pytest.approx((3 + 2 + 2) / 3)


def test_dual_softmax_is_the_product_of_both_softmaxes() -> None:
    text, video = torch.randn(7, 3), torch.randn(5, 3)
    scores = text @ video.T / 0.5
    product = scores.double().softmax(1) * scores.double().softmax(0)
    found = DualSoftmax(Dots(text, video), temperature=0.5)
    constant = found.rows(0, 7) - product.log()
    assert constant == pytest.approx(constant[:, :1].expand(-1, 5).numpy(), abs=1e-5)
    metric = Recall(ks=(1,), bootstrap=0, dual_softmax=0.5)
    metric.update(rows_of(text[:5, :3].tolist(), [0, 1, 2, 0, 1]))
    assert "dsl/t2v/R1" in metric.compute()
    assert "dsl/t2v/R1" in metric.names()
