"""Which pairs the cross encoder reads, and how much they count: matrices small enough to work out by hand."""

from __future__ import annotations

import pytest
import torch
from antmmf_tasks.pretraining.pairs import (
    curriculum_rate,
    easy_weights,
    group_videos,
    hard_videos,
    in_batch_recall,
    wrong_column,
)

SIMILARITY = torch.tensor(
    [
        [0.5, 0.4, 0.9, 0.1, 0.52],
        [0.0, 0.3, 0.2, 0.6, 0.31],
        [0.7, 0.1, 0.8, 0.79, 0.0],
    ]
)


def test_groups_are_of_consecutive_videos() -> None:
    videos, real = group_videos(torch.tensor([0, 1, 4, 6, 6]), 7, 3)
    assert videos.tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [6, 6, 6], [6, 6, 6]]
    assert real.tolist() == [[True] * 3] * 3 + [[True, False, False]] * 2
    assert (videos.gather(1, (torch.tensor([0, 1, 4, 6, 6]) % 3)[:, None])[:, 0].tolist()) == [0, 1, 4, 6, 6]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        # text 0 (0.5): nearest are 4 (0.02 away) and 1 (0.1); text 1 (0.3): 4 (0.01) and 2 (0.1);
        # text 2 (0.8): 3 (0.01) and 0 (0.1)
        ("nearest", [{0, 4, 1}, {1, 4, 2}, {2, 3, 0}]),
        # the highest others: 2 and 4; 3 and 4; 3 and 0
        ("top_k", [{0, 2, 4}, {1, 3, 4}, {2, 3, 0}]),
    ],
)
def test_hard_videos_by_hand(how: str, expected: list[set[int]]) -> None:
    owner = torch.tensor([0, 1, 2])
    found = hard_videos(SIMILARITY, owner, 3, how)  # type: ignore[arg-type]
    assert [set(row) for row in found.tolist()] == expected
    assert found.gather(1, (owner % 3)[:, None])[:, 0].tolist() == [0, 1, 2]


def test_the_own_video_is_never_its_own_negative() -> None:
    similarity = torch.zeros(40, 12)  # all alike: ties everywhere
    owner = torch.arange(40) % 12
    for how in ("nearest", "top_k"):
        found = hard_videos(similarity, owner, 5, how)  # type: ignore[arg-type]
        assert (found == owner[:, None]).sum(1).tolist() == [1] * 40
        assert all(len(set(row)) == 5 for row in found.tolist())


def test_the_rate_of_the_curriculum() -> None:
    steps = {0: 0.0, 4999: 0.0, 5000: 0.15, 9999: 0.15, 10000: 0.3, 30000: 0.9, 34999: 0.9, 35000: 1.0, 10**6: 1.0}
    found = {step: curriculum_rate(step, change_iter=5000, change_rate=0.15) for step in steps}
    assert found == pytest.approx(steps)


def test_easy_pairs_count_less_by_hand() -> None:
    """Mean 0.4, minimum 0.1: (0.4 - 0.1) / (d - 0.1) above the mean, at least 0.2."""
    positives = torch.tensor([0.1, 0.2, 0.5, 0.8], dtype=torch.float64)
    assert easy_weights(positives).tolist() == pytest.approx([1, 1, 0.3 / 0.4, 0.3 / 0.7])
    far = torch.tensor([0.0] * 99 + [1.0], dtype=torch.float64)
    assert easy_weights(far)[-1] == 0.2
    assert easy_weights(torch.full((3,), 0.5)).tolist() == [1, 1, 1]


def test_the_wrong_column_is_real_and_not_the_right_one() -> None:
    real = torch.tensor([[True, True, True, False]]).expand(4000, -1)
    right = torch.zeros(4000, dtype=torch.int64)
    draws = torch.rand(4000, 4, generator=torch.Generator().manual_seed(0))
    found = torch.bincount(wrong_column(real, right, draws), minlength=4) / 4000
    torch.testing.assert_close(found, torch.tensor([0.0, 0.5, 0.5, 0.0]), rtol=0, atol=0.03)
    near = torch.tensor([[9.0, 1.0, 1.0 + torch.log(torch.tensor(3.0)), 9.0]]).expand(4000, -1)
    found = torch.bincount(wrong_column(real, right, draws, near), minlength=4) / 4000
    torch.testing.assert_close(found, torch.tensor([0.0, 0.25, 0.75, 0.0]), rtol=0, atol=0.03)


def test_recall_in_a_batch_counts_ties_by_expectation() -> None:
    owner = torch.tensor([0, 1, 2])
    found = in_batch_recall(SIMILARITY, owner, (1, 2, 3))
    assert found["R1"].tolist() == [0, 0, 100]
    assert found["R3"].tolist() == [100, 100, 100]
    collapsed = in_batch_recall(torch.zeros(3, 20), owner)
    assert [float(values.mean()) for values in collapsed.values()] == pytest.approx([5, 25, 50])
