"""Multiple choice: which of several texts belongs to a video."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from antmmf.batch import Batch
from antmmf.contracts import (
    Collator,
    Encoded,
    FusionEncoder,
    Record,
    Sample,
    Term,
    TextEncoder,
    Tokenizer,
    VisionEncoder,
)
from antmmf.errors import DataError
from antmmf.task import Task, TaskOutput
from pydantic import Field
from torch import Tensor

from antmmf_tasks.pretraining.heads import Head, MatchHead, projections, unit, video_vectors
from antmmf_tasks.tasks.collate import pad_frames, pad_tokens, question_extras
from antmmf_tasks.tasks.fusing import FusedPooler, fusion_of


class Mcqa(Task):
    """The option that fits its video best is the answer; a question, where there is one, stands before each option.

    ``score: match`` reads each option together with the video, as ``retrieval`` and the pre-training tasks do for their
    second level, and takes over their weights: a checkpoint of these answers without training. ``score: contrast``
    compares vectors instead, scaled by 1 / ``temperature``; ``head`` and ``dim`` are those of ``retrieval``. There may
    be any number of options, another one for each question. Without ``fusion`` the text encoder fuses.

    Evaluation rows: ``id`` (B,), ``credit`` (B,), 1 for a right answer and 1 / k for one that shares the best score
    with k - 1 others, ``told`` (B,) False where the record has no answer, which then does not count, ``kind``
    (B, 16) uint8, ``media`` (B,), a hash of the video's name, and of each option ``option_question`` (N,) and
    ``option_score`` (N,).
    """

    def __init__(
        self,
        *,
        vision: VisionEncoder,
        text: TextEncoder,
        fusion: FusionEncoder | None = None,
        score: Literal["match", "contrast"] = "match",
        temperature: Annotated[float, Field(gt=0)] = 0.05,
        head: Head = "mlp",
        dim: Annotated[int, Field(gt=0)] | None = None,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__()
        self.vision, self.text, self.fusion = vision, text, fusion
        self._matches, self._temperature, self._head = score == "match", temperature, head
        if self._matches:
            fusing = fusion_of(vision, text, fusion)
            self.fused_pooler = FusedPooler(fusing)
            self.match_head = MatchHead(fusing.dim, dropout=dropout)
        else:
            self.vision_projection, self.text_projection = projections(vision.dim, text.dim, dim, head=head)

    @property
    def row_names(self) -> Collection[str]:
        """Those that the class names."""
        return ["id", "credit", "told", "kind", "media", "option_question", "option_score"]

    def collator(self, train: bool) -> Collator:
        """The options of a question are the texts of its video; in training each must have its answer."""
        return OptionCollator(self.text.tokenizer, must_be_told=train)

    def forward(self, batch: Batch) -> TaskOutput:
        assert batch.targets is not None
        scores, owner = self._scores(batch), batch.owner  # (N,)
        best = scores.new_full((len(batch.ids),), -torch.inf).scatter_reduce(0, owner, scores.detach(), "amax")
        right = scores[batch.targets]  # (B,)
        is_best = scores == best[owner]
        shared = torch.zeros_like(best).index_add(0, owner, is_best.to(best.dtype))
        credit = torch.where(right == best, 1 / shared, 0)
        if self.training:
            over = torch.zeros_like(best).index_add(0, owner, (scores - best[owner]).exp()).log() + best
            terms = {"choice": Term((over - right).sum(), len(right)), "accuracy": Term(credit.sum(), len(right), 0)}
            return TaskOutput(terms=terms)
        rows = {"id": batch.ids, "credit": credit, "option_question": batch.ids[owner], "option_score": scores}
        return TaskOutput(rows={**rows, **batch.extras})

    def _scores(self, batch: Batch) -> Tensor:
        video = self.vision(batch.frames, batch.sizes)
        if self._matches:
            seen = Encoded(video.tokens[batch.owner], video.mask[batch.owner], video.pooled[batch.owner])
            fused = fusion_of(self.vision, self.text, self.fusion).fuse(batch.tokens, batch.token_mask, seen)
            scores: Tensor = self.match_head(self.fused_pooler(fused.pooled))
            return scores.to(torch.promote_types(scores.dtype, torch.float32))
        vectors = video_vectors(self.vision_projection, video, head=self._head)
        texts = unit(self.text_projection(self.text(batch.tokens, batch.token_mask).pooled))
        return (texts * vectors[batch.owner]).sum(1) / self._temperature

    def predictions(self, rows: Mapping[str, Tensor], record: Callable[[int], Record]) -> Iterator[dict[str, Any]]:
        """For each question its options with their probabilities, in their order."""
        owner, scores = rows["option_question"], rows["option_score"]
        starts = torch.cat([torch.tensor([True]), owner[1:] != owner[:-1]]).nonzero()[:, 0].tolist()
        for start, stop in zip(starts, [*starts[1:], len(owner)], strict=True):
            asked = record(int(owner[start]))
            found = scores[start:stop].double().softmax(0).tolist()
            options = [{"answer": text, "probability": p} for text, p in zip(asked.options, found, strict=True)]
            yield {"key": asked.key, "question": asked.question, "truth": asked.answer, "answers": options}


@dataclass(frozen=True)
class OptionCollator:
    """``targets`` (B,) are the rows of the right options among all of the batch's texts, of a question without answer
    that of its first option."""

    tokenizer: Tokenizer
    must_be_told: bool = False

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        frames, sizes = pad_frames(samples)
        texts: list[str] = []
        owner: list[int] = []
        targets: list[int] = []
        for row, sample in enumerate(samples):
            targets.append(len(texts) + right_option(sample.record, must_be_told=self.must_be_told))
            asked = f"{sample.record.question} " if sample.record.question else ""
            texts += [asked + option for option in sample.record.options]
            owner += [row] * len(sample.record.options)
        tokens, token_mask = pad_tokens(self.tokenizer(texts), self.tokenizer.pad_id)
        return Batch(
            ids=torch.tensor([sample.id for sample in samples], dtype=torch.int64),
            frames=frames,
            sizes=sizes,
            tokens=tokens,
            token_mask=token_mask,
            owner=torch.tensor(owner, dtype=torch.int64),
            targets=torch.tensor(targets, dtype=torch.int64),
            extras=question_extras(samples, [_is_told(sample.record) for sample in samples]),
        )


def _is_told(record: Record) -> bool:
    return record.answer is not None or record.extras.get("label") is not None


def right_option(record: Record, *, must_be_told: bool = True) -> int:
    """The number of the right option: ``extras["label"]``, else the first that equals the answer; without
    ``must_be_told`` 0 where there is no answer. Raises ``DataError``."""
    label, answer, num = record.extras.get("label"), record.answer, len(record.options)
    if num < 2:
        raise DataError(f"{record.key}: multiple choice needs two options or more, this question has {num}")
    if label is not None:
        is_option = type(label) is int and label in range(num)
        if not is_option or answer not in (None, record.options[label]):
            raise DataError(f"{record.key}: label must number an option, the answer if there is one, is {label!r}")
        return int(label)
    if answer is None and not must_be_told:
        return 0
    if answer not in record.options:
        raise DataError(f"{record.key}: multiple choice needs the answer among the options, it is {answer!r}")
    return record.options.index(answer)
