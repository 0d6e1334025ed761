"""Answers to questions: which are known, what the loss counts, what the metric counts."""

from __future__ import annotations

import pytest
import torch
from antmmf.assets import RunAssets
from antmmf.contracts import Record, Sample
from antmmf.errors import ComponentError
from antmmf_tasks.metrics.accuracy import Accuracy
from antmmf_tasks.metrics.intervals import wilson
from antmmf_tasks.tasks.collate import name_bytes
from antmmf_tasks.tasks.vqa import Vqa, by_frequency
from tiny import FusingText, TinyText, TinyVision

ANSWERS = ["red", "blue", "red", "two", "blue", "red"]


def make_task(answers: list[str] = ANSWERS) -> Vqa:
    torch.manual_seed(0)
    assets = RunAssets(texts=lambda: iter(()), answers=lambda: iter(answers))
    return Vqa(vision=TinyVision(4), text=FusingText(4), dropout=0.0, assets=assets)


def make_sample(number: int, answer: str | None, kind: str = "what") -> Sample:
    record = Record(key=f"q{number}", media="", question="what is it", answer=answer, extras={"kind": kind})
    frames = torch.full((1, 2, 3, 4, 4), 40 * number % 256, dtype=torch.uint8)
    return Sample(id=number, record=record, frames=frames, texts=())


def test_answers_are_known_by_how_often_they_are_given() -> None:
    assert by_frequency(iter(ANSWERS)) == ["red", "blue", "two"]
    assert by_frequency(iter(["b", "a"])) == ["a", "b"]


def test_a_question_with_an_unknown_answer_adds_nothing_to_the_loss() -> None:
    task = make_task().train()
    known = [make_sample(1, "blue"), make_sample(2, "two")]
    collate = task.collator(True)
    alone = task(collate(known)).terms["answer"]
    more = task(collate([*known, make_sample(3, "green")])).terms["answer"]
    assert alone.count == more.count == 2
    torch.testing.assert_close(alone.sum, more.sum)


def test_the_loss_is_the_cross_entropy_of_the_right_answer() -> None:
    task = make_task().train()
    batch = task.collator(True)([make_sample(1, "blue")])
    fused = task.text.fuse(batch.tokens, batch.token_mask, task.vision(batch.frames, batch.sizes))
    logits = task.classifier(torch.tanh(task.fused_pooler.dense(fused.pooled)))[0]
    expected = -(logits[1].exp() / logits.exp().sum()).log()
    torch.testing.assert_close(task(batch).terms["answer"].sum, expected)


def test_evaluation_counts_an_unknown_answer_as_wrong() -> None:
    task = make_task().eval()
    samples = [make_sample(n, answer) for n, answer in enumerate(["red", "green", "grey"])]
    rows = task(task.collator(False)(samples)).rows
    assert rows["target"].tolist() == [0, -1, -1]
    metric = Accuracy()
    metric.update({**rows, "chosen": torch.tensor([[0], [0], [-1]])})
    found = metric.compute()
    assert found["accuracy"].n == 3
    assert found["unknown"].value == pytest.approx(200 / 3)


def test_a_question_that_nobody_has_answered_does_not_count() -> None:
    task = make_task().eval()
    samples = [make_sample(n, answer) for n, answer in enumerate(["red", None, "green", None])]
    rows = {**task(task.collator(False)(samples)).rows, "chosen": torch.tensor([[0], [0], [1], [1]])}
    metric = Accuracy()
    metric.update(rows)
    found = metric.compute()
    assert [(found[name].value, found[name].n) for name in ("accuracy", "unknown")] == [(50, 2), (50, 2)]
    metric.reset()
    metric.update({name: values[1::2] for name, values in rows.items()})
    assert metric.compute() == {}


def test_accuracy_of_each_kind_and_each_question_once() -> None:
    metric = Accuracy()
    rows = {
        "id": torch.tensor([5, 6, 7, 5]),
        "chosen": torch.tensor([[1, 0], [2, 1], [0, 1], [1, 0]]),
        "target": torch.tensor([1, 1, 0, 1]),
        "kind": name_bytes(["what", "what", "who", "what"]),
    }
    metric.update({name: values[:2] for name, values in rows.items()})
    metric.update({name: values[2:] for name, values in rows.items()})
    found = metric.compute()
    assert found["accuracy"].value == pytest.approx(200 / 3)
    assert found["accuracy/what"].value == 50
    assert found["accuracy/who"].value == 100
    low, high = wilson(1, 2)
    assert (found["accuracy/what"].low, found["accuracy/what"].high) == pytest.approx((100 * low, 100 * high))


def test_predictions_name_the_best_answers() -> None:
    task = make_task().eval()
    sample = make_sample(1, "blue")
    (line,) = task.predictions(task(task.collator(False)([sample])).rows, lambda _: sample.record)
    assert (line["question"], line["truth"]) == ("what is it", "blue")
    assert sorted(answer["answer"] for answer in line["answers"]) == ["blue", "red", "two"]
    assert sum(answer["probability"] for answer in line["answers"]) == pytest.approx(1)


def test_what_the_task_needs() -> None:
    with pytest.raises(ComponentError, match="needs training questions"):
        make_task([])
    assets = RunAssets(texts=lambda: iter(()), answers=lambda: iter(ANSWERS))
    with pytest.raises(ComponentError, match="must offer fuse"):
        Vqa(vision=TinyVision(4), text=TinyText(4), assets=assets)
    with pytest.raises(ComponentError, match=r"text_encoder\.params\.video_dim to 6"):
        Vqa(vision=TinyVision(6), text=FusingText(4), assets=assets)
