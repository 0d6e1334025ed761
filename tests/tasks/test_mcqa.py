"""Multiple choice: which option is right, what the loss says, what counts."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from antmmf.contracts import Record, Sample
from antmmf.errors import DataError
from antmmf_tasks.metrics.accuracy import Accuracy
from antmmf_tasks.tasks.mcqa import Mcqa, right_option
from tiny import FusingText, TinyText, TinyVision
from torch import Tensor

OPTIONS = [("a red ball", "two", "no dog at all"), ("cat", "a long dog"), ("x", "yy", "zzz", "what is it")]
ANSWERS = ["two", "cat", "what is it"]


def make(**params: Any) -> Mcqa:
    torch.manual_seed(0)
    return Mcqa(**{"vision": TinyVision(4), "text": FusingText(4), "dropout": 0.0, **params})


def sample(number: int, *, question: str | None = None, **more: Any) -> Sample:
    facts = {"options": OPTIONS[number], "answer": ANSWERS[number], "extras": {"kind": "what"}, **more}
    frames = torch.full((2, 1, 3, 4, 4), 40 * number + 9, dtype=torch.uint8)
    return Sample(id=number + 5, record=Record(f"q{number}", "", question=question, **facts), frames=frames, texts=())


SAMPLES = [sample(0), sample(1), sample(2)]


def scores_of(model: Mcqa, one: Sample) -> Tensor:
    """Each option read with the video by itself."""
    found = []
    for option in one.record.options:
        asked = f"{one.record.question} {option}" if one.record.question else option
        tokens = torch.tensor(model.text.tokenizer([asked]))
        video = model.vision(one.frames[None], torch.tensor([[4, 4]]))
        fused = model.text.fuse(tokens, torch.ones_like(tokens, dtype=torch.bool), video)
        found.append(model.match_head(torch.tanh(model.fused_pooler.dense(fused.pooled)))[0])
    return torch.stack(found)


def test_the_loss_is_the_cross_entropy_over_the_options_of_each_question() -> None:
    model = make().train()
    batch = pickle.loads(pickle.dumps(model.collator(True)))(SAMPLES)
    term = model(batch).terms["choice"]
    expected = sum(
        -scores_of(model, one).log_softmax(0)[one.record.options.index(str(one.record.answer))] for one in SAMPLES
    )
    assert term.count == 3
    torch.testing.assert_close(term.sum, expected)
    term.sum.backward()
    assert all(value.grad is not None for value in model.parameters())


def test_a_question_stands_before_each_option() -> None:
    model = make().eval()
    asked = sample(1, question="what is it")
    with torch.no_grad():
        rows = model(model.collator(False)([asked])).rows
        torch.testing.assert_close(rows["option_score"], scores_of(model, asked))
        assert not torch.equal(rows["option_score"], scores_of(model, SAMPLES[1]))


def test_the_best_option_is_the_answer_and_equal_ones_share() -> None:
    model = make().eval()
    with torch.no_grad():
        rows = dict(model(model.collator(False)(SAMPLES)).rows)
        best = [int(scores_of(model, one).argmax()) for one in SAMPLES]
        equal = sample(0, options=("two", "two", "two"), answer="two")
        shared = model(model.collator(False)([equal])).rows["credit"]
    expected = [float(one.record.options[n] == one.record.answer) for one, n in zip(SAMPLES, best, strict=True)]
    assert rows["credit"].tolist() == expected
    assert shared.tolist() == [pytest.approx(1 / 3)]
    metric = Accuracy()
    metric.update({**rows, "credit": torch.tensor([1.0, 0.0, 0.5])})
    found = metric.compute()
    assert found["accuracy"].value == found["accuracy/what"].value == pytest.approx(50)
    assert "unknown" not in found


def test_vectors_alone_can_choose() -> None:
    model = make(text=TinyText(4), score="contrast", head="linear", temperature=0.1).eval()
    with torch.no_grad():
        rows = model(model.collator(False)(SAMPLES[:1])).rows
        video = model.vision(SAMPLES[0].frames[None], torch.tensor([[4, 4]])).pooled
        for option, score in zip(OPTIONS[0], rows["option_score"], strict=True):
            tokens = torch.tensor(model.text.tokenizer([option]))
            text = model.text(tokens, torch.ones_like(tokens, dtype=torch.bool)).pooled
            expected = torch.cosine_similarity(video, text) / 0.1
            assert score.item() == pytest.approx(expected.item(), rel=1e-5)


def test_predictions_give_every_option_its_probability() -> None:
    model = make().eval()
    with torch.no_grad():
        rows = model(model.collator(False)(SAMPLES)).rows
    lines = list(model.predictions(rows, lambda id: SAMPLES[id - 5].record))
    assert [line["key"] for line in lines] == ["q0", "q1", "q2"]
    assert [tuple(answer["answer"] for answer in line["answers"]) for line in lines] == OPTIONS
    expected = scores_of(model, SAMPLES[1]).softmax(0).tolist()
    assert [answer["probability"] for answer in lines[1]["answers"]] == pytest.approx(expected)


def test_a_label_says_which_of_equal_options_is_meant() -> None:
    assert right_option(Record("q", "", options=("a", "b", "b"), answer="b")) == 1
    assert right_option(Record("q", "", options=("a", "b", "b"), answer="b", extras={"label": 2})) == 2
    for label in (0, 7, -1, "b", 2.0, True):
        with pytest.raises(DataError, match=f"label must number an option, the answer if there is one, is {label!r}"):
            right_option(Record("q", "", options=("a", "b", "b"), answer="b", extras={"label": label}))
    with pytest.raises(DataError, match="needs two options or more, this question has 1"):
        right_option(Record("q", "", options=("a",), extras={"label": 0}))
    for options, answer, said in (
        (("a",), "a", "two options or more, this question has 1"),
        (("a", "b"), "c", "the answer among the options, it is 'c'"),
        (("a", "b"), None, "the answer among the options, it is None"),
    ):
        with pytest.raises(DataError, match=f"q: multiple choice needs {said}"):
            right_option(Record("q", "", options=options, answer=answer))


def test_a_question_without_answer_is_answered_and_does_not_count(caplog: pytest.LogCaptureFixture) -> None:
    model = make().eval()
    asked = [SAMPLES[0], sample(1, answer=None), sample(2, answer=None, extras={"kind": "who"})]
    with torch.no_grad():
        rows = dict(model(model.collator(False)(asked)).rows)
    lines = list(model.predictions(rows, lambda id: asked[id - 5].record))
    assert [(line["truth"], len(line["answers"])) for line in lines] == [("two", 3), (None, 2), (None, 4)]
    metric = Accuracy()
    metric.update({**rows, "credit": torch.tensor([1.0, 0.0, 0.0])})
    with caplog.at_level("INFO", logger="antmmf"):
        found = metric.compute()
    assert {name: (figure.value, figure.n) for name, figure in found.items()} == {
        "accuracy": (100, 1),
        "accuracy/what": (100, 1),
    }
    assert "2 of 3 questions come without the right answer and do not count" in caplog.text
    with pytest.raises(DataError, match="q1: multiple choice needs the answer"):
        model.collator(True)(asked)
