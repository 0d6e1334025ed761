"""The contrastive loss in strips, against the whole matrix of pairs and autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from antmmf.contrastive import text_shares, tiled_info_nce
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

SCALE = 8.0


def rows(num: int, seed: int, dim: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(num, dim, dtype=torch.float64, generator=generator), dim=1).to(dtype)


def owners(num_texts: int, num_videos: int, seed: int = 0) -> Tensor:
    """Any video or nobody (-1), in any order; some videos have many texts, some none."""
    return torch.randint(-1, num_videos, (num_texts,), generator=torch.Generator().manual_seed(seed))


def whole(video: Tensor, text: Tensor, owner: Tensor, scale: Tensor | float) -> Tensor:
    """The loss from the whole matrix, video by video."""
    logits = scale * (text @ video.T)  # (N, B)
    log_p = (logits.log_softmax(0) + logits.log_softmax(1)) / 2
    mine = [(i, owner == i) for i in range(len(video))]
    return -sum((log_p[texts, i].mean() for i, texts in mine if texts.any()), start=logits.sum() * 0)


def gradients(loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, inputs))


class Watch(TorchDispatchMode):
    """What the operations inside made: elements of the largest tensor, and products of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.num_products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, (tuple, list)) else [result]
        self.largest = max([self.largest, *(part.numel() for part in made if isinstance(part, Tensor))])
        self.num_products += "mm" in func.overloadpacket.__name__
        return result


@pytest.mark.parametrize("tile", [1, 3, 4, 1000])
@pytest.mark.parametrize(("num_videos", "num_texts"), [(5, 9), (9, 5), (1, 1), (1, 4), (8, 8), (6, 25)])
def test_strips_give_the_loss_and_gradients_of_the_whole_matrix(num_videos: int, num_texts: int, tile: int) -> None:
    inputs = [rows(num_videos, 1), rows(num_texts, 2), torch.tensor([SCALE], dtype=torch.float64)]
    video, text, scale = (value.requires_grad_() for value in inputs)
    owner = owners(num_texts, num_videos)
    term = tiled_info_nce(video, text, owner, scale=scale, tile=tile)
    expected = whole(video, text, owner, scale)
    assert term.sum.shape == ()
    assert int(term.count) == len(owner[owner >= 0].unique())
    torch.testing.assert_close(term.sum, expected, rtol=1e-12, atol=1e-13)
    # weighted, as a term in a loss is
    ours, theirs = gradients(3 * term.sum, [video, text, scale]), gradients(3 * expected, [video, text, scale])
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("num_texts", [0, 3])
def test_texts_of_nobody_alone_give_no_loss_and_no_gradient(num_texts: int) -> None:
    video, text = rows(4, 1).requires_grad_(), rows(num_texts, 2).requires_grad_()
    term = tiled_info_nce(video, text, torch.full((num_texts,), -1), scale=SCALE, tile=2)
    assert (term.sum.item(), int(term.count)) == (0.0, 0)
    assert all(not grad.any() for grad in gradients(term.sum, [video, text]))


def test_no_operation_makes_the_matrix_of_all_pairs() -> None:
    video, text, owner = rows(200, 1).requires_grad_(), rows(300, 2).requires_grad_(), owners(300, 200)
    tile, num_buffers = 8, 2
    with Watch() as ours:
        tiled_info_nce(video, text, owner, scale=SCALE, tile=tile).sum.backward()
    with Watch() as theirs:
        whole(video, text, owner, SCALE).backward()
    assert ours.largest <= num_buffers * tile * 200
    assert theirs.largest == 300 * 200  # what is watched for can be seen


@pytest.mark.parametrize("wanted", [[True, False, False], [False, True, False], [False, False, True]])
def test_a_gradient_is_computed_for_those_inputs_alone_that_need_it(wanted: list[bool]) -> None:
    values = [rows(5, 1), rows(7, 2), torch.tensor([SCALE], dtype=torch.float64)]
    owner, every = owners(7, 5), [value.clone().requires_grad_() for value in values]
    expected = gradients(whole(every[0], every[1], owner, every[2]), every)
    inputs = [value.requires_grad_(need) for value, need in zip(values, wanted, strict=True)]
    with Watch() as watch:
        tiled_info_nce(inputs[0], inputs[1], owner, scale=inputs[2], tile=3).sum.backward()
    num_strips = 3
    assert watch.num_products == num_strips * 3  # logits, logits again, one side's gradient
    assert [value.grad is not None for value in inputs] == wanted
    at = wanted.index(True)
    torch.testing.assert_close(inputs[at].grad, expected[at], rtol=1e-12, atol=1e-13)


def test_nothing_is_recorded_where_nothing_needs_a_gradient() -> None:
    assert not tiled_info_nce(rows(3, 1), rows(3, 2), torch.arange(3), scale=SCALE, tile=2).sum.requires_grad


def test_half_precision_vectors_are_compared_in_float32_also_under_autocast() -> None:
    video, text = (rows(n, n, dtype=torch.bfloat16).requires_grad_() for n in (6, 9))
    owner = owners(9, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = tiled_info_nce(video, text, owner, scale=SCALE, tile=4).sum
        ours = gradients(loss, [video, text])
    assert loss.dtype == torch.float32
    exact = [value.detach().double().requires_grad_() for value in (video, text)]
    expected = whole(*exact, owner, SCALE)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for grad, other in zip(ours, gradients(expected, exact), strict=True):
        assert grad.dtype == torch.bfloat16
        torch.testing.assert_close(grad.double(), other, rtol=2**-8, atol=1e-6)  # one rounding to bfloat16


@pytest.mark.parametrize("scale", [1e-3, 1e2, 1e4])
def test_neither_small_nor_large_logits_overflow_in_float32(scale: float) -> None:
    video, text, owner = rows(40, 1).float().requires_grad_(), rows(50, 2).float().requires_grad_(), owners(50, 40)
    loss = tiled_info_nce(video, text, owner, scale=scale, tile=7).sum
    exact = [value.detach().double().requires_grad_() for value in (video, text)]
    expected = whole(*exact, owner, scale)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for grad, other in zip(gradients(loss, [video, text]), gradients(expected, exact), strict=True):
        error = (grad.double() - other).norm() / other.norm()
        assert error <= 1e-6 * max(scale, 1)  # logits of this size are rounded to about 1e-7 * scale


def test_the_same_input_gives_the_same_bits() -> None:
    video, text, owner = rows(257, 1).float(), rows(301, 2).float(), owners(301, 257)

    def computed() -> list[Tensor]:
        inputs = [value.clone().requires_grad_() for value in (video, text)]
        loss = tiled_info_nce(*inputs, owner, scale=SCALE, tile=64).sum
        return [loss.detach(), *gradients(loss, inputs)]

    assert all(torch.equal(*pair) for pair in zip(computed(), computed(), strict=True))


def test_a_second_derivative_is_refused() -> None:
    video = rows(3, 1).requires_grad_()
    loss = tiled_info_nce(video, rows(3, 2), torch.arange(3), scale=SCALE, tile=2).sum
    with pytest.raises(RuntimeError, match="can be differentiated once; for more, leave out its tile"):
        torch.autograd.grad(loss, video, create_graph=True)


def test_the_shares_of_a_videos_texts_add_up_to_one() -> None:
    share, num_texts = text_shares(torch.tensor([2, 0, -1, 2, 2]), 4, torch.float64)
    assert num_texts.tolist() == [1, 0, 3, 0]
    torch.testing.assert_close(share, torch.tensor([1 / 3, 1, 0, 1 / 3, 1 / 3], dtype=torch.float64))
