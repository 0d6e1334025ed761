"""Open-ended video question answering, as a choice among the answers of the training split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from antmmf.assets import ANSWERS
from antmmf.batch import Batch
from antmmf.contracts import (
    Assets,
    Collator,
    FusionEncoder,
    Json,
    Record,
    Sample,
    Term,
    TextEncoder,
    Tokenizer,
    VisionEncoder,
)
from antmmf.errors import ComponentError, DataError
from antmmf.task import Task, TaskOutput
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from antmmf_tasks.tasks.collate import pad_frames, pad_tokens, question_extras
from antmmf_tasks.tasks.fusing import FusedPooler, fusion_of

NUM_SHOWN = 5


class Vqa(Task):
    """A question is read together with its video, and one of the known answers chosen.

    Known are the answers of the training split, most frequent first: how many is the data set's affair
    (``num_answers``). They are kept as the asset ``answers``, so evaluation and another run that starts from the
    checkpoint know the same. A question whose answer is not known adds nothing to the loss, and counts as wrong in
    evaluation. Without ``fusion`` the text encoder fuses.

    Evaluation rows: ``id`` (B,), ``chosen`` (B, 5 or fewer) the best answers' numbers, ``probability`` beside them,
    ``target`` (B,) the right one's number or -1, ``told`` (B,) False where the record has no answer and does not count,
    ``kind`` (B, 16) uint8, the kind of question, and ``media`` (B,), a hash of the video's name.
    """

    def __init__(
        self,
        *,
        vision: VisionEncoder,
        text: TextEncoder,
        fusion: FusionEncoder | None = None,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        assets: Assets,
    ) -> None:
        super().__init__()
        fusing = fusion_of(vision, text, fusion)
        self.vision = vision
        self.text = text
        self.fusion = fusion
        self.answers: list[str] = assets.of_answers(by_frequency)
        if not self.answers:
            raise ComponentError("vqa needs training questions with answers; the training split has none")
        self.fused_pooler = FusedPooler(fusing)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(fusing.dim, len(self.answers)))

    @property
    def row_names(self) -> Collection[str]:
        """Those that the class names."""
        return ["id", "chosen", "probability", "target", "told", "kind", "media"]

    def collator(self, train: bool) -> Collator:  # noqa: ARG002  # alike in both
        """One question a sample."""
        return QuestionCollator(self.text.tokenizer, {answer: number for number, answer in enumerate(self.answers)})

    def forward(self, batch: Batch) -> TaskOutput:
        assert batch.targets is not None
        video = self.vision(batch.frames, batch.sizes)
        fused = fusion_of(self.vision, self.text, self.fusion).fuse(batch.tokens, batch.token_mask, video)
        logits = self.classifier(self.fused_pooler(fused.pooled))  # (B, A)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        known = batch.targets >= 0
        if self.training:
            losses = cross_entropy(logits, batch.targets.clamp(min=0), reduction="none")
            right = ((logits.argmax(1) == batch.targets) & known).to(losses.dtype)
            terms = {"answer": Term((losses * known).sum(), known.sum()), "accuracy": Term(right.sum(), len(right), 0)}
            return TaskOutput(terms=terms)
        best, chosen = logits.softmax(1).topk(min(NUM_SHOWN, len(self.answers)))
        rows = {"id": batch.ids, "chosen": chosen, "probability": best, "target": batch.targets}
        return TaskOutput(rows={**rows, **batch.extras})

    def fitting(self, tensors: Mapping[str, Tensor], assets: Mapping[str, Json]) -> Mapping[str, Tensor]:
        """Without the classifier of other answers, even where they are as many."""
        if assets.get(ANSWERS) == self.answers:
            return tensors
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}

    def predictions(self, rows: Mapping[str, Tensor], record: Callable[[int], Record]) -> Iterator[dict[str, Any]]:
        """For each question its five best answers with their probabilities."""
        for id, chosen, found in zip(*(rows[name].tolist() for name in ("id", "chosen", "probability")), strict=True):
            asked = record(id)
            best = [{"answer": self.answers[n], "probability": p} for n, p in zip(chosen, found, strict=True)]
            yield {"key": asked.key, "question": asked.question, "truth": asked.answer, "answers": best}


def by_frequency(answers: Iterator[str]) -> list[str]:
    """Each answer once, the most frequent first, equally frequent ones by the alphabet."""
    counts = Counter(answers)
    return sorted(counts, key=lambda answer: (-counts[answer], answer))


@dataclass(frozen=True)
class QuestionCollator:
    """A question is the only text of its video; ``targets`` are numbers of answers, -1 where the answer is unknown."""

    tokenizer: Tokenizer
    numbers: Mapping[str, int]

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        questions = [_question(sample.record) for sample in samples]
        frames, sizes = pad_frames(samples)
        tokens, token_mask = pad_tokens(self.tokenizer(questions), self.tokenizer.pad_id)
        targets = [self.numbers.get(sample.record.answer or "", -1) for sample in samples]
        return Batch(
            ids=torch.tensor([sample.id for sample in samples], dtype=torch.int64),
            frames=frames,
            sizes=sizes,
            tokens=tokens,
            token_mask=token_mask,
            owner=torch.arange(len(samples)),
            targets=torch.tensor(targets, dtype=torch.int64),
            extras=question_extras(samples, [sample.record.answer is not None for sample in samples]),
        )


def _question(record: Record) -> str:
    if not record.question:
        raise DataError(f"{record.key}: question answering needs a question for each record, this has none")
    return record.question
