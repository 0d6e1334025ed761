"""Training order that keeps to a few shards at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from antmmf.data.order import BlockPermutation
from engine_toys import toy_loader
from test_loading import flat, ids

SIZES = [5, 1, 7, 3, 4, 9, 2, 6, 8, 5, 3]


@pytest.mark.parametrize("window", [1, 3, 4, 50])
def test_every_row_comes_once(window: int) -> None:
    order = BlockPermutation(SIZES, seed=1, epoch=2, window=window)
    rows = order(np.arange(sum(SIZES)))
    assert sorted(rows.tolist()) == list(range(sum(SIZES)))
    assert len(order) == sum(SIZES)


def test_a_position_has_the_same_row_whoever_asks() -> None:
    order = BlockPermutation(SIZES, seed=1, epoch=2, window=3)
    whole = order(np.arange(sum(SIZES)))
    for start in range(0, sum(SIZES), 7):
        part = np.arange(start, min(start + 7, sum(SIZES)))
        assert BlockPermutation(SIZES, seed=1, epoch=2, window=3)(part).tolist() == whole[part].tolist()


def test_only_a_window_of_blocks_is_open_at_a_time() -> None:
    order = BlockPermutation(SIZES, seed=1, epoch=2, window=3)
    block_of = np.repeat(np.arange(len(SIZES)), SIZES)
    positions = np.arange(sum(SIZES))
    seen = block_of[order(positions)]
    windows = order.window_of(positions)
    for window in range(4):
        blocks = set(seen[windows == window].tolist())
        assert blocks == set(order.blocks_of(window).tolist())
        assert len(blocks) == (3 if window < 3 else 2)
    assert len(order.blocks_of(4)) == 0


def test_epochs_and_seeds_have_orders_of_their_own_and_blocks_are_mixed() -> None:
    orders = [
        BlockPermutation(SIZES, seed=seed, epoch=epoch, window=4)(np.arange(sum(SIZES))).tolist()
        for seed in (1, 2)
        for epoch in (1, 2)
    ]
    assert len({tuple(order) for order in orders}) == 4
    block_of = np.repeat(np.arange(len(SIZES)), SIZES)
    changes = np.count_nonzero(np.diff(block_of[orders[0]]))
    assert changes > 2 * len(SIZES)  # not one block after the other


def test_a_loader_in_blocks_resumes_and_shares_like_any_other(tmp_path: Path) -> None:
    options = {"num": 60, "batch_size": 8, "shuffle": "blocks"}
    whole = toy_loader(tmp_path, **options)
    whole.parts[0].index.blocks = np.array([20, 20, 20])
    steps = ids(whole.epoch(1))
    assert sorted(flat(whole.epoch(1))) != flat(whole.epoch(1))
    assert len(set(flat(whole.epoch(1)))) == 56
    later = toy_loader(tmp_path, **options)
    later.parts[0].index.blocks = np.array([20, 20, 20])
    assert ids(later.epoch(1, start=24)) == steps[3:]
    shares = [toy_loader(tmp_path, rank=rank, num_ranks=3, **options) for rank in range(3)]
    for share in shares:
        share.parts[0].index.blocks = np.array([20, 20, 20])
    parts = [ids(share.epoch(1)) for share in shares]
    assert [[id for part in own for id in part] for own in zip(*parts, strict=True)] == steps


def test_the_files_of_this_window_and_the_next_are_asked_for_before_they_are_needed(tmp_path: Path) -> None:
    asked: list[list[str]] = []
    loader = toy_loader(tmp_path, num=40, batch_size=2, shuffle="blocks", prefetch=asked.append)
    loader.parts[0].index.blocks = np.array([2] * 20)
    list(loader.epoch(1))
    assert [len(files) for files in asked] == [16, 12, 12]  # 8 and 8, 8 and 4, 4 and the first 8 of the next epoch
    first = {f"clip{row}" for row in range(0, 40, 2)}
    assert set(asked[0]) <= first
    assert set(asked[0]) | set(asked[1]) == first
