"""Video-text retrieval with two encoders, and with a cross encoder behind them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from antmmf.batch import Batch
from antmmf.contracts import (
    Collator,
    ContrastiveLoss,
    Encoded,
    FusionEncoder,
    Record,
    Sample,
    Term,
    TextEncoder,
    Tokenizer,
    VisionEncoder,
)
from antmmf.distributed.world import World
from antmmf.errors import ComponentError, DataError
from antmmf.task import ContrastiveTask, Features, Share, TaskOutput
from pydantic import Field
from torch import Tensor

from antmmf_tasks.metrics.recall import PAIRS
from antmmf_tasks.pretraining.heads import Head, MatchHead, projections, unit, video_vectors
from antmmf_tasks.pretraining.pairs import group_videos, match_term
from antmmf_tasks.pretraining.settings import Pairs
from antmmf_tasks.tasks.collate import frame_order, pad_frames, pad_tokens, text_hash
from antmmf_tasks.tasks.fusing import FusedPooler, fusion_of
from antmmf_tasks.tasks.ranking import rankings
from antmmf_tasks.tasks.reading import TEXT, VIDEO, longest, pair_scores, read_split, readable

ROWS = (
    *("video", "video_id", "text", "text_video_id", "text_hash"),
    *("negative", "negative_video_id", "negative_text_hash"),
)


class Retrieval(ContrastiveTask):
    """Dual encoder (L1): a video and a text are as similar as the cosine of their vectors. With ``match`` above 0, the
    weight of its loss, there is also a cross encoder (L2), which reads a text together with a video.

    ``dim`` projects both encoders to that size; without it their sizes must be equal. ``head: mlp`` puts two layers on
    each clip instead and takes the mean, as the pre-training tasks do, so that their checkpoints fit. In training the
    first ``max_negatives`` false texts of each record join the batch as texts that nobody owns; evaluation takes all.
    ``shuffle_control`` also evaluates every clip with its frames in a random order, to see whether order matters.

    In training the cross encoder reads each text with the videos of its group (``pairs``); in evaluation all pairs of a
    split, or with ``rerank`` of each query the so many best candidates by L1. Without ``fusion`` the text encoder
    fuses.

    Evaluation rows: ``video`` (B, dim), ``video_id`` (B,), ``text`` (N, dim), ``text_video_id``, ``text_hash`` (N,),
    ``negative`` (K, dim), ``negative_video_id``, ``negative_text_hash`` (K,) and, with ``shuffle_control``,
    ``video_shuffled`` (B, 2, dim), a random order of the frames and its reverse. Vectors have unit length in float32;
    ids and hashes are int64. With ``match`` also what ``read_split`` says of pairs.
    """

    def __init__(
        self,
        *,
        vision: VisionEncoder,
        text: TextEncoder,
        fusion: FusionEncoder | None = None,
        loss: ContrastiveLoss | str = "antmmf-tasks:infonce",
        dim: Annotated[int, Field(gt=0)] | None = None,
        head: Head = "linear",
        match: Annotated[float, Field(ge=0)] = 0.0,
        pairs: Pairs = Pairs(),  # noqa: B008  # frozen
        rerank: Annotated[int, Field(gt=0)] | None = None,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        max_negatives: Annotated[int, Field(ge=0)] = 4,
        shuffle_control: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(loss, str):
            raise ComponentError(f"loss must be a loss object here, is {loss!r}; only a config may give its name")
        self.vision, self.text, self.fusion = vision, text, fusion
        self.vision_projection, self.text_projection = projections(vision.dim, text.dim, dim, head=head)
        self.contrastive = loss
        self.max_negatives, self.shuffle_control = max_negatives, shuffle_control
        self._head, self._match, self._pairs, self._rerank = head, match, pairs, rerank
        if match:
            fusing = fusion_of(vision, text, fusion)
            self.fused_pooler = FusedPooler(fusing)
            self.match_head = MatchHead(fusing.dim, dropout=dropout)
            self._longest = longest(text.tokenizer)
            self.relate = self._relate
        elif fusion is not None:
            raise ComponentError("a fusion_encoder has no use without match: set match above 0, or take it out")

    @property
    def row_names(self) -> Collection[str]:
        """Those of ``ROWS``, and what the parameters ask for."""
        return [*ROWS, *(PAIRS if self._match else ()), *(("video_shuffled",) if self.shuffle_control else ())]

    def collator(self, train: bool) -> Collator:
        """Training batches hold what the loss needs, evaluation batches also hashes, ids and frame orders."""
        if train:
            return TrainCollator(self.text.tokenizer, self.max_negatives)
        return EvalCollator(self.text.tokenizer, self.shuffle_control)

    def forward(self, batch: Batch) -> TaskOutput:
        features = self.encode(batch)
        if self.training:
            assert not self._match, "a Step calls encode, relate and loss"
            return TaskOutput(terms=self.loss(features))
        rows = text_rows(features, batch)
        rows |= {"video": features.video, "video_id": batch.ids}
        if self.shuffle_control and batch.extras["frame_order"].shape[1] > 1:  # else there is no other order
            order = batch.extras["frame_order"]  # and the same order backwards: what one gains by luck the other loses
            shuffled = [_reorder(batch.frames, order), _reorder(batch.frames, order.flip(1))]
            videos = [self._video(self.vision(frames, batch.sizes)) for frames in shuffled]
            rows["video_shuffled"] = torch.stack(videos, dim=1)  # (B, 2, dim)
        if self._match:
            owned = features.owner >= 0
            rows |= {name: tensor[owned] if name in TEXT else tensor for name, tensor in features.extras.items()}
        return TaskOutput(rows=rows)

    def evaluate_split(self, rows: Mapping[str, Tensor], world: World) -> Mapping[str, Tensor]:
        """Read pairs with the cross encoder, where there is one."""
        if not self._match:
            return rows
        kept = {name: tensor for name, tensor in rows.items() if name not in (*TEXT, *VIDEO)}
        return kept | read_split(self, rows, world, rerank=self._rerank, at_once=self._pairs.at_once)

    def encode(self, batch: Batch) -> Features:
        """Unit vectors in float32 or better, ``video`` (B, dim) and ``text`` (N, dim)."""
        video = self.vision(batch.frames, batch.sizes)
        text = unit(self.text_projection(self.text(batch.tokens, batch.token_mask).pooled))
        extras: dict[str, Tensor] = {}
        if self._match:
            pad_id = self.text.tokenizer.pad_id
            extras = readable(batch.tokens, batch.token_mask, video, length=self._longest, pad_id=pad_id)
        return Features(self._video(video), text, batch.owner, extras)

    def _relate(self, features: Features, share: Share) -> tuple[Mapping[str, Tensor], Mapping[str, Term]]:
        """The cross encoder on this process's texts, each with the videos of its group; a text of nobody with any."""
        owner = features.owner
        videos, real = group_videos(owner.clamp(min=0), len(features.video), self._pairs.group)
        videos, real = videos[share.rows], (real & (owner >= 0)[:, None])[share.rows]
        texts = share.rows.repeat_interleave(videos.shape[1])
        scores = pair_scores(self, features.extras, texts, videos.flatten(), at_once=self._pairs.at_once)
        found = {"match_scores": scores.view_as(videos), "match_videos": videos, "match_real": real}
        return found | {"match_hard": torch.zeros_like(share.real)}, {}

    def loss(self, features: Features) -> Mapping[str, Term]:
        """How well each video and its texts find each other among all of them, and what the cross encoder says."""
        terms = {"contrastive": self.contrastive(features.video, features.text, features.owner)}
        if self._match:
            found = match_term(features)
            terms["match"] = Term(found.sum, found.count, self._match)
        return terms

    def predictions(self, rows: Mapping[str, Tensor], record: Callable[[int], Record]) -> Iterator[dict[str, Any]]:
        """The ten best videos for each text, and the ten best texts for each video."""
        return rankings(rows, record)

    def _video(self, encoded: Encoded) -> Tensor:
        return video_vectors(self.vision_projection, encoded, head=self._head)


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
