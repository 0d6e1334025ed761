"""What a forward pass writes it writes once, though it is computed twice."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from antmmf.batch import Batch
from antmmf.contracts import Collator, Term
from antmmf.distributed import parallel
from antmmf.recompute import undone
from antmmf.step import Step
from antmmf.task import Task, TaskOutput
from ranks_toys import make_batch
from torch import Tensor, nn
from torch._dynamo.backends.registry import lookup_backend


class Vision(nn.Module):
    """Two blocks that normalise over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(2 * 3 * 16, 4)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh()) for _ in range(2))

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)

    def forward(self, frames: Tensor) -> Tensor:
        values = self.stem(frames.flatten(1).to(self.stem.weight.dtype) / 255)
        for layer in self.layers:
            values = layer(values)
        return values


class Remembering(Task):
    """Pulls videos to the last ones it saw: a buffer that is replaced beside buffers that are written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = Vision()
        self.register_buffer("queue", torch.zeros(6, 4))

    def collator(self, train: bool) -> Collator:
        raise NotImplementedError

    def forward(self, batch: Batch) -> TaskOutput:
        video = self.vision(batch.frames)  # (B, 4)
        pull = (video - self.queue.mean(0)).square().sum()
        self.queue = torch.cat([self.queue, video.detach()])[-6:]
        return TaskOutput(terms={"pull": Term(pull, len(video))})


BATCHES = [make_batch([0, 1, 2], 0), make_batch([3, 4, 5], 0)]


def new_task() -> Remembering:
    torch.default_generator.manual_seed(0)
    return Remembering().double()


def run(task: Remembering) -> Remembering:
    """Forward and backward of both micro-batches with everything kept."""
    (torch.stack([task(batch).terms["pull"].sum for batch in BATCHES]).sum() / 6).backward()
    return task


def assert_equal(found: Remembering, expected: Remembering) -> None:
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(found.get_parameter(name).grad, parameter.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(dict(found.named_buffers()), dict(expected.named_buffers()), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_micro_batches_write_buffers_once(checkpointing: bool) -> None:
    task, expected = new_task(), run(new_task())
    parallel.prepare(task, compile=False, activation_checkpointing=checkpointing, channels_last=False, sharded=False)
    sum(Step(task)(BATCHES, 0).values()).backward()
    assert_equal(task, expected)
    assert expected.vision.layers[0][1].num_batches_tracked == len(BATCHES)


@contextmanager
def counted_compilations() -> Iterator[list[int]]:
    """The numbers of operations in the graphs that are captured, and then run without a code generator."""
    sizes, compile_module = [], nn.Module.compile

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        sizes.append(len(list(graph.graph.nodes)))
        return lookup_backend("aot_eager")(graph, inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "compile", lambda self: compile_module(self, backend=backend))
        yield sizes
    torch.compiler.reset()


@pytest.mark.parametrize("sharded", [False, True])
def test_checkpointed_blocks_are_compiled_and_write_buffers_once(sharded: bool) -> None:
    task, expected = new_task(), run(new_task())
    with counted_compilations() as sizes:
        parallel.prepare(task, compile=True, activation_checkpointing=True, channels_last=False, sharded=sharded)
        sum(Step(task)(BATCHES, 0).values()).backward()
    assert sizes
    assert_equal(task, expected)


def test_a_trial_leaves_no_buffer_behind() -> None:
    task = new_task()
    before = copy.deepcopy(dict(task.named_buffers()))
    with undone(task):
        task(BATCHES[0])
        task.queue = torch.zeros(9, 4)
        task.register_buffer("late", torch.zeros(1))
    torch.testing.assert_close(dict(task.named_buffers()), before, rtol=0, atol=0)
