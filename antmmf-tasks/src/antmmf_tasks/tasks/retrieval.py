"""Video-text retrieval with two encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from antmmf.batch import Batch
from antmmf.contracts import (
    Collator,
    ContrastiveLoss,
    Encoded,
    Record,
    Sample,
    Term,
    TextEncoder,
    Tokenizer,
    VisionEncoder,
)
from antmmf.errors import ComponentError, DataError
from antmmf.task import ContrastiveTask, Features, TaskOutput
from pydantic import Field
from torch import Tensor, nn

from antmmf_tasks.pretraining.heads import clip_vectors, projections, unit
from antmmf_tasks.tasks.collate import frame_order, pad_frames, pad_tokens, text_hash
from antmmf_tasks.tasks.ranking import rankings


class Retrieval(ContrastiveTask):
    """Dual encoder: a video and a text are as similar as the cosine of their vectors.

    ``dim`` projects both encoders to that size; without it their sizes must be equal. ``head: mlp`` puts two layers on
    each clip instead and takes the mean, as the pre-training tasks do, so that their checkpoints fit. In training the
    first ``max_negatives`` false texts of each record join the batch as texts that nobody owns; evaluation takes all.
    ``shuffle_control`` also evaluates every clip with its frames in a random order, to see whether order matters.

    Evaluation rows: ``video`` (B, dim), ``video_id`` (B,), ``text`` (N, dim), ``text_video_id``, ``text_hash`` (N,),
    ``negative`` (K, dim), ``negative_video_id``, ``negative_text_hash`` (K,) and, with ``shuffle_control``,
    ``video_shuffled`` (B, 2, dim), a random order of the frames and its reverse. Vectors have
    unit length in float32; ids and hashes are int64.
    """

    def __init__(
        self,
        *,
        vision: VisionEncoder,
        text: TextEncoder,
        loss: ContrastiveLoss | str = "antmmf-tasks:infonce",
        dim: Annotated[int, Field(gt=0)] | None = None,
        head: Literal["linear", "mlp"] = "linear",
        max_negatives: Annotated[int, Field(ge=0)] = 4,
        shuffle_control: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(loss, str):
            raise ComponentError(f"loss must be a loss object here, is {loss!r}; only a config may give its name")
        if dim is None and vision.dim != text.dim and head == "linear":
            raise ComponentError(
                f"without a projection the encoders must have equal sizes, vision has {vision.dim} and text "
                f"{text.dim}; set dim, for example dim={min(vision.dim, text.dim)}"
            )
        self.vision = vision
        self.text = text
        self.vision_projection: nn.Module
        self.text_projection: nn.Module
        if head == "mlp":
            self.vision_projection, self.text_projection = projections(vision.dim, text.dim, dim or vision.dim)
        else:
            self.vision_projection = nn.Identity() if dim is None else nn.Linear(vision.dim, dim, bias=False)
            self.text_projection = nn.Identity() if dim is None else nn.Linear(text.dim, dim, bias=False)
        self._by_clips = head == "mlp"
        self.contrastive = loss
        self.max_negatives = max_negatives
        self.shuffle_control = shuffle_control

    def collator(self, train: bool) -> Collator:
        """Training batches hold what the loss needs, evaluation batches also hashes, ids and frame orders."""
        if train:
            return TrainCollator(self.text.tokenizer, self.max_negatives)
        return EvalCollator(self.text.tokenizer, self.shuffle_control)

    def forward(self, batch: Batch) -> TaskOutput:
        features = self.encode(batch)
        if self.training:
            return TaskOutput(terms=self.loss(features))
        rows = text_rows(features, batch)
        rows |= {"video": features.video, "video_id": batch.ids}
        if self.shuffle_control:
            order = batch.extras["frame_order"]  # and the same order backwards: what one gains by luck the other loses
            shuffled = [_reorder(batch.frames, order), _reorder(batch.frames, order.flip(1))]
            videos = [self._video(self.vision(frames, batch.sizes)) for frames in shuffled]
            rows["video_shuffled"] = torch.stack(videos, dim=1)  # (B, 2, dim)
        return TaskOutput(rows=rows)

    def encode(self, batch: Batch) -> Features:
        """Unit vectors in float32 or better, ``video`` (B, dim) and ``text`` (N, dim)."""
        video = self._video(self.vision(batch.frames, batch.sizes))
        text = unit(self.text_projection(self.text(batch.tokens, batch.token_mask).pooled))
        return Features(video, text, batch.owner)

    def loss(self, features: Features) -> Mapping[str, Term]:
        """How well each video and its texts find each other among all of them."""
        return {"contrastive": self.contrastive(features.video, features.text, features.owner)}

    def predictions(self, rows: Mapping[str, Tensor], record: Callable[[int], Record]) -> Iterator[dict[str, Any]]:
        """The ten best videos for each text, and the ten best texts for each video."""
        return rankings(rows, record)

    def _video(self, encoded: Encoded) -> Tensor:
        if self._by_clips:
            return unit(clip_vectors(self.vision_projection, encoded).mean(1))
        return unit(self.vision_projection(encoded.pooled))


@dataclass(frozen=True)
class TrainCollator:
    """Texts in the order of their videos, then the false texts of all videos with owner -1."""

    tokenizer: Tokenizer
    max_negatives: int

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        negatives = [text for sample in samples for text in sample.record.negatives[: self.max_negatives]]
        return _collate(samples, negatives, self.tokenizer)


@dataclass(frozen=True)
class EvalCollator:
    """As in training, with all false texts, and in extras each text's ``text_hash`` and ``text_video_id`` (the id of
    its video, or of the video that it is false for) and, for ``shuffle_control``, ``frame_order`` (B, C * F)."""

    tokenizer: Tokenizer
    shuffle_control: bool

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        own = [(text, sample.id) for sample in samples for text in sample.texts]
        false = [(text, sample.id) for sample in samples for text in sample.record.negatives]
        extras = {
            "text_hash": torch.tensor([text_hash(text) for text, _ in own + false], dtype=torch.int64),
            "text_video_id": torch.tensor([video_id for _, video_id in own + false], dtype=torch.int64),
        }
        if self.shuffle_control:
            orders = [frame_order(sample.id, sample.frames.shape[0] * sample.frames.shape[1]) for sample in samples]
            extras["frame_order"] = torch.from_numpy(np.stack(orders))
        return _collate(samples, [text for text, _ in false], self.tokenizer, extras)


def _collate(
    samples: Sequence[Sample], negatives: list[str], tokenizer: Tokenizer, extras: dict[str, Tensor] | None = None
) -> Batch:
    for sample in samples:
        if not sample.texts:
            raise DataError(f"{sample.record.key}: retrieval needs at least one text for each video, this has none")
    frames, sizes = pad_frames(samples)
    texts = [text for sample in samples for text in sample.texts]
    owner = [row for row, sample in enumerate(samples) for _ in sample.texts]
    tokens, token_mask = pad_tokens(tokenizer([*texts, *negatives]), tokenizer.pad_id)
    return Batch(
        ids=torch.tensor([sample.id for sample in samples], dtype=torch.int64),
        frames=frames,
        sizes=sizes,
        tokens=tokens,
        token_mask=token_mask,
        owner=torch.tensor([*owner, *[-1] * len(negatives)], dtype=torch.int64),
        extras=extras or {},
    )


def text_rows(features: Features, batch: Batch) -> dict[str, Tensor]:
    """The rows of texts and of false texts that an ``EvalCollator`` batch gives."""
    owned = features.owner >= 0
    ids, hashes = batch.extras["text_video_id"], batch.extras["text_hash"]
    return {
        "text": features.text[owned],
        "text_video_id": ids[owned],
        "text_hash": hashes[owned],
        "negative": features.text[~owned],
        "negative_video_id": ids[~owned],
        "negative_text_hash": hashes[~owned],
    }


def _reorder(frames: Tensor, order: Tensor) -> Tensor:
    """Frames (B, C, F, 3, H, W) in the given order (B, C * F) of each video's frames."""
    flat = frames.flatten(1, 2)  # (B, C * F, 3, H, W)
    rows = torch.arange(len(flat), device=flat.device)[:, None]
    return flat[rows, order].view_as(frames)
