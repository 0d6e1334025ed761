"""From samples to padded tensors; what the collators of all tasks share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from antmmf.contracts import Sample
from antmmf.data.keyed import generator
from antmmf.errors import DataError
from torch import Tensor

NAME_SIZE = 16


def pad_frames(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """``frames`` (B, C, F, 3, H, W) with the batch's largest H and W, zeros right and below, and ``sizes`` (B, 2).

    Raises ``DataError`` when the samples differ in clips or frames.
    """
    shapes = [sample.frames.shape for sample in samples]
    for sample, shape in zip(samples, shapes, strict=True):
        if shape[:3] != shapes[0][:3]:
            raise DataError(
                f"{sample.record.key}: all samples of a batch must have the same clips, frames and channels "
                f"{tuple(shapes[0][:3])}, this one has {tuple(shape[:3])}; the sampler must repeat frames"
            )
    sizes = torch.tensor([shape[3:] for shape in shapes], dtype=torch.int64)
    height, width = (int(size) for size in sizes.amax(0))
    frames = torch.zeros(len(samples), *shapes[0][:3], height, width, dtype=torch.uint8)
    for row, sample in zip(frames, samples, strict=True):
        row[..., : sample.frames.shape[3], : sample.frames.shape[4]] = sample.frames
    return frames, sizes


def pad_tokens(ids: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """``tokens`` (N, L) int64 and ``token_mask`` (N, L), padded on the right to the longest."""
    lengths = torch.tensor([len(row) for row in ids], dtype=torch.int64)
    longest = int(lengths.max()) if ids else 0
    tokens = torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in ids], dtype=torch.int64)
    return tokens.reshape(len(ids), longest), torch.arange(longest) < lengths[:, None]


def text_hash(text: str) -> int:
    """A 64-bit hash of the exact string, signed so that it fits an int64 tensor."""
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little", signed=True
    )


def name_bytes(names: Sequence[str]) -> Tensor:
    """Short names as rows, (B, 16) uint8: what is longer is cut, what is shorter ends in zeros."""
    rows = [list(name.encode()[:NAME_SIZE].ljust(NAME_SIZE, b"\0")) for name in names]
    return torch.tensor(rows, dtype=torch.uint8).reshape(len(rows), NAME_SIZE)


def question_extras(samples: Sequence[Sample], told: Sequence[bool]) -> dict[str, Tensor]:
    """What evaluation is told of questions: ``kind`` (B, 16), ``media`` (B,), and ``told`` (B,)."""
    return {
        "kind": name_bytes([str(sample.record.extras.get("kind", "")) for sample in samples]),
        "media": torch.tensor([text_hash(sample.record.media) for sample in samples]),
        "told": torch.tensor(told),
    }


def frame_order(sample_id: int, num_frames: int) -> np.ndarray:
    """A random order of a clip's frames, the same for this sample in every run: (num_frames,) int64."""
    return generator(0, "frame order", sample_id).permutation(num_frames)
