"""SNP, P3E and the curriculum of CNVid as whole tasks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from antmmf.assets import RunAssets
from antmmf.contracts import Encoded
from antmmf.errors import ComponentError
from antmmf.task import Features, Share
from antmmf_tasks.losses.infonce import InfoNCE
from antmmf_tasks.pretraining.settings import HardSamples, Masking, Matching, Weights
from antmmf_tasks.tasks.cnvid import Cnvid
from antmmf_tasks.tasks.fusing import fusion_of
from antmmf_tasks.tasks.snps3 import Snps3
from antmmf_text.encoders.bert import Bert, BertFusion
from antmmf_text.tokenizers import SPECIAL, word_piece
from pretraining_ranks import BATCH, make_batch, make_task
from torch import Tensor, nn

# --- one network or three ---------------------------------------------------------------------------------------------


class Grid(nn.Module):
    """Stands for a vision encoder of BERT's size."""

    dim, image_size, masks_padding = 768, None, False

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 768)

    def forward(self, frames: Tensor, sizes: Tensor) -> Encoded:
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        return []


def of_bert_size(*, fusion: bool) -> Snps3:
    """Without weights: on the meta device."""
    pieces = [*SPECIAL, *(f"w{number}" for number in range(30522 - len(SPECIAL)))]
    described = {"described": word_piece(pieces), "pad": "[PAD]", "mask": "[MASK]"}
    made = {"tokenizer bert-base-uncased": described, "significant words": {"significant": [7], "mates": []}}
    assets = RunAssets(texts=lambda: iter(()), made=made)
    with torch.device("meta"):
        return Snps3(
            vision=Grid(),
            text=Bert(pretrained=False, attention=True, assets=assets),
            fusion=BertFusion(pretrained=False, assets=assets) if fusion else None,
            contrast=InfoNCE(),
            assets=assets,
        )


@pytest.fixture(scope="module")
def both() -> tuple[Snps3, Snps3]:
    return of_bert_size(fusion=False), of_bert_size(fusion=True)


def test_p3e_has_45_million_parameters_more_than_snp(both: tuple[Snps3, Snps3]) -> None:
    """Table II: 205.5 - 160.4 and 206.2 - 161.1 million, whatever the vision encoder."""
    snp, p3e = both
    more = sum(p.numel() for p in p3e.parameters()) - sum(p.numel() for p in snp.parameters())
    embeddings = (30522 + 512 + 2 + 2) * 768
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert more == embeddings + 3 * layer == 45_100_800
    assert len(p3e.fusion.bert.encoder.layer) == 3  # type: ignore[union-attr]


def test_the_cross_encoder_of_snp_is_the_text_encoder(both: tuple[Snps3, Snps3]) -> None:
    snp, p3e = both
    assert fusion_of(snp.vision, snp.text, snp.fusion) is snp.text
    assert fusion_of(p3e.vision, p3e.text, p3e.fusion) is p3e.fusion
    own = {id(parameter) for parameter in p3e.fusion.parameters()}  # type: ignore[union-attr]
    assert own.isdisjoint(id(parameter) for parameter in p3e.text.parameters())  # type: ignore[attr-defined]


def test_a_cross_encoder_must_have_the_words_of_the_texts() -> None:
    """Else it would read other words behind the ids, or none at all, without a sign."""
    small = {"name": "google/bert_uncased_L-2_H-128_A-2", "pretrained": False, "video_dim": 768}
    text = Bert(**small, assets=RunAssets(texts=lambda: iter(["a dog runs"])))  # type: ignore[arg-type]
    fusion = BertFusion(**small, assets=RunAssets(texts=lambda: iter(["a cat"])))  # type: ignore[arg-type]
    assert fusion_of(Grid(), text, None) is text
    words = rf"must know the text encoder's {len(text.tokenizer)} words, its own are {len(fusion.tokenizer)}"
    with pytest.raises(ComponentError, match=words):
        fusion_of(Grid(), text, fusion)


def test_masking_by_attention_is_refused_at_once_where_the_text_encoder_gives_none() -> None:
    small = {"name": "google/bert_uncased_L-2_H-128_A-2", "pretrained": False, "video_dim": 768}
    assets = RunAssets(texts=lambda: iter(["a dog runs"]))
    parts = {"vision": Grid(), "contrast": InfoNCE(), "assets": assets, "dim": 128}

    def make(*, attention: bool, **settings: Any) -> Snps3:
        return Snps3(text=Bert(**small, attention=attention, assets=assets), **parts, **settings)  # type: ignore[arg-type]

    with pytest.raises(ComponentError, match=r"masking\.attentive above 0 needs a text encoder that gives attention"):
        make(attention=False)
    assert make(attention=True).text.training  # type: ignore[attr-defined]
    make(attention=False, masking=Masking(attentive=0))
    make(attention=False, weights=Weights(match=0, gvtm=0, mlm=0))  # nothing reads the masked copy with a video


# --- hard samples -----------------------------------------------------------------------------------------------------


def hard_steps(steps: range, *, seed: int = 0, **settings: Any) -> list[bool]:
    """Whether each step has hard videos; its draws are those of (seed, step)."""
    task = make_task(Cnvid, contrast=InfoNCE(), hard_samples=HardSamples(**settings))
    assert isinstance(task, Cnvid)
    found = []
    for step in steps:
        draws = torch.Generator().manual_seed(100_003 * seed + step)
        rows = torch.arange(4)
        features = Features(torch.eye(4), torch.eye(4), rows, step=step)
        is_hard = task.candidates(features, Share(rows, rows >= 0, draws), 2)[2]
        assert bool(is_hard.all()) == bool(is_hard.any())  # for all texts of a step or for none
        found.append(bool(is_hard.any()))
    return found


@pytest.mark.parametrize(("start", "rate"), [(0, 0.0), (5000, 0.15), (30_000, 0.9), (35_000, 1.0)])
def test_the_share_of_hard_steps_follows_the_curriculum(start: int, rate: float) -> None:
    found = hard_steps(range(start, start + 800))
    assert abs(sum(found) / 800 - rate) < 5 * math.sqrt(rate * (1 - rate) / 800) + 1e-9


def test_the_steps_are_those_of_the_seed() -> None:
    steps = range(15_000, 15_200)
    assert hard_steps(steps) == hard_steps(steps)
    assert hard_steps(steps) != hard_steps(steps, seed=1)


def test_upstreams_averaged_draw_makes_a_step_of_the_curve() -> None:
    """Its eight processes' draws have a mean near one half: almost never below 0.3, almost always below 0.75."""
    assert sum(hard_steps(range(10_000, 10_800), draw="averaged")) / 800 < 0.1  # rate 0.3
    assert sum(hard_steps(range(25_000, 25_800), draw="averaged")) / 800 > 0.9  # rate 0.75


def test_hard_samples_without_a_curriculum_or_not_at_all() -> None:
    assert all(hard_steps(range(50), when="every_step"))
    assert not any(hard_steps(range(40_000, 40_050), when="never"))


@torch.no_grad()
@pytest.mark.parametrize("how", ["nearest", "top_k"])
def test_the_loss_of_hard_pairs_is_cross_entropy_with_less_weight_for_easy_ones(how: str) -> None:
    """Section 3.4 of the method, each text with the three videos of the whole batch that it takes for its own."""
    torch.set_default_dtype(torch.float64)
    try:
        task = make_task(
            Cnvid,
            contrast=InfoNCE(),
            hard_samples=HardSamples(when="every_step", how=how),  # type: ignore[arg-type]
            masking=Masking(policy="mlm", attentive=0),
            matching=Matching(group=4, at_once=1000),
            weights=Weights(contrast=0, gvtm=0, mlm=0, mlm_text=0, lvwm=0),
        ).train()
        batch = make_batch(task, list(range(BATCH)), 0)
        features = task.encode(batch)
        draw = torch.Generator().manual_seed(8)
        text, video = (nn.functional.normalize(torch.randn(BATCH, 9, generator=draw), dim=1) for _ in range(2))
        features = Features(video, text, features.owner, features.extras)
        rows = torch.arange(BATCH)
        share = Share(rows, rows >= 0, torch.Generator().manual_seed(0))
        extras, _ = task.relate(features, share)  # type: ignore[misc]
        found = task.loss(Features(video, text, features.owner, {**features.extras, **extras}))["match"]

        near = (text @ video.T).tolist()
        own = [near[i][i] for i in range(BATCH)]
        middle, least = sum(own) / BATCH, min(own)
        expected = 0.0
        for i in range(BATCH):
            others = [j for j in range(BATCH) if j != i]
            others.sort(key=lambda j: abs(near[i][j] - own[i]) if how == "nearest" else -near[i][j])
            scores = [_score(task, batch, i, j) for j in (i, *others[:3])]
            weight = max((middle - least) / (own[i] - least), 0.2) if own[i] > middle else 1
            expected += weight * (math.log(sum(math.exp(score) for score in scores)) - scores[0])
        assert float(found.sum) / float(found.count) == pytest.approx(expected / BATCH, rel=1e-11)
    finally:
        torch.set_default_dtype(torch.float32)


def _score(task: Any, batch: Any, text: int, video: int) -> float:
    length = int(batch.token_mask[text].sum())
    seen = task.vision(batch.frames[video : video + 1], batch.sizes[video : video + 1])
    tokens = batch.extras["masked"][text : text + 1, :length]
    fused = task.text.fuse(tokens, torch.ones(1, length, dtype=torch.bool), seen)
    return float(task.match_head(task.fused_pooler(fused.pooled)))
