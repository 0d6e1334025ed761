"""Keyed hashes, generators and the permutation of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
from antmmf.data.keyed import generator, hashed, sample_id
from antmmf.data.order import Permutation


@pytest.mark.parametrize("n", [1, 2, 3, 255, 256, 257, 5000])
def test_every_row_comes_exactly_once(n: int) -> None:
    assert sorted(Permutation(n, seed=1, epoch=1)(np.arange(n))) == list(range(n))


def test_single_positions_agree_with_arrays() -> None:
    order = Permutation(1000, seed=1, epoch=2)
    assert [order[i] for i in range(20)] == order(np.arange(20)).tolist()


def test_a_position_outside_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        Permutation(10, seed=1, epoch=1)[10]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(Permutation(100, seed=s, epoch=e)(np.arange(100))) for s in range(5) for e in range(5)}
    assert len(orders) == 25


@pytest.mark.parametrize("n", [7, 300])
def test_each_row_is_about_as_often_at_each_position(n: int) -> None:
    num_epochs = 3000
    first = np.bincount([Permutation(n, seed=5, epoch=e)[n // 2] for e in range(num_epochs)], minlength=n)
    expected = num_epochs / n
    chi_square = ((first - expected) ** 2 / expected).sum()
    # Mean n - 1 and variance 2 (n - 1) if uniform: five standard deviations.
    assert chi_square < (n - 1) + 5 * np.sqrt(2 * (n - 1))


def test_neighbours_do_not_stay_neighbours() -> None:
    rows = Permutation(10_000, seed=2, epoch=1)(np.arange(10_000))
    assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 0.05


def test_a_hundred_million_samples_cost_no_memory() -> None:
    order = Permutation(136_000_000, seed=1, epoch=1)
    assert len(set(order(np.arange(135_999_000, 136_000_000)).tolist())) == 1000


def test_equal_keys_give_equal_draws_and_others_do_not() -> None:
    assert generator(1, "a", 2).random() == generator(1, "a", np.int64(2)).random()
    assert len({generator(*keys).random() for keys in [(1, "a", 2), (1, "a", 3), (2, "a", 2), (1, "a2"), (1, 2)]}) == 5


def test_sample_ids_are_fixed_for_ever() -> None:
    # Worked out with coreutils: printf '6:msrvtt/video7' | b2sum -l 64, read as a little-endian signed number.
    assert sample_id("msrvtt", "video7") == -703024870758521975


def test_hashes_keep_strings_and_numbers_apart() -> None:
    assert len({hashed(1), hashed("1"), hashed(1, 1), hashed(11)}) == 4
