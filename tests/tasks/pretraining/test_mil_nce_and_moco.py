"""Contrastive losses over clips and queues, against formulas written out as loops."""

from __future__ import annotations

import math

import pytest
import torch
from antmmf.errors import ComponentError
from antmmf_tasks.losses import mil_nce as module
from antmmf_tasks.losses.mil_nce import MilNce, bag_similarity, mil_nce
from antmmf_tasks.losses.moco import Moco
from torch import Tensor
from torch.nn.functional import normalize

OWNER = [0, 0, 2, 1, -1, 2]


def unit(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=draw, dtype=torch.float64), dim=-1)


def written_out(s: Tensor, owner: list[int], video: int) -> float:
    """Equation 1 of Miech et al. 2020 for one video."""
    own = [t for t, o in enumerate(owner) if o == video]
    right = sum(math.exp(s[t, video]) for t in own)
    wrong_texts = sum(math.exp(s[t, video]) for t in range(len(owner)) if t not in own)
    wrong_videos = sum(math.exp(s[t, v]) for t in own for v in range(s.shape[1]) if v != video)
    return -math.log(right / (right + wrong_texts + wrong_videos))


def test_two_videos_with_a_text_each_by_hand() -> None:
    s = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=torch.float64)
    first = -math.log(math.e / (math.e + math.exp(0.5) + 1))
    second = -math.log(math.exp(2) / (math.exp(2) + 1 + math.exp(0.5)))
    assert mil_nce(s, torch.tensor([0, 1])).tolist() == pytest.approx([first, second], rel=1e-12)


def test_it_is_the_formula_for_many_texts_and_texts_of_nobody() -> None:
    s = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = mil_nce(s, torch.tensor(OWNER))
    assert found[:3].tolist() == pytest.approx([written_out(s, OWNER, v) for v in range(3)], rel=1e-12)
    assert found[3] == 0  # nobody says anything about it


def test_bags_are_the_sum_over_words_and_clips_in_strips_too(monkeypatch: pytest.MonkeyPatch) -> None:
    words, clips = unit(5, 3, 8).requires_grad_(), unit(4, 2, 8, seed=1).requires_grad_()
    expected = torch.stack(
        [torch.stack([torch.logsumexp((7 * words[t] @ clips[v].T).flatten(), 0) for v in range(4)]) for t in range(5)]
    )
    weight = torch.randn(5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted = torch.autograd.grad((expected * weight).sum(), (words, clips))
    for entries in (1 << 25, 3 * 8 * 2):  # all at once, and two texts at a time
        monkeypatch.setattr(module, "_ENTRIES", entries)
        found = bag_similarity(words, clips, scale=7)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(
            torch.autograd.grad((found * weight).sum(), (words, clips)), wanted, rtol=1e-10, atol=1e-14
        )


def test_one_clip_that_fits_is_enough() -> None:
    text = unit(2, 8)
    good, bad = text, -text
    both = torch.stack([good, bad], dim=1)
    neither = torch.stack([bad, bad], dim=1)
    loss = MilNce(temperature=0.1)
    owner = torch.arange(2)
    assert loss(both, text, owner).sum < loss(neither, text, owner).sum
    term = loss(both, text, owner)
    s = bag_similarity(text[:, None], both, scale=10.0)
    assert float(term.sum) == pytest.approx(sum(written_out(s, [0, 1], v) for v in range(2)), rel=1e-12)
    assert term.count == 2


def test_antmmfs_middle_clip() -> None:
    """Its matrix has a row of each text for each clip; only the middle row and column of a sample count."""
    b, p = 3, 2
    clips, text = unit(b, p, 8), unit(b, 8, seed=3)
    similarity = text.repeat_interleave(p, 0) @ clips.flatten(0, 1).T  # (b * p, b * p)
    losses = []
    for i in range(b):
        r = i * p + p // 2
        own = range(i * p, i * p + p)
        right = sum(math.exp(similarity[t, r]) for t in own)
        texts = sum(math.exp(similarity[t, r]) for t in range(b * p))
        videos = sum(math.exp(similarity[r, c]) for c in range(b * p) if c not in own)
        losses.append(-math.log(right / (texts + videos)))
    term = MilNce(temperature=1.0, clips="middle")(clips, text, torch.arange(b))
    assert float(term.sum) == pytest.approx(sum(losses), rel=1e-12)


def moco(**sizes: int) -> Moco:
    loss = Moco(temperature=0.1, momentum=0.9, **({"video_queue": 5, "text_queue": 4} | sizes))
    loss.build(8)
    return loss.double()


def test_moco_is_its_formula() -> None:
    loss = moco()
    clips, text, key_clips, key_text = unit(2, 3, 8), unit(3, 8, seed=1), unit(2, 3, 8, seed=2), unit(3, 8, seed=3)
    owner = [1, 0, -1]
    expected = 0.0
    for t, v in enumerate(owner[:2]):
        of_video = []
        for c in range(3):
            right = math.exp(clips[v, c] @ key_text[t] / 0.1)
            queue = sum(math.exp(clips[v, c] @ key / 0.1) for key in loss.text_keys)
            of_video.append(math.log(right + queue) - math.log(right))
        rights = sum(math.exp(text[t] @ key_clips[v, c] / 0.1) for c in range(3))
        queue = sum(math.exp(text[t] @ key / 0.1) for key in loss.video_keys)
        expected += (sum(of_video) / 3 + math.log(rights + queue) - math.log(rights)) / 2
    term = loss.compare(clips, text, torch.tensor(owner), key_clips, key_text)
    assert float(term.sum) == pytest.approx(expected, rel=1e-12)
    assert term.count == 2


def test_the_oldest_keys_make_room() -> None:
    loss = moco()
    first = [row.clone() for row in loss.text_keys]
    keys = unit(3, 8, seed=5)
    loss.remember(unit(1, 2, 8, seed=4), keys)
    torch.testing.assert_close(loss.text_keys, torch.stack([*keys, first[3]]))
    more = unit(2, 8, seed=6)
    loss.remember(unit(1, 2, 8, seed=7), more)
    torch.testing.assert_close(loss.text_keys, torch.stack([more[1], keys[1], keys[2], more[0]]))
    assert loss.places.tolist() == [4, 1]
    many = unit(9, 8, seed=8)
    loss.remember(unit(1, 1, 8), many)
    assert {tuple(row) for row in loss.text_keys.tolist()} == {tuple(row) for row in many[-4:].tolist()}


def test_keys_that_overflowed_do_not_enter_the_queues() -> None:
    loss = moco()
    first = loss.text_keys.clone()
    keys = unit(3, 8, seed=5)
    keys[1, 4] = math.inf
    loss.remember(unit(1, 2, 8, seed=4) * math.nan, keys)
    torch.testing.assert_close(loss.text_keys, torch.stack([keys[0], first[1], keys[2], first[3]]))
    assert loss.video_keys.isfinite().all()


def test_moco_needs_keys() -> None:
    with pytest.raises(ComponentError, match="needs momentum encoders"):
        moco()(unit(2, 8), unit(2, 8), torch.arange(2))
