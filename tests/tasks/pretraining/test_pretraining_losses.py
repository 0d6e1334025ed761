"""Every loss of pre-training inside the task, in float64, against its formula written out pair by pair."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from antmmf.batch import Batch
from antmmf.contracts import Encoded, Term
from antmmf.step import Step
from antmmf.task import Features, Share
from antmmf_tasks.losses.infonce import InfoNCE
from antmmf_tasks.losses.moco import Moco
from antmmf_tasks.pretraining.masking import IGNORED
from antmmf_tasks.pretraining.settings import Masking, Matching, Weights, WordMatching
from antmmf_tasks.tasks.pretraining import Pretraining
from antmmf_tasks.tasks.snps3 import Snps3
from pretraining_ranks import BATCH, CLIPS, make_batch, make_task
from torch import Tensor, nn

NAMES = tuple(Weights.model_fields)
METRICS = {
    "contrast": {"contrast/R1", "contrast/R5", "contrast/R10"},
    "match": {"match/R1", "match/R5", "match/R10"},
    "gvtm": {"gvtm/accuracy"},
    "mlm_text": {"mlm_text/accuracy"},
    "mlm": {"mlm/accuracy"},
    "lvwm": {"lvwm/R1", "lvwm/R5", "lvwm/R10"},
    "clip_order": {"clip_order/accuracy"},
}
GROUP = 4


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def only(*names: str, **settings: Any) -> Pretraining:
    """A task with these losses, each of weight 1; the cross encoder sees the masked copy of each text."""
    weights = Weights(**{name: float(name in names) for name in NAMES})
    settings = {"contrast": InfoNCE(), "masking": Masking(attentive=0), **settings}
    return make_task(Snps3, weights=weights, **settings).train()


def share_of(features: Features, seed: int = 5) -> Share:
    num = len(features.text)
    return Share(torch.arange(num), torch.ones(num, dtype=torch.bool), torch.Generator().manual_seed(seed))


def related(task: Pretraining, batch: Batch, seed: int = 5) -> tuple[Features, dict[str, Term]]:
    """The features of a batch with the scores of its pairs, and all terms."""
    assert task.relate is not None
    features = task.encode(batch)
    extras, terms = task.relate(features, share_of(features, seed))
    whole = Features(features.video, features.text, features.owner, {**features.extras, **extras})
    return whole, {**features.terms, **terms, **task.loss(whole)}


def batch_of(task: Pretraining, step: int = 0) -> Batch:
    return make_batch(task, list(range(BATCH)), step)


def mean(term: Term) -> float:
    return float(term.sum) / float(term.count)


def fused(task: Pretraining, batch: Batch, text: int, video: int, *, clips: Tensor | None = None) -> Encoded:
    """What the cross encoder makes of one pair, without its padding."""
    length = int(batch.token_mask[text].sum())
    tokens = batch.extras["masked"][text : text + 1, :length]
    seen = task.vision(batch.frames[video : video + 1], batch.sizes[video : video + 1])
    if clips is not None:
        seen = Encoded(clips[None], seen.mask, seen.pooled)
    found: Encoded = task.text.fuse(tokens, torch.ones(1, length, dtype=torch.bool), seen)  # type: ignore[attr-defined]
    return found


def pooled(task: Pretraining, batch: Batch, text: int, video: int) -> Tensor:
    dense: Any = task.fused_pooler.dense
    return torch.tanh(dense.weight @ fused(task, batch, text, video).tokens[0, 0] + dense.bias)


def perplexity(head: nn.Module, states: Tensor, labels: list[int], table: Tensor) -> tuple[float, float, int]:
    """Cross entropy and right answers summed over the hidden words, and their number."""
    loss, right, num = 0.0, 0.0, 0
    for state, label in zip(states, labels, strict=True):
        if label != IGNORED:
            state = head.transform(state)  # type: ignore[operator]
            scores = [float(row @ state + bias) for row, bias in zip(table, head.bias, strict=True)]  # type: ignore[operator, arg-type]
            loss += math.log(sum(math.exp(score) for score in scores)) - scores[label]
            right += max(range(len(scores)), key=scores.__getitem__) == label
            num += 1
    return loss, right, num


# --- masked words -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_masked_words_of_the_text_alone() -> None:
    task = only("mlm_text")
    batch = batch_of(task)
    loss, right, num = 0.0, 0.0, 0
    for text in range(BATCH):
        length = int(batch.token_mask[text].sum())
        tokens = batch.extras["masked"][text : text + 1, :length]
        states = task.text(tokens, torch.ones(1, length, dtype=torch.bool)).tokens[0]
        labels = batch.extras["labels"][text, :length].tolist()
        found = perplexity(task.text_words, states, labels, task.text.vocabulary)  # type: ignore[attr-defined]
        loss, right, num = loss + found[0], right + found[1], num + found[2]
    terms = task.encode(batch).terms
    assert num == int(terms["mlm_text"].count) > BATCH // 2
    assert float(terms["mlm_text"].sum) == pytest.approx(loss, rel=1e-12)
    assert mean(terms["mlm_text/accuracy"]) == pytest.approx(right / num)


@torch.no_grad()
def test_masked_words_of_text_and_video() -> None:
    task = only("mlm")
    batch = batch_of(task)
    loss, num = 0.0, 0
    for text in range(BATCH):
        length = int(batch.token_mask[text].sum())
        states = fused(task, batch, text, text).tokens[0, :length]
        labels = batch.extras["labels"][text, :length].tolist()
        found = perplexity(task.fused_words, states, labels, task.text.vocabulary)  # type: ignore[arg-type, attr-defined]
        loss, num = loss + found[0], num + found[2]
    _, terms = related(task, batch)
    assert num == int(terms["mlm"].count) > 0
    assert float(terms["mlm"].sum) == pytest.approx(loss, rel=1e-12)


@torch.no_grad()
def test_the_label_of_a_hidden_word_is_not_to_be_seen() -> None:
    """Upstream's text-side loss reads the raw text: defect D7. Other words behind the masks change nothing here."""
    task = only("mlm_text", "mlm", "match", "gvtm")
    batch = batch_of(task)
    hidden = batch.extras["masked"] == task.text.tokenizer.mask_id
    assert hidden.any()
    other = Batch(
        ids=batch.ids,
        frames=batch.frames,
        sizes=batch.sizes,
        tokens=torch.where(hidden, batch.tokens.roll(1), batch.tokens),
        token_mask=batch.token_mask,
        owner=batch.owner,
        extras=batch.extras,
    )
    assert not torch.equal(other.tokens, batch.tokens)
    (_, one), (_, two) = related(task, batch), related(task, other)
    for name in ("mlm_text", "mlm", "match", "gvtm"):
        assert torch.equal(one[name].sum, two[name].sum), name
    hidden_from_nobody = Batch(**{**vars_of(batch), "extras": {**batch.extras, "masked": batch.tokens}})
    assert float(task.encode(hidden_from_nobody).terms["mlm_text"].sum) != float(one["mlm_text"].sum)


def vars_of(batch: Batch) -> dict[str, Any]:
    names = ("ids", "frames", "sizes", "tokens", "token_mask", "owner", "extras")
    return {name: getattr(batch, name) for name in names}


@torch.no_grad()
def test_attentive_masking_hides_words_of_every_text_and_never_a_special_token() -> None:
    task = only("mlm", masking=Masking(attentive=1))
    special = torch.tensor(sorted(task.text.tokenizer.special_ids))
    for step in range(5):
        batch = batch_of(task, step)
        extras = task.encode(batch).extras
        length = batch.tokens.shape[1]
        chosen = (extras["fused_labels"] != IGNORED)[:, :length]
        assert not torch.isin(batch.tokens[chosen], special).any()
        assert not extras["fused_labels"][:, length:].ne(IGNORED).any()
        words = (~torch.isin(batch.tokens, special)).sum(1)
        assert chosen.sum(1).tolist() == [max(1, int(0.15 * num)) for num in words.tolist()]
        assert (extras["fused_tokens"][:, :length][chosen] == task.text.tokenizer.mask_id).all()
        assert torch.equal(extras["fused_labels"][:, :length][chosen], batch.tokens[chosen])


# --- pairs ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_matching_is_mil_nce_over_the_pairs_of_each_group() -> None:
    task = only("match")
    batch = batch_of(task)
    score = [[math.nan] * BATCH for _ in range(BATCH)]
    for text in range(BATCH):
        for video in range(text // GROUP * GROUP, text // GROUP * GROUP + GROUP):
            head: Any = task.match_head
            score[text][video] = float(head.layers(pooled(task, batch, text, video)))
    expected, first = 0.0, 0
    for i in range(BATCH):
        group = range(i // GROUP * GROUP, i // GROUP * GROUP + GROUP)
        texts = sum(math.exp(score[t][i]) for t in group)
        videos = sum(math.exp(score[i][v]) for v in group if v != i)
        expected -= math.log(math.exp(score[i][i]) / (texts + videos))
        first += max(group, key=lambda v: score[i][v]) == i
    _, terms = related(task, batch)
    assert mean(terms["match"]) == pytest.approx(expected / BATCH, rel=1e-11)
    assert mean(terms["match/R1"]) == pytest.approx(100 * first / BATCH)


@torch.no_grad()
@pytest.mark.parametrize("alone", [True, False])
def test_gvtm_is_cross_entropy_of_the_right_and_a_wrong_video(alone: bool) -> None:
    """Groups of two: the wrong video is the other one."""
    task = only("gvtm", *(() if alone else ("match",)), matching=Matching(group=2))
    batch = batch_of(task)
    expected, told = 0.0, 0
    for text in range(BATCH):
        for video, belongs in ((text, 1), (text ^ 1, 0)):
            head: Any = task.gvtm_head
            logits = head(pooled(task, batch, text, video)).tolist()
            expected += math.log(math.exp(logits[0]) + math.exp(logits[1])) - logits[belongs]
            told += (logits[1] > logits[0]) == bool(belongs)
    _, terms = related(task, batch)
    assert mean(terms["gvtm"]) == pytest.approx(expected / (2 * BATCH), rel=1e-11)
    assert mean(terms["gvtm/accuracy"]) == pytest.approx(told / (2 * BATCH))


@torch.no_grad()
def test_a_hard_wrong_video_is_one_that_the_vectors_take_for_the_right_one() -> None:
    task = only("gvtm", matching=Matching(group=GROUP, gvtm="hard"))
    assert task.relate is not None
    batch = batch_of(task)
    features = task.encode(batch)
    near = [text // GROUP * GROUP + (text + 1) % GROUP for text in range(BATCH)]
    text = torch.eye(BATCH)
    video = torch.zeros(BATCH, BATCH)
    for number, other in enumerate(near):
        video[other, number] = 1
    features = Features(video, text, features.owner, features.extras)
    _, terms = task.relate(features, share_of(features))
    expected = 0.0
    for number, other in enumerate(near):
        for chosen, belongs in ((number, 1), (other, 0)):
            head: Any = task.gvtm_head
            logits = head(pooled(task, batch, number, chosen)).tolist()
            expected += math.log(math.exp(logits[0]) + math.exp(logits[1])) - logits[belongs]
    assert mean(terms["gvtm"]) == pytest.approx(expected / (2 * BATCH), rel=1e-11)


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.05, None])
def test_local_matching_is_mil_nce_over_words_and_clips(temperature: float | None) -> None:
    """Without a temperature words are not of unit length, as in AntMMF."""
    task = only("lvwm", lvwm=WordMatching(temperature=temperature))
    batch = batch_of(task)
    states = task.text(batch.tokens, batch.token_mask).tokens
    words = torch.stack([states[t, batch.extras["word_places"][t]] for t in range(BATCH)])  # (N, 3, D)
    clips: Any = task.vision_projection(task.vision(batch.frames, batch.sizes).clips)  # type: ignore[arg-type]
    clips = clips / clips.norm(dim=2, keepdim=True)
    if temperature is not None:
        words = words / words.norm(dim=2, keepdim=True)
    bag = torch.zeros(BATCH, BATCH)
    for t in range(BATCH):
        for v in range(BATCH):
            products = [float(words[t, k] @ clips[v, c]) / (temperature or 1) for k in range(3) for c in range(CLIPS)]
            bag[t, v] = math.log(sum(math.exp(product) for product in products))
    expected = 0.0
    for i in range(BATCH):
        others = sum(math.exp(bag[i, v]) for v in range(BATCH) if v != i)
        expected -= math.log(math.exp(bag[i, i]) / (sum(math.exp(bag[t, i]) for t in range(BATCH)) + others))
    term = task.loss(task.encode(batch))["lvwm"]
    assert mean(term) == pytest.approx(expected / BATCH, rel=1e-11)


@torch.no_grad()
def test_clip_order_is_cross_entropy_of_where_the_moved_clips_belong() -> None:
    task = only("clip_order")
    batch = batch_of(task)
    draws = torch.Generator().manual_seed(5)
    torch.rand(BATCH, GROUP, generator=draws)  # for the wrong videos
    order = torch.rand(BATCH, CLIPS, generator=draws)
    expected, num, right = 0.0, 0, 0
    for text in range(BATCH):
        moved = [place for place in range(CLIPS) if order[text, place] < 0.15]
        shuffled = sorted(moved, key=lambda place: float(order[text, place]))
        source = {**{place: place for place in range(CLIPS)}, **dict(zip(moved, shuffled, strict=True))}
        clips = task.vision(batch.frames[text : text + 1], batch.sizes[text : text + 1]).tokens[0]
        clips = torch.stack([clips[source[place]] for place in range(CLIPS)])
        states = fused(task, batch, text, text, clips=clips).tokens[0, -CLIPS:]
        for place in moved:
            head: Any = task.clip_order
            logits = head(states[place][None])[0].tolist()
            expected += math.log(sum(math.exp(logit) for logit in logits)) - logits[source[place]]
            right += max(range(len(logits)), key=logits.__getitem__) == source[place]
            num += 1
    _, terms = related(task, batch)
    assert num == int(terms["clip_order"].count) > 3
    assert float(terms["clip_order"].sum) == pytest.approx(expected, rel=1e-11)
    assert mean(terms["clip_order/accuracy"]) == pytest.approx(right / num)


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_alone_and_all_but_it(name: str) -> None:
    """A loss that is off has neither a name in the log nor a module; what is on has its metric and learns alike."""
    rest = [other for other in NAMES if other != name]
    for names in ([name], rest):
        task = only(*names, masking=Masking(attentive=0.5))
        parts = Step(task)([batch_of(task)], 0)
        watched = set().union(*(METRICS[on] for on in names))
        assert set(parts) == {*names, *watched}
        assert all(part.isfinite() for part in parts.values())
    modules = {"mlm_text": "text_words", "match": "match_head", "gvtm": "gvtm_head", "mlm": "fused_words"}
    modules["clip_order"] = "clip_order"
    assert not [key for key in task.state_dict() if name in modules and key.startswith(f"{modules[name]}.")]


@pytest.mark.parametrize("names", [(name,) for name in NAMES] + [NAMES])
def test_every_step_trains_the_same_weights(names: tuple[str, ...]) -> None:
    """As DistributedDataParallel with a static graph wants it, whatever was drawn: also where no word is hidden."""
    task = only(*names, masking=Masking(attentive=0.5))
    found = []
    for number in range(3):
        batch = batch_of(task, number)
        if number == 2:
            extras = {"labels": torch.full_like(batch.tokens, IGNORED), "masked": batch.tokens}
            never = {"attentive": torch.zeros_like(batch.extras["attentive"])}
            batch = Batch(**{**vars_of(batch), "extras": {**batch.extras, **extras, **never}})
        parts = Step(task)([batch], number)
        torch.stack([part for part in parts.values() if part.requires_grad]).sum().backward()
        assert all(part.isfinite() for part in parts.values())
        found.append({name for name, weight in task.named_parameters() if weight.grad is not None})
        task.zero_grad()
    assert found[0] == found[1] == found[2] != set()


def test_weights_are_factors() -> None:
    one, half = (
        only("match", "gvtm"),
        make_task(
            Snps3,
            contrast=InfoNCE(),
            masking=Masking(attentive=0),
            weights=Weights(**{**dict.fromkeys(NAMES, 0.0), "match": 0.5, "gvtm": 3}),
        ),
    )
    first, second = Step(one)([batch_of(one)], 0), Step(half.train())([batch_of(half)], 0)
    assert float(second["match"]) == pytest.approx(0.5 * float(first["match"]), rel=1e-12)
    assert float(second["gvtm"]) == pytest.approx(3 * float(first["gvtm"]), rel=1e-12)


def test_no_momentum_encoder_is_made_where_the_contrast_is_off() -> None:
    moco = {"video_queue": 40, "text_queue": 20}
    task = only("match", contrast=Moco(**moco))
    assert not [name for name in task.state_dict() if name.startswith(("keys.", "contrast."))]
    assert task.followers == ()
    assert "key_text" not in task.encode(batch_of(task)).extras
    task.after_step()
    task.after_load(())
    assert [name for name in only("contrast", contrast=Moco(**moco)).state_dict() if name.startswith("keys.")]


@pytest.mark.parametrize(
    ("names", "pairs"), [(("mlm",), 1), (("gvtm",), 2), (("mlm", "gvtm"), 2), (("mlm", "gvtm", "match"), GROUP)]
)
def test_no_pair_is_read_that_no_loss_asks_for(
    names: tuple[str, ...], pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = only(*names, matching=Matching(group=GROUP))
    read = []
    usual = type(task.text).fuse  # type: ignore[attr-defined]
    monkeypatch.setattr(type(task.text), "fuse", lambda self, *args: read.append(len(args[0])) or usual(self, *args))
    related(task, batch_of(task))
    assert sum(read) == pairs * BATCH


def test_local_matching_takes_no_pass_of_the_text_encoder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream has a third one, of the text with its masks undone."""
    passes = []
    task = make_task(Snps3, contrast=Moco(video_queue=40, text_queue=20))
    usual = type(task.text).forward
    monkeypatch.setattr(type(task.text), "forward", lambda self, *args: passes.append(self) or usual(self, *args))
    task.train().encode(batch_of(task))
    assert sum(encoder is task.text for encoder in passes) == 2  # the raw copy and the masked one
    assert len(passes) == 3  # and the momentum encoder
