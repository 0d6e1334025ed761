"""Choosing a video's own text among false ones."""

from __future__ import annotations

import pytest
import torch
from antmmf.contracts import Figure
from antmmf_tasks.metrics.choice import Choice
from antmmf_tasks.metrics.intervals import wilson
from torch import Tensor


def rows_of(own: list[float], false: list[list[float]]) -> dict[str, Tensor]:
    """Video i is an axis; its own text scores ``own[i]`` with it, its false texts ``false[i]``."""
    num = len(own)
    video_of = [i for i, scores in enumerate(false) for _ in scores]
    negative = torch.zeros(len(video_of), num)
    negative[torch.arange(len(video_of)), video_of] = torch.tensor([s for scores in false for s in scores])
    return {
        "video": torch.eye(num),
        "video_id": torch.arange(num) + 5,
        "text": torch.eye(num) * torch.tensor(own),
        "text_video_id": torch.arange(num) + 5,
        "text_hash": torch.arange(num),
        "negative": negative,
        "negative_video_id": torch.tensor(video_of, dtype=torch.int64) + 5,
        "negative_text_hash": torch.arange(len(video_of)) + 1000,
    }


def figures(rows: dict[str, Tensor]) -> dict[str, Figure]:
    metric = Choice()
    metric.update(rows)
    return metric.compute()


def test_own_text_above_all_false_ones_is_right() -> None:
    found = figures(rows_of([0.9, 0.5, 0.5], [[0.1, 0.8], [0.6, 0.1], [0.4]]))
    low, high = wilson(2, 3)
    assert list(found) == ["choice/accuracy"]
    figure = found["choice/accuracy"]
    assert (figure.value, figure.low, figure.high) == pytest.approx((200 / 3, 100 * low, 100 * high))
    assert figure.n == 3


def test_ties_count_a_share_of_those_at_the_top() -> None:
    found = figures(rows_of([0.5, 0.5, 0.5], [[0.5], [0.5, 0.5, 0.1], [0.5, 0.6]]))
    assert found["choice/accuracy"].value == pytest.approx(100 * (1 / 2 + 1 / 3 + 0) / 3)


def test_a_video_without_false_texts_is_no_case_and_none_at_all_no_figure() -> None:
    assert figures(rows_of([0.9, 0.5], [[0.1], []]))["choice/accuracy"].n == 1
    assert figures(rows_of([0.9, 0.5], [[], []])) == {}
    assert figures({name: v for name, v in rows_of([0.9], [[0.1]]).items() if "negative" not in name}) == {}


def test_a_false_text_that_is_also_the_videos_own_is_left_out() -> None:
    rows = rows_of([0.5, 0.5], [[0.7, 0.1], [0.1]])
    rows["negative_text_hash"][0] = rows["text_hash"][0]
    assert figures(rows)["choice/accuracy"].value == 100


def test_shuffled_frames_are_counted_apart() -> None:
    rows = rows_of([0.9, 0.9], [[0.1], [0.2]])
    rows["video_shuffled"] = torch.zeros(2, 2)
    found = figures(rows)
    assert found["choice/accuracy"].value == 100
    assert found["choice/shuffled/accuracy"].value == 50


def test_several_orders_of_a_clip_are_one_case() -> None:
    rows = rows_of([0.9, 0.9], [[0.1], [0.2]])
    video = rows["video"]
    rows["video_shuffled"] = torch.stack([video, -video], dim=1)  # (2, 2, D): right in one order, wrong in the other
    found = figures(rows)["choice/shuffled/accuracy"]
    assert (found.value, found.n) == (50, 2)


def test_a_repeated_video_counts_once() -> None:
    rows = rows_of([0.9, 0.1], [[0.3], [0.3]])
    twice = {name: torch.cat([value, value[:1]]) for name, value in rows.items()}
    assert figures(twice) == figures(rows)
