"""Which words are hidden, how many, and behind what."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from antmmf_tasks.pretraining.masking import (
    IGNORED,
    mask_any,
    mask_attended,
    mask_significant,
    num_to_mask,
    word_places,
)
from antmmf_tasks.pretraining.words import Words

CLS, SEP, PAD, MASK = 101, 102, 0, 103
SPECIAL = frozenset({CLS, SEP, PAD, MASK})
WORDS = Words(frozenset(range(10, 40)), {10: (11,), 12: (13, 14)})


def significant(ids: list[int], seed: int, share: float = 0.15) -> tuple[list[int], list[int]]:
    rng = np.random.default_rng(seed)
    return mask_significant(ids, words=WORDS, special=SPECIAL, mask_id=MASK, share=share, rng=rng)


def test_how_many_words_of_a_text_are_hidden() -> None:
    """Section 2.2 of the method, for 1 to 28 word pieces."""
    table = {1: 0, **dict.fromkeys(range(2, 9), 1), **dict.fromkeys(range(9, 16), 2)}
    table |= {**dict.fromkeys(range(16, 23), 3), **dict.fromkeys(range(23, 29), 4)}
    assert {number: num_to_mask(number) for number in range(1, 29)} == table


def test_only_significant_words_are_hidden_where_there_are_enough() -> None:
    ids = [CLS, 50, 10, 60, 11, 70, 12, 80, 13, 90, SEP]
    for seed in range(300):
        _, labels = significant(ids, seed)
        hidden = [place for place, label in enumerate(labels) if label != IGNORED]
        assert len(hidden) == 2
        assert all(ids[place] in WORDS.significant and labels[place] == ids[place] for place in hidden)


def test_others_fill_in_where_significant_words_are_too_few() -> None:
    ids = [CLS, 50, 10, 60, 70, 80, 90, 91, 92, 93, 94, SEP]
    for seed in range(300):
        masked, labels = significant(ids, seed)
        hidden = [place for place, label in enumerate(labels) if label != IGNORED]
        assert len(hidden) == 2
        assert 2 in hidden
        (other,) = set(hidden) - {2}
        assert masked[other] == MASK
        assert labels[other] == ids[other]
        assert ids[other] not in SPECIAL


def test_each_significant_word_is_as_likely_as_another() -> None:
    ids = [CLS, 10, 50, 11, 51, 12, SEP]
    counts = Counter(next(p for p, label in enumerate(significant(ids, seed)[1]) if label >= 0) for seed in range(6000))
    assert set(counts) == {1, 3, 5}
    assert all(abs(count / 6000 - 1 / 3) < 0.025 for count in counts.values())


def test_eighty_ten_ten_of_significant_words() -> None:
    """Over 100,000 draws: within five standard errors; a tenth becomes a word of the same lemma."""
    outcomes: Counter[str] = Counter()
    rng = np.random.default_rng(0)
    ids = [CLS, *[10] * 100, SEP]
    for _ in range(6667):
        masked, labels = mask_significant(ids, words=WORDS, special=SPECIAL, mask_id=MASK, share=0.15, rng=rng)
        for place, label in enumerate(labels):
            if label != IGNORED:
                outcomes[{MASK: "mask", 11: "mate", 10: "same"}[masked[place]]] += 1
    total = sum(outcomes.values())
    assert total == 6667 * 15
    for name, share in (("mask", 0.8), ("mate", 0.1), ("same", 0.1)):
        assert abs(outcomes[name] / total - share) < 5 * (share * (1 - share) / total) ** 0.5


def test_a_word_without_a_mate_becomes_any_significant_one() -> None:
    seen = set()
    for seed in range(3000):
        masked, labels = significant([CLS, 30, 30, SEP], seed, share=0.5)
        seen |= {masked[place] for place in range(4) if labels[place] != IGNORED}
    assert seen - {MASK} == set(WORDS.significant)


def test_eighty_ten_ten_of_any_words() -> None:
    outcomes: Counter[str] = Counter()
    rng = np.random.default_rng(0)
    ids = [CLS, *range(200, 1000), SEP]
    for _ in range(850):
        masked, labels = mask_any(ids, special=SPECIAL, mask_id=MASK, num_words=30000, share=0.15, rng=rng)
        assert labels[0] == labels[-1] == IGNORED
        for place, label in enumerate(labels[1:-1], 1):
            if label == IGNORED:
                assert masked[place] == ids[place]
                outcomes["seen"] += 1
            else:
                assert masked[place] not in SPECIAL - {MASK}
                kind = "mask" if masked[place] == MASK else "same" if masked[place] == ids[place] else "random"
                outcomes[kind] += 1
    hidden = outcomes.total() - outcomes["seen"]
    assert hidden > 100_000
    assert abs(hidden / outcomes.total() - 0.15) < 0.002
    for name, share in (("mask", 0.8), ("random", 0.1), ("same", 0.1)):
        assert abs(outcomes[name] / hidden - share) < 5 * (share * (1 - share) / hidden) ** 0.5 + 1e-4


@pytest.mark.parametrize(
    ("ids", "allowed"),
    [
        ([CLS, 50, 10, 11, 60, 12, 13, SEP], {2, 3, 5, 6}),  # more than three: some of them
        ([CLS, 50, 10, 60, SEP], {2}),  # one: again and again
        ([CLS, 50, 60, SEP], {1, 2}),  # none is significant: any word
        ([CLS, SEP], {0, 1}),  # no word at all
    ],
)
def test_places_for_local_matching(ids: list[int], allowed: set[int]) -> None:
    seen = set()
    for seed in range(200):
        rng = np.random.default_rng(seed)
        places = word_places(ids, words=WORDS, special=SPECIAL, count=3, rng=rng)
        assert len(places) == 3
        assert len(set(places)) == min(3, len(allowed))
        seen |= set(places)
    assert seen == allowed


def test_attention_masks_no_special_token_and_hides_in_proportion() -> None:
    tokens = torch.tensor([[CLS, 5, 6, 7, 8, SEP, PAD]]).expand(20000, -1)
    hidden = ~torch.isin(tokens, torch.tensor(sorted(SPECIAL)))
    attention = torch.tensor([[9.0, 1.0, 2.0, 4.0, 1.0, 9.0, 9.0]]).expand(20000, -1)
    noise = torch.rand(20000, 7, generator=torch.Generator().manual_seed(0))
    masked, labels = mask_attended(tokens, attention, hidden, mask_id=MASK, share=0.15, noise=noise)
    chosen = labels != IGNORED
    assert (chosen.sum(1) == 1).all()  # max(1, floor(0.15 x 4))
    assert not chosen[:, [0, 5, 6]].any()
    assert ((masked == MASK) == chosen).all()
    assert (labels[chosen] == tokens[chosen]).all()
    shares = chosen.float().mean(0)[1:5]
    torch.testing.assert_close(shares, torch.tensor([1.0, 2.0, 4.0, 1.0]) / 8, rtol=0, atol=0.015)


def test_attention_masks_a_share_of_long_texts() -> None:
    tokens = torch.arange(200, 240).expand(3, -1)
    noise = torch.rand(3, 40, generator=torch.Generator().manual_seed(0))
    _, labels = mask_attended(
        tokens, torch.ones(3, 40), torch.ones(3, 40, dtype=torch.bool), mask_id=MASK, share=0.15, noise=noise
    )
    assert (labels != IGNORED).sum(1).tolist() == [6, 6, 6]
