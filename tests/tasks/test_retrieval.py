"""The retrieval task with encoders small enough to follow."""

from __future__ import annotations

import hashlib
import pickle

import pytest
import torch
from antmmf.batch import Batch
from antmmf.contracts import Record, Sample
from antmmf.errors import ComponentError, DataError
from antmmf.task import Features
from antmmf_tasks.losses.infonce import InfoNCE
from antmmf_tasks.metrics.choice import Choice
from antmmf_tasks.metrics.recall import Recall
from antmmf_tasks.tasks.retrieval import Retrieval
from tiny import TinyText, TinyVision
from torch import Tensor


def task(*, vision: int = 4, text: int = 4, dim: int | None = None, shuffle_control: bool = False) -> Retrieval:
    torch.manual_seed(0)
    return Retrieval(
        vision=TinyVision(vision),
        text=TinyText(text),
        loss=InfoNCE(),
        dim=dim,
        max_negatives=1,
        shuffle_control=shuffle_control,
    )


def sample(key: int, texts: tuple[str, ...], negatives: tuple[str, ...] = (), size: tuple[int, int] = (4, 4)) -> Sample:
    generator = torch.Generator().manual_seed(key)
    frames = torch.randint(1, 256, (2, 3, 3, *size), dtype=torch.uint8, generator=generator)
    return Sample(key, Record(str(key), "v.mp4", texts=texts, negatives=negatives), frames, texts)


SAMPLES = [
    sample(-9, ("a red ball",), ("ball a red", "x"), (4, 6)),
    sample(5, ("two", "two cats run"), (), (5, 3)),
    sample(7, ("two",), ("no dog",), (2, 2)),
]


def test_training_batch_pads_and_gives_false_texts_to_nobody() -> None:
    batch = pickle.loads(pickle.dumps(task().collator(True)))(SAMPLES)
    assert batch.owner.tolist() == [0, 1, 1, 2, -1, -1]
    assert batch.frames.shape == (3, 2, 3, 3, 5, 6)
    assert batch.sizes.tolist() == [[4, 6], [5, 3], [2, 2]]
    assert torch.equal(batch.frames[1, ..., :5, :3], SAMPLES[1].frames)
    assert not batch.frames[1, ..., 3:].any()
    assert batch.tokens.tolist()[:2] == [[3, 5, 6], [5, 0, 0]]
    assert batch.token_mask.sum(1).tolist() == [3, 1, 3, 1, 3, 2]
    assert batch.tokens.tolist()[4:] == [[6, 3, 5], [4, 5, 0]]  # max_negatives=1: not "x"


def test_training_gives_the_loss_of_the_vectors_and_gradients_to_both_encoders() -> None:
    model = task(dim=3).train()
    batch = model.collator(True)(SAMPLES)
    output = model(batch)
    features = model.encode(batch)
    expected = InfoNCE()(features.video, features.text, batch.owner)
    assert not output.rows
    assert output.terms["contrastive"].sum.item() == expected.sum.item()
    assert int(output.terms["contrastive"].count) == 3
    output.terms["contrastive"].sum.backward()
    assert all(value.grad is not None for value in model.parameters())


@pytest.mark.parametrize("tile", [None, 2])
@pytest.mark.parametrize("sizes", [[3], [1, 2], [2, 1], [1, 1, 1]])
def test_D19_loss_of_joined_micro_batches_of_any_sizes_is_that_of_the_batch(sizes: list[int], tile: int | None) -> None:
    model = Retrieval(vision=TinyVision(4), text=TinyText(4), loss=InfoNCE(tile=tile), max_negatives=1).double()
    collate = model.collator(True)
    whole = model.loss(model.encode(collate(SAMPLES)))["contrastive"]
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    parts = [model.encode(collate(SAMPLES[end - size : end])) for size, end in zip(sizes, ends, strict=True)]
    shifted = [
        torch.where(part.owner >= 0, part.owner + end - size, -1)
        for part, size, end in zip(parts, sizes, ends, strict=True)
    ]
    vectors = [torch.cat([getattr(part, side) for part in parts]) for side in ("video", "text")]
    joined = model.loss(Features(*vectors, torch.cat(shifted)))["contrastive"]
    assert joined.sum.item() == pytest.approx(whole.sum.item(), rel=1e-12)
    assert int(joined.count) == int(whole.count) == 3
    if len(sizes) > 1:  # the wrong rule: the mean of the micro-batches' own losses, which see fewer negatives
        own = [model.loss(part)["contrastive"] for part in parts]
        wrong = sum((term.sum / term.count).item() for term in own) / len(own)
        assert wrong != pytest.approx((whole.sum / whole.count).item(), rel=0.01)


def evaluate(model: Retrieval, samples: list[Sample]) -> tuple[Batch, dict[str, Tensor]]:
    model.eval()
    batch = pickle.loads(pickle.dumps(model.collator(False)))(samples)
    with torch.no_grad():
        output = model(batch)
    assert not output.terms
    return batch, dict(output.rows)


def test_evaluation_rows_say_whose_each_text_is() -> None:
    _, rows = evaluate(task(dim=3), SAMPLES)
    assert rows["video_id"].tolist() == [-9, 5, 7]
    assert rows["text_video_id"].tolist() == [-9, 5, 5, 7]
    assert rows["negative_video_id"].tolist() == [-9, -9, 7]
    assert rows["text_hash"][1] == rows["text_hash"][3] != rows["text_hash"][0]
    digest = hashlib.blake2b(b"x", digest_size=8).digest()
    assert rows["negative_text_hash"][1] == int.from_bytes(digest, "little", signed=True)
    for name in ("video", "text", "negative"):
        assert rows[name].dtype == torch.float32
        assert torch.allclose(rows[name].norm(dim=1), torch.ones(len(rows[name])))
    assert "video_shuffled" not in rows


def test_rows_do_not_depend_on_the_batch_a_sample_is_in() -> None:
    model = task(shuffle_control=True)
    _, together = evaluate(model, SAMPLES)
    for row, one in enumerate(SAMPLES):
        _, alone = evaluate(model, [one])
        assert torch.allclose(alone["video"][0], together["video"][row])
        assert torch.allclose(alone["video_shuffled"][0], together["video_shuffled"][row])


def test_shuffle_control_shows_the_same_frames_in_another_order() -> None:
    model = task(shuffle_control=True)
    batch, rows = evaluate(model, SAMPLES)
    for row, one in enumerate(SAMPLES):
        order = batch.extras["frame_order"][row]
        assert sorted(order.tolist()) == list(range(6))
        for column, shown in enumerate((order, order.flip(0))):
            frames = one.frames.flatten(0, 1)[shown].view_as(one.frames)
            _, expected = evaluate(model, [Sample(one.id, one.record, frames, one.texts)])
            assert torch.allclose(rows["video_shuffled"][row, column], expected["video"][0])
    assert not torch.equal(batch.extras["frame_order"][0], batch.extras["frame_order"][1])


def test_rows_feed_the_metrics() -> None:
    _, rows = evaluate(task(shuffle_control=True), SAMPLES)
    recall, choice = Recall(), Choice()
    recall.update(rows)
    choice.update(rows)
    assert {"t2v/R1", "v2t/MdR"} <= set(recall.compute())
    assert set(choice.compute()) == {"choice/accuracy", "choice/shuffled/accuracy"}


def test_a_split_without_false_texts_has_empty_rows_for_them() -> None:
    _, rows = evaluate(task(), [SAMPLES[1]])
    assert rows["negative"].shape == (0, 4)


def test_unequal_encoders_need_a_projection() -> None:
    with pytest.raises(ComponentError, match="vision has 4 and text 6; set dim, for example dim=4"):
        task(text=6)
    _, rows = evaluate(task(text=6, dim=5), SAMPLES)
    assert rows["video"].shape[1] == rows["text"].shape[1] == 5


def test_a_loss_by_name_is_refused_outside_a_config() -> None:
    with pytest.raises(ComponentError, match="only a config may give its name"):
        Retrieval(vision=TinyVision(2), text=TinyText(2))


def test_samples_that_do_not_fit_are_named() -> None:
    collate = task().collator(True)
    with pytest.raises(DataError, match="12: retrieval needs at least one text"):
        collate([sample(12, ())])
    short = Sample(3, Record("short", "v.mp4"), torch.zeros(2, 2, 3, 4, 4, dtype=torch.uint8), ("a",))
    with pytest.raises(DataError, match=r"short: .* \(2, 3, 3\), this one has \(2, 2, 3\)"):
        collate([SAMPLES[0], short])
