"""The contrastive loss against its formula, written out pair by pair in float64."""

from __future__ import annotations

import math

import pytest
import torch
from antmmf_tasks.losses.infonce import InfoNCE
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


def unit(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, 5, dtype=torch.float64, generator=generator), dim=1)


def by_hand(video: Tensor, text: Tensor, owner: list[int], temperature: float) -> tuple[float, int]:
    score = [[float(v @ t) / temperature for v in video] for t in text]
    total, count = 0.0, 0
    for i in range(len(video)):
        mine = [j for j, o in enumerate(owner) if o == i]
        if not mine:
            continue
        texts = math.log(sum(math.exp(score[j][i]) for j in range(len(text))))
        videos = [math.log(sum(math.exp(score[j][k]) for k in range(len(video)))) for j in mine]
        logs = [(score[j][i] - texts) + (score[j][i] - videos[m]) for m, j in enumerate(mine)]
        total -= sum(logs) / len(mine) / 2
        count += 1
    return total, count


@pytest.mark.parametrize("tile", [None, 2])
@pytest.mark.parametrize("owner", [[0, 1, 2], [2, 0, 0, 1, -1, -1], [0, 0, -1], [1, 1, 1, 2]])
def test_infonce_is_its_formula(owner: list[int], tile: int | None) -> None:
    video, text = unit(3, 0), unit(len(owner), 1)
    term = InfoNCE(temperature=0.3, tile=tile)(video, text, torch.tensor(owner))
    total, count = by_hand(video, text, owner, 0.3)
    assert term.sum.item() == pytest.approx(total, rel=1e-12)
    assert int(term.count) == count


def test_one_text_a_video_is_the_loss_of_clip() -> None:
    video, text = unit(6, 2), unit(6, 3)
    logits = video @ text.T / 0.05
    target = torch.arange(6)
    expected = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
    term = InfoNCE(temperature=0.05)(video, text, target)
    assert (term.sum / term.count).item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_text_of_nobody_pushes_videos_away_but_has_no_place_in_text_to_video() -> None:
    video, text = unit(2, 4), unit(3, 5).requires_grad_()
    InfoNCE(temperature=0.5)(video, text, torch.tensor([0, 1, -1])).sum.backward()
    chance = (text.detach() @ video.T / 0.5).softmax(0)[2]  # (2,), only the denominators of both videos
    assert text.grad is not None
    assert torch.allclose(text.grad[2], (chance[:, None] * video / 0.5).sum(0) / 2)


@pytest.mark.parametrize("num_texts", [0, 2])
def test_a_batch_without_owned_texts_counts_nothing(num_texts: int) -> None:
    video = unit(2, 6).requires_grad_()
    term = InfoNCE()(video, unit(num_texts, 7), torch.full((num_texts,), -1))
    term.sum.backward()
    assert (term.sum.item(), int(term.count)) == (0.0, 0)
    assert video.grad is not None
    assert not video.grad.any()


def test_learned_temperature_starts_as_given_and_gets_a_gradient() -> None:
    video, text, owner = unit(4, 8), unit(4, 9), torch.arange(4)
    learned, fixed = InfoNCE(temperature=0.2, learned=True), InfoNCE(temperature=0.2)
    term = learned(video, text, owner)
    assert term.sum.item() == pytest.approx(fixed(video, text, owner).sum.item(), rel=1e-6)
    term.sum.backward()
    assert [name for name, value in learned.named_parameters() if value.grad is not None] == ["log_scale"]
    assert not list(fixed.parameters())


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("owner", [[4, 0, 0, 2, -1, 0, 2, -1], [-1, -1, -1]])
def test_a_tile_changes_neither_loss_nor_gradient(owner: list[int], learned: bool) -> None:
    results = []
    for tile in (None, 1, 3, 1024):
        loss = InfoNCE(temperature=0.1, learned=learned, tile=tile).double()
        video, text = unit(5, 10).requires_grad_(), unit(len(owner), 11).requires_grad_()
        term = loss(video, text, torch.tensor(owner))
        grads = torch.autograd.grad(term.sum, [video, text, *loss.parameters()])
        results.append([term.sum.detach(), torch.as_tensor(term.count), *grads])
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("tile", [None, 2])
def test_learned_temperature_acts_as_a_hundredth_at_least_and_can_come_back(tile: int | None) -> None:
    loss = InfoNCE(temperature=0.001, learned=True, tile=tile)
    expected = InfoNCE(temperature=0.01)(unit(3, 1), unit(3, 2), torch.arange(3)).sum.item()
    term = loss(unit(3, 1), unit(3, 2), torch.arange(3))
    assert term.sum.item() == pytest.approx(expected, rel=1e-4)
    term.sum.backward()
    assert loss.log_scale is not None
    assert loss.log_scale.shape == (1,)  # FSDP2 shards no parameter without a dimension
    assert loss.log_scale.item() == pytest.approx(math.log(1000))  # a copy may be what is seen here: it is not changed
    assert loss.log_scale.grad is not None
    assert loss.log_scale.grad.item() != 0


@pytest.mark.parametrize("tile", [None, 2])
def test_D15_owner_says_whose_a_text_is_not_its_place(tile: int | None) -> None:
    video, text, owner = unit(3, 12), unit(6, 13), torch.tensor([0, 0, 0, 1, 2, 2])
    loss = InfoNCE(temperature=0.2, tile=tile)
    grouped, order = loss(video, text, owner), torch.tensor([4, 0, 3, 5, 2, 1])
    assert loss(video, text[order], owner[order]).sum.item() == pytest.approx(grouped.sum.item(), rel=1e-12)
    by_place = torch.arange(6) // 2  # the wrong rule: equally many texts a video, one video's after the other's
    assert loss(video, text, by_place).sum.item() != pytest.approx(grouped.sum.item(), rel=0.01)


@pytest.mark.parametrize("tile", [None, 3])
def test_half_precision_vectors_are_compared_in_float32(tile: int | None) -> None:
    video, text = unit(4, 1).bfloat16(), unit(4, 2).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term = InfoNCE(tile=tile)(video, text, torch.arange(4))
    expected, _ = by_hand(video.double(), text.double(), [0, 1, 2, 3], 0.05)
    assert term.sum.item() == pytest.approx(expected, rel=1e-5)
