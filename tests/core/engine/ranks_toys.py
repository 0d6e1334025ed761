"""A contrastive task whose every part can go wrong over processes, and a training of it; run by test_ranks.py.

``python ranks_toys.py MODE MICRO_BATCHES CHECKPOINTING BATCH_SIZE OUT`` writes the losses of each step to OUT.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from antmmf.batch import Batch
from antmmf.contracts import Collator, Term
from antmmf.distributed import parallel
from antmmf.distributed.world import World, joined_world
from antmmf.step import Step, total
from antmmf.task import ContrastiveTask, Features, Share, TaskOutput
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

STEPS = 50


class Encoder(nn.Module):
    """A stem, two blocks with a dropout each, and a norm."""

    def __init__(self, size: int, *, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Linear(size, 8)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(dropout)) for _ in range(2))
        self.norm = nn.LayerNorm(8)

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)

    def forward(self, values: Tensor) -> Tensor:
        values = self.stem(values)
        for layer in self.layers:
            values = values + layer(values)
        return normalize(self.norm(values), dim=-1)


class Pairs(ContrastiveTask):
    """A contrastive term over the global batch with a learned scale, and one over the even texts only."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.vision = Encoder(2 * 3 * 16, dropout=dropout)
        self.text = Encoder(4, dropout=dropout)
        self.log_scale = nn.Parameter(torch.zeros(1))
        self.head = nn.Linear(8, 3)

    def collator(self, train: bool) -> Collator:
        raise NotImplementedError

    def encode(self, batch: Batch) -> Features:
        dtype = self.head.weight.dtype
        text = self.text(batch.tokens.to(dtype) / 50)
        said = cross_entropy(self.head(text), batch.tokens[:, 0] % 3, reduction="none")
        even = batch.tokens[:, 1] % 2 == 0
        terms = {"said": Term((said * even).sum(), even.sum(), 0.5)}
        return Features(self.vision(batch.frames.flatten(1).to(dtype) / 255), text, batch.owner, terms=terms)

    def loss(self, features: Features) -> dict[str, Term]:
        logits = self.log_scale.exp() * 5 * (features.text @ features.video.T)  # (N, B)
        own = features.owner >= 0
        right = features.owner[own]
        log_p = logits.log_softmax(1)[own, right] + logits.log_softmax(0)[own, right]
        return {"pairs": Term(-log_p.sum(), own.sum())}

    def forward(self, batch: Batch) -> TaskOutput:
        features = self.encode(batch)
        return TaskOutput(terms={**features.terms, **self.loss(features)})


class RelatedPairs(Pairs):
    """With two terms more that come of pairs: each text with three videos drawn from the global batch."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__(dropout=dropout)
        self.pair_head = nn.Linear(16, 1)

    def relate(self, features: Features, share: Share) -> tuple[dict[str, Tensor], dict[str, Term]]:
        drawn = torch.randint(len(features.video), (len(features.text), 3), generator=share.draws)[share.rows]
        texts = features.text[share.rows, None].expand(-1, 3, -1)
        scores = self.pair_head(torch.cat([texts, features.video[drawn]], dim=-1)).tanh()[..., 0]  # (M, 3)
        first = scores[share.real, 0]
        return {"scores": scores}, {"first": Term(first.square().sum(), len(first))}

    def loss(self, features: Features) -> dict[str, Term]:
        scores = features.extras["scores"] * torch.arange(1, len(features.text) + 1).view(-1, 1)
        step = torch.tensor(float(features.step))
        return {
            **super().loss(features),
            "ranked": Term(scores.sum(), scores.numel()),
            "step": Term(step, 1, weight=0),
        }


def make_batch(rows: list[int], step: int) -> Batch:
    """Videos ``rows`` with one to three texts each; every eighth brings a text of nobody too."""
    frames, tokens, owner = [], [], []
    for place, row in enumerate(rows):
        draw = torch.Generator().manual_seed(1000 * step + row)
        count, alone = 1 + row % 3, row % 8 == 0
        frames.append(torch.randint(0, 256, (1, 2, 3, 4, 4), dtype=torch.uint8, generator=draw))
        tokens.append(torch.randint(0, 50, (count + alone, 4), generator=draw))
        owner += [place] * count + [-1] * alone
    joined = torch.cat(tokens)
    return Batch(
        ids=torch.tensor(rows),
        frames=torch.stack(frames),
        sizes=torch.full((len(rows), 2), 4),
        tokens=joined,
        token_mask=torch.ones_like(joined, dtype=torch.bool),
        owner=torch.tensor(owner),
    )


def train(mode: str, micro_batches: int, checkpointing: bool, batch_size: int, world: World) -> list[list[float]]:
    """Every step's parts of the loss and gradient norm, as the whole batch has them."""
    torch.default_generator.manual_seed(0)
    task, device = RelatedPairs(), torch.device("cpu")
    sharded = mode == "fsdp2"
    parallel.prepare(task, compile=False, activation_checkpointing=checkpointing, channels_last=False, sharded=sharded)
    if sharded:
        parallel.shard(task, world, device)
    step = Step(task, world=world, seed=1)
    model = parallel.wrap(step, device) if world.size > 1 and not sharded else step
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-2)
    values = []
    for number in range(STEPS):
        own = np.array_split(np.arange(batch_size), world.size)[world.rank]
        rows = [part.tolist() for part in np.array_split(own, micro_batches) if len(part)]
        most = int(world.exchange([len(rows)]).max())
        ghosts = most - len(rows)
        parts = model([make_batch(part, number) for part in [*rows, *[[0]] * ghosts]], number, ghosts)
        total(parts).backward()
        norm = nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        optimizer.step()
        optimizer.zero_grad()
        seen = torch.stack([*(part.detach() for part in parts.values()), norm])
        if world.size > 1:
            dist.all_reduce(seen)
        values.append((seen / world.size).tolist())
    return values


def main(mode: str, micro_batches: str, checkpointing: str, batch_size: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    with joined_world("cpu") as world:
        values = train(mode, int(micro_batches), checkpointing == "yes", int(batch_size), world)
        if world.is_first:
            Path(out).write_text(json.dumps(values))


if __name__ == "__main__":
    main(*sys.argv[1:])
