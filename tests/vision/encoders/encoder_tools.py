"""Frames that are noise, and what the tests of several encoders ask."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def noise(*shape: int, seed: int = 1) -> Tensor:
    """(B, C, F, H, W) to frames (B, C, F, 3, H, W)."""
    b, c, f, h, w = shape
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (b, c, f, 3, h, w), dtype=torch.uint8, generator=draw)


def sizes(count: int, height: int, width: int) -> Tensor:
    return torch.tensor([[height, width]]).expand(count, 2)


def whole(frames: Tensor) -> Tensor:
    """The sizes of frames that have no padding."""
    return sizes(len(frames), frames.shape[-2], frames.shape[-1])


def with_rubbish(frames: Tensor, *, height: int, width: int) -> Tensor:
    """``frames`` in the upper left corner of larger ones."""
    padded = noise(*frames.shape[:3], height, width, seed=9)
    padded[..., : frames.shape[-2], : frames.shape[-1]] = frames
    return padded


def normalised(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """What a library's transform makes of pixels: scaled to 0..1, then shifted and scaled by channel."""
    return (frames / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def randomised(network: nn.Module) -> nn.Module:
    """Give every parameter and floating buffer of ``network`` values that no constructor would, in place."""
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.mul_(1.1).add_(0.02 * torch.rand_like(value))  # variances stay positive
    return network.eval()


def gradients_and_kept(encoder: Any, frames: Tensor) -> tuple[dict[str, Tensor], int]:
    """The gradients of a loss on all outputs, and how many numbers were kept for the backward pass."""
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    encoder.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = encoder(frames, whole(frames))
        loss = out.pooled.square().sum() + out.tokens.square().sum()
    loss.backward()
    named = dict(encoder.named_parameters())
    return {name: value.grad.clone() for name, value in named.items() if value.grad is not None}, kept


def check_recomputing(make: Callable[[bool], Any], frames: Tensor) -> None:
    """Recomputing keeps less and changes no gradient, and a deep copy computes with its own weights."""
    plain, again = make(False), make(True)
    again.load_state_dict(plain.state_dict())
    expected, much = gradients_and_kept(plain, frames)
    gradients, little = gradients_and_kept(again, frames)
    assert little < much
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)
    copied = copy.deepcopy(again)
    for parameter in again.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(gradients_and_kept(copied, frames)[0], expected)
