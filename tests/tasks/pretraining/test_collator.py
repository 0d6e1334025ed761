"""Batches of pre-training: what is drawn for a text, and the copies that must be of one window."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from antmmf.batch import Batch
from antmmf.contracts import Record, Sample
from antmmf_tasks.pretraining.collator import MaskingCollator
from antmmf_tasks.pretraining.masking import IGNORED
from antmmf_tasks.pretraining.settings import Masking
from antmmf_tasks.pretraining.words import Words
from antmmf_text.tokenizers import SPECIAL, WordPiece

LONG = [f"w{number}" for number in range(40)]
CHINESE = "红色圆形向左移动然后蓝色方形旋转"
PIECES = [*SPECIAL, *LONG, *sorted(set(CHINESE))]


def collator(policy: str = "mlm", *, random_window: bool = True) -> MaskingCollator:
    tokenizer = WordPiece(PIECES, max_length=10, random_window=random_window)
    words = Words(frozenset(range(5, len(PIECES))), {})
    return MaskingCollator(tokenizer, words, Masking(policy=policy), num_words=3)  # type: ignore[arg-type]


def batch(text: str, seeds: list[int], how: MaskingCollator) -> Batch:
    frames = torch.zeros(1, 1, 3, 4, 4, dtype=torch.uint8)
    return how([Sample(seed, Record(str(seed), "", texts=(text,)), frames, (text,), seed=seed) for seed in seeds])


@pytest.mark.parametrize("policy", ["mlm", "mssm"])
@pytest.mark.parametrize("text", [" ".join(LONG), CHINESE])
def test_the_masked_copy_is_of_the_same_window_as_the_raw_one(text: str, policy: str) -> None:
    """Upstream draws a window for each: defect D6."""
    made = batch(text, list(range(60)), collator(policy))
    masked, labels = made.extras["masked"], made.extras["labels"]
    hidden = labels != IGNORED
    assert hidden.any()
    assert torch.equal(torch.where(hidden, labels, masked), made.tokens)
    inner = made.tokens[:, 1:-1]
    assert len({tuple(row) for row in inner.tolist()}) > 5  # windows do differ
    whole = collator().tokenizer.pieces  # type: ignore[attr-defined]
    words = text.split() if " " in text else list(text)
    for row in inner.tolist():
        found = [whole[id] for id in row]
        start = words.index(found[0])
        assert any(words[s : s + len(found)] == found for s in range(start, len(words)))


def test_without_random_window_every_text_loses_its_end() -> None:
    made = batch(" ".join(LONG), [1, 2, 3], collator(random_window=False))
    assert [[PIECES[id] for id in row] for row in made.tokens.tolist()] == [["[CLS]", *LONG[:8], "[SEP]"]] * 3


def test_what_is_drawn_for_a_text_depends_on_its_seed_alone() -> None:
    how = collator("mssm")
    together, alone = batch(" ".join(LONG), [3, 8, 5], how), batch(" ".join(LONG), [8], how)
    assert torch.equal(together.tokens[1:2], alone.tokens)
    for name in together.extras:
        assert torch.equal(together.extras[name][1:2], alone.extras[name]), name


def test_half_of_the_texts_are_masked_by_attention() -> None:
    made = batch("w1 w2", list(range(2000)), collator())
    assert abs(float(made.extras["attentive"].double().mean()) - 0.5) < 0.05
    noise = made.extras["noise"][:, :4].numpy()
    assert np.unique(noise).size > 7900
