"""One step of a toy task with the loss `sigmoid` on this process's share of 6 videos; writes what came out to OUT."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from antmmf import Batch, Collator, ContrastiveTask, Features, TaskOutput, Term
from antmmf.distributed.world import World, joined_world
from antmmf.step import Step, total
from antmmf_example.sigmoid import Sigmoid
from torch import distributed, nn

OWNER = (0, 0, 1, 2, 3, 4, 4, 5, 5)


class Toy(ContrastiveTask):
    """A linear layer on pixels and a vector for each word."""

    def __init__(self) -> None:
        super().__init__()
        torch.default_generator.manual_seed(0)
        self.vision, self.text, self.contrast = nn.Linear(12, 5), nn.Embedding(30, 5), Sigmoid()

    def collator(self, train: bool) -> Collator:
        raise NotImplementedError

    def forward(self, batch: Batch) -> TaskOutput:
        raise NotImplementedError

    def encode(self, batch: Batch) -> Features:
        video = nn.functional.normalize(self.vision(batch.frames.flatten(1) / 255), dim=1)
        return Features(video, nn.functional.normalize(self.text(batch.tokens).sum(1), dim=1), batch.owner)

    def loss(self, features: Features) -> dict[str, Term]:
        return {"contrast": self.contrast(features.video, features.text, features.owner)}


def one_step(world: World) -> dict[str, list[float]]:
    """The loss and the gradient of every weight, as the whole batch has them."""
    torch.set_default_dtype(torch.float64)
    task = Toy()
    videos = torch.arange(6).tensor_split(world.size)[world.rank]
    texts = [number for number, video in enumerate(OWNER) if video in videos.tolist()]
    draw = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (6, 1, 1, 3, 2, 2), dtype=torch.uint8, generator=draw)[videos]
    tokens = torch.randint(0, 30, (len(OWNER), 4), generator=draw)[texts]
    owner = torch.tensor([OWNER[number] for number in texts]) - videos[0]
    batch = Batch(videos, frames, torch.full((len(videos), 2), 2), tokens, torch.ones_like(tokens).bool(), owner)
    loss = total(Step(task, world=world)([batch], 0))
    loss.backward()
    found = {"loss": loss.detach()[None]} | {name: weight.grad for name, weight in task.named_parameters()}
    if world.size > 1:
        for values in found.values():
            distributed.all_reduce(values)
    torch.set_default_dtype(torch.float32)
    return {name: (values / world.size).flatten().tolist() for name, values in found.items()}


if __name__ == "__main__":
    with joined_world("cpu") as own_world:
        gradients = one_step(own_world)
        if own_world.is_first:
            Path(sys.argv[1]).write_text(json.dumps(gradients), encoding="utf-8")
