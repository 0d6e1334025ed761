"""RandAugment (arXiv 1909.13719) for clips: one draw for all frames, from the generator that is passed in.

The operations, their ranges and the Gaussian magnitude are those of pytorchvideo, which AntMMF uses. On bytes it has
faults that are not repeated here: ``solarize`` takes a threshold of 0 to 1 and so inverts nearly everything, what
``rotate``, ``shear`` and ``translate`` uncover is black instead of grey, ``posterize`` can keep no bit at all.
What is measured in a picture (``autocontrast``, ``equalize``, ``contrast``) is measured over the whole clip here, so
that a scene which fades still fades and every frame is changed by the same mapping.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional  # type: ignore[import-untyped]

Operation = Callable[[Tensor, float], Tensor]
"""Frames (T, 3, H, W) uint8 and a strength of -1 to 1 to new frames; where a sign has no meaning it is ignored."""

_GREY = 128
_MAGNITUDE_STD = 0.5


def randaugment(
    frames: Tensor, rng: np.random.Generator, *, magnitude: float = 9.0, num_layers: int = 2, prob: float = 0.5
) -> Tensor:
    """Choose ``num_layers`` different operations and apply each with ``prob``; (T, 3, H, W) stays uint8.

    ``magnitude`` is of 10; each operation's is drawn around it (standard deviation 0.5), its sign by a coin.
    """
    names = list(OPERATIONS)
    for choice in rng.choice(len(names), size=num_layers, replace=False):
        if rng.random() >= prob:
            continue
        strength = min(max(rng.normal(magnitude, _MAGNITUDE_STD), 0.0), 10.0) / 10
        sign = 1 if rng.random() < 0.5 else -1
        frames = OPERATIONS[names[choice]](frames, sign * strength)
    return frames


def _autocontrast(frames: Tensor, strength: float) -> Tensor:  # noqa: ARG001
    return _unstacked(functional.autocontrast(_stacked(frames)), frames)


def _brightness(frames: Tensor, strength: float) -> Tensor:
    brighter: Tensor = functional.adjust_brightness(frames, 1 + 0.9 * strength)
    return brighter


def _contrast(frames: Tensor, strength: float) -> Tensor:
    return _unstacked(functional.adjust_contrast(_stacked(frames), 1 + 0.9 * strength), frames)


def _equalize(frames: Tensor, strength: float) -> Tensor:  # noqa: ARG001
    return _unstacked(functional.equalize(_stacked(frames)), frames)


def _invert(frames: Tensor, strength: float) -> Tensor:  # noqa: ARG001
    return 255 - frames


def _posterize(frames: Tensor, strength: float) -> Tensor:
    bits = max(4 - int(4 * abs(strength)), 1)
    posterized: Tensor = functional.posterize(frames, bits)
    return posterized


def _rotate(frames: Tensor, strength: float) -> Tensor:
    rotated: Tensor = functional.rotate(
        frames, 30 * strength, interpolation=InterpolationMode.BILINEAR, fill=[_GREY] * 3
    )
    return rotated


def _saturation(frames: Tensor, strength: float) -> Tensor:
    saturated: Tensor = functional.adjust_saturation(frames, 1 + 0.9 * strength)
    return saturated


def _sharpness(frames: Tensor, strength: float) -> Tensor:
    frames = frames.contiguous(memory_format=torch.channels_last)  # a third of the time
    sharper: Tensor = functional.adjust_sharpness(frames, 1 + 0.9 * strength)
    return sharper


def _shear_x(frames: Tensor, strength: float) -> Tensor:
    return _sheared(frames, x=0.3 * strength, y=0.0)


def _shear_y(frames: Tensor, strength: float) -> Tensor:
    return _sheared(frames, x=0.0, y=0.3 * strength)


def _solarize(frames: Tensor, strength: float) -> Tensor:
    solarized: Tensor = functional.solarize(frames, 255 * (1 - abs(strength)))
    return solarized


def _translate_x(frames: Tensor, strength: float) -> Tensor:
    return _moved(frames, right=round(0.45 * strength * frames.shape[-1]), down=0)


def _translate_y(frames: Tensor, strength: float) -> Tensor:
    return _moved(frames, right=0, down=round(0.45 * strength * frames.shape[-2]))


OPERATIONS: dict[str, Operation] = {
    "autocontrast": _autocontrast,
    "brightness": _brightness,
    "contrast": _contrast,
    "equalize": _equalize,
    "invert": _invert,
    "posterize": _posterize,
    "rotate": _rotate,
    "saturation": _saturation,
    "sharpness": _sharpness,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "solarize": _solarize,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}


def _stacked(frames: Tensor) -> Tensor:
    """All frames below each other as one picture; (T, 3, H, W) to (3, T * H, W)."""
    return frames.transpose(0, 1).flatten(1, 2).contiguous()


def _unstacked(picture: Tensor, like: Tensor) -> Tensor:
    """The reverse of ``_stacked``; (3, T * H, W) to the (T, 3, H, W) of ``like``."""
    return picture.reshape(3, like.shape[0], like.shape[2], like.shape[3]).transpose(0, 1)


def _sheared(frames: Tensor, *, x: float, y: float) -> Tensor:
    """Move each row right by ``x`` times its distance from the top, each column down likewise."""
    degrees = [-math.degrees(math.atan(x)), -math.degrees(math.atan(y))]  # torchvision shears left and up
    sheared: Tensor = functional.affine(
        frames,
        angle=0.0,
        translate=[0, 0],
        scale=1.0,
        shear=degrees,
        interpolation=InterpolationMode.BILINEAR,
        fill=[_GREY] * 3,
        center=[0, 0],
    )
    return sheared


def _moved(frames: Tensor, *, right: int, down: int) -> Tensor:
    """Move by whole pixels; what is uncovered is grey."""
    height, width = frames.shape[-2:]
    moved = torch.full_like(frames, _GREY)
    moved[..., max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = frames[
        ..., max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)
    ]
    return moved
