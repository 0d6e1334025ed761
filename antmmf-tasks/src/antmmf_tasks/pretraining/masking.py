"""Which words are hidden: at random (MLM), significant ones (MSSM), or those that get attention."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from antmmf_tasks.pretraining.words import Words

IGNORED = -100
"""The label of a token that need not be told."""


def num_to_mask(num_tokens: int, share: float = 0.15) -> int:
    """How many of ``num_tokens`` word pieces MSSM hides: ``share`` of them, rounded up from .3 on (SNP-S3)."""
    exact = share * num_tokens
    return math.floor(exact) + (exact - math.floor(exact) >= 0.3)


def mask_significant(
    ids: Sequence[int], *, words: Words, special: Collection[int], mask_id: int, share: float, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Masked significant semantic modelling (SNP-S3, section III-C): ids with hidden words, and the labels.

    ``num_to_mask`` significant words are hidden, all alike likely; where there are fewer, others with them, always
    behind ``mask_id``. A significant word becomes ``mask_id`` in 80 %, in 10 % a word of its lemma (a significant word
    drawn at random where it has none) and stays in 10 %.
    """
    inner = [place for place, id in enumerate(ids) if id not in special]
    found = [place for place in inner if ids[place] in words.significant]
    others = [place for place in inner if ids[place] not in words.significant]
    wanted = num_to_mask(len(inner), share)
    chosen = rng.permutation(found)[:wanted].tolist()
    filling = rng.permutation(others)[: wanted - len(chosen)].tolist()
    masked, labels = list(ids), [IGNORED] * len(ids)
    for place in (*chosen, *filling):
        labels[place] = ids[place]
        masked[place] = mask_id
    for place in chosen:
        draw = rng.random()
        if draw >= 0.9:
            masked[place] = ids[place]
        elif draw >= 0.8:
            mates = words.mates.get(ids[place]) or sorted(words.significant)
            masked[place] = int(mates[int(rng.integers(len(mates)))])
    return masked, labels


def mask_any(
    ids: Sequence[int],
    *,
    special: Collection[int],
    mask_id: int,
    num_words: int,
    share: float,
    rng: np.random.Generator,
) -> tuple[list[int], list[int]]:
    """Masked language modelling (Devlin et al. 2019): each word piece with probability ``share``, of which 80 % become
    ``mask_id``, 10 % any of the ``num_words`` ids that is not special, and 10 % stay."""
    masked, labels = list(ids), [IGNORED] * len(ids)
    draws = rng.random((2, len(ids)))
    for place, id in enumerate(ids):
        if id in special or draws[0, place] >= share:
            continue
        labels[place] = id
        if draws[1, place] < 0.8:
            masked[place] = mask_id
        elif draws[1, place] < 0.9:
            other = int(rng.integers(num_words))
            while other in special:
                other = int(rng.integers(num_words))
            masked[place] = other
    return masked, labels


def word_places(
    ids: Sequence[int], *, words: Words, special: Collection[int], count: int, rng: np.random.Generator
) -> list[int]:
    """``count`` places of significant words for local vision-word matching: a random choice of them, or all of them and
    some again; where there is none, of any word, and of an empty text the first places (SNP-S3, section III-D)."""
    inner = [place for place, id in enumerate(ids) if id not in special]
    found = [place for place in inner if ids[place] in words.significant] or inner or list(range(len(ids)))[:count]
    chosen: list[int] = rng.permutation(found)[:count].tolist()
    return chosen + [int(found[int(rng.integers(len(found)))]) for _ in range(count - len(chosen))]


def mask_attended(
    tokens: Tensor, attention: Tensor, hidden: Tensor, *, mask_id: int, share: float, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Attentive masking: max(1, share x word pieces) of each text (N, L) become ``mask_id``, drawn without putting back
    with probabilities in proportion to the ``attention`` (N, L) that they received. Returns tokens and labels.

    ``hidden`` (N, L) is True where a token may be hidden: on words, not on special tokens or padding. ``noise`` (N, L)
    is uniform in (0, 1): the largest of log(probability) + Gumbel noise are such a draw (Kool et al. 2019).
    """
    gumbel = -torch.log(-torch.log(noise.clamp(1e-6, 1 - 1e-6)))
    score = torch.log(attention.to(noise.dtype) + 1e-6) + gumbel
    score = score.masked_fill(~hidden, -torch.inf)
    place = score.argsort(dim=1, descending=True).argsort(dim=1)  # 0 for the largest
    count = (hidden.sum(1, keepdim=True) * share).floor().clamp(min=1)
    chosen = (place < count) & hidden
    return tokens.masked_fill(chosen, mask_id), torch.where(chosen, tokens, IGNORED)
