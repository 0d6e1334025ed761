"""One optimizer step's loss: the same for any split of the batch into micro-batches and over processes.

Gradient caching (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup") by
recomputation: the forward pass of each micro-batch keeps nothing but its outputs, the loss is taken over the outputs
of all, and its one backward pass computes one micro-batch after the other again. Random draws are keyed by (seed,
step, micro-batch, rank), so the second pass repeats those of the first; buffers are written by the first one only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import reduce
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn

from antmmf.batch import Batch
from antmmf.contracts import Term
from antmmf.data.keyed import hashed, mixed
from antmmf.distributed.collectives import gather_rows
from antmmf.distributed.world import World
from antmmf.meter import Stopwatch
from antmmf.recompute import recomputed
from antmmf.task import ContrastiveTask, Features, Share, Task

_TINY = 1e-12

Output: TypeAlias = "Mapping[str, Term] | Features"


def autocast(device: torch.device | str, amp: torch.dtype | None) -> AbstractContextManager[object]:
    """Autocast to ``amp``, or nothing."""
    return nullcontext() if amp is None else torch.autocast(torch.device(device).type, dtype=amp)


def total(parts: Mapping[str, Tensor]) -> Tensor:
    """What to descend: the sum of the parts of a loss; a figure to watch has no gradient."""
    return reduce(torch.add, (part for part in parts.values() if part.requires_grad))


class Step(nn.Module):
    """The weighted parts of a step's loss, whose ``total`` is what to descend, and figures to watch.

    The gradient's mean over the processes is that of the whole batch's loss, and the parts' mean its value: what DDP
    and FSDP2 make of gradients anyway. ``watch`` laps what is computed and what is waited for. One process alone acts
    as if ``rehearsed`` processes had sent its features, and needs the memory that all of them would.
    """

    def __init__(
        self,
        task: Task,
        *,
        world: World | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        amp: torch.dtype | None = None,
        rehearsed: int = 1,
    ) -> None:
        super().__init__()
        self.task = task
        self._rehearsed = rehearsed
        self.world = world or World()
        self.seed = seed
        self.device = torch.device(device)
        self.amp = amp
        self.watch = Stopwatch(self.device)
        self._generators = _default_generators(self.device)
        self._encode: Callable[[Batch], Features] | None = None
        self._loss: Callable[[Features], Mapping[str, Term]] | None = None
        self._relate: Callable[[Features, Share], tuple[Mapping[str, Tensor], Mapping[str, Term]]] | None = None
        if isinstance(task, ContrastiveTask):
            self._encode, self._relate, self._loss = task.encode, task.relate, task.loss
        self._forward_seed = hashed(seed, "forward", self.world.rank)
        self._pairs_seed = hashed(seed, "pairs", self.world.rank)
        self._draws_seed = hashed(seed, "draws")
        self._loss_seed = hashed(seed, "loss")

    def forward(self, batches: Sequence[Batch], step: int, num_ghosts: int = 0) -> dict[str, Tensor]:
        """Parts by name for this process's micro-batches; the last ``num_ghosts`` of them take part without a weight:
        a process that has no rows must still join what all processes do together."""
        real = len(batches) - num_ghosts
        outputs: list[Output] = []
        for micro, batch in enumerate(batches):
            if len(batches) == 1:
                output = self._compute(batch, step, micro)
            else:
                output = recomputed(self.task, self._compute, batch, step, micro, preserve_rng_state=False)
            outputs.append(output if micro < real else _silent(output))
        if self._loss is None:
            return self._local_parts(outputs)  # type: ignore[arg-type]
        features: list[Features] = outputs  # type: ignore[assignment]
        own = self._local_parts([part.terms for part in features])
        whole = replace(self._gather(_join(features)), step=step)
        if self._relate is not None:
            whole, related = self._related(whole)
            own |= self._local_parts([related])
        self._seed(mixed(self._loss_seed, step))
        with autocast(self.device, self.amp):
            terms = self._loss(whole)
        return {**own, **{name: _part(term, term.count) for name, term in terms.items()}}

    def _related(self, whole: Features) -> tuple[Features, Mapping[str, Term]]:
        """The features with what all processes made of their shares of the texts, and the terms of this one's share."""
        assert self._relate is not None
        num, processes = len(whole.text), self.world.size * self._rehearsed
        each = -(-num // processes)
        rows = torch.arange(self.world.rank * each, (self.world.rank + 1) * each, device=whole.text.device)
        draws = torch.Generator().manual_seed(mixed(self._draws_seed, whole.step))
        share = Share(rows.clamp(max=num - 1), rows < num, draws)
        self._seed(mixed(self._pairs_seed, whole.step))
        with autocast(self.device, self.amp):
            tensors, terms = self._relate(whole, share)
        self.watch.lap("forward")
        counts = [min(each, max(0, num - rank * each)) for rank in range(self.world.size)]
        found = {name: tensor[: counts[self.world.rank]] for name, tensor in tensors.items()}
        if self.world.size > 1:
            found = {name: gather_rows(tensor, self.world, counts) for name, tensor in found.items()}
            self.watch.lap("communication")
        else:
            found = {name: torch.cat([tensor] * self._rehearsed)[:num] for name, tensor in found.items()}
        return replace(whole, extras={**whole.extras, **found}), terms

    def _compute(self, batch: Batch, step: int, micro: int) -> Output:
        self._seed(mixed(self._forward_seed, step, micro))
        with autocast(self.device, self.amp):
            if self._encode is not None:
                return self._encode(batch)
            terms: Mapping[str, Term] = self.task(batch).terms
        assert terms, f"{type(self.task).__name__} returned no terms in training"
        return terms

    def _seed(self, seed: int) -> None:
        for generator in self._generators:
            generator.manual_seed(seed)

    def _local_parts(self, outputs: Sequence[Mapping[str, Term]]) -> dict[str, Tensor]:
        """Sums over all micro-batches divided by the counts of all processes."""
        names, last = outputs[0].keys(), outputs[-1]
        if len(outputs) == 1 and self.world.size == 1:
            return {name: _part(term, term.count) for name, term in last.items()}
        sums = {name: torch.stack([output[name].sum for output in outputs]).sum() for name in names}
        counts = (
            torch.stack([self._as_tensor(sum(output[name].count for output in outputs)) for name in names])
            if names
            else torch.zeros(0)
        )
        if self.world.size > 1 and len(counts) > 0:
            self.watch.lap("forward")
            dist.all_reduce(counts)
            counts = counts / self.world.size  # the mean over processes shall be the sum
            self.watch.lap("communication")
        return {
            name: _part(Term(sums[name], count, last[name].weight), count)
            for name, count in zip(names, counts, strict=True)
        }

    def _as_tensor(self, count: Tensor | float) -> Tensor:
        return torch.as_tensor(
            count, dtype=torch.float64 if self.device.type != "mps" else torch.float32, device=self.device
        )

    def _gather(self, own: Features) -> Features:
        """The features of all processes, in the order of the global batch."""
        world = self.world
        if world.size == 1:
            return _join([own] * self._rehearsed)
        self.watch.lap("forward")
        tensors = {"video": own.video, "text": own.text, **own.extras}
        table = world.exchange([len(tensor) for tensor in tensors.values()]).long()
        first = int(table[: world.rank, 0].sum())
        rows = {
            name: gather_rows(tensor, world, counts.tolist())
            for (name, tensor), counts in zip(tensors.items(), table.T, strict=True)
        }
        owner = gather_rows(_shifted(own.owner, first), world, table[:, 1].tolist())
        self.watch.lap("communication")
        extras = {name: rows[name] for name in own.extras}
        return Features(rows["video"], rows["text"], owner, extras)


def _join(parts: Sequence[Features]) -> Features:
    """The rows of all micro-batches, one after the other."""
    if len(parts) == 1:
        return parts[0]
    owners, first = [], 0
    for part in parts:
        owners.append(_shifted(part.owner, first))
        first += len(part.video)
    return Features(
        video=torch.cat([part.video for part in parts]),
        text=torch.cat([part.text for part in parts]),
        owner=torch.cat(owners),
        extras={name: torch.cat([part.extras[name] for part in parts]) for name in parts[0].extras},
    )


def _shifted(owner: Tensor, first: int) -> Tensor:
    return owner if first == 0 else torch.where(owner >= 0, owner + first, owner)


def _silent(output: Output) -> Output:
    """The same output without a row or a count; gradients still reach all parameters, as zeros."""
    if not isinstance(output, Features):
        return {name: Term(term.sum * 0, term.count * 0, term.weight) for name, term in output.items()}
    extras = {name: tensor[:0] for name, tensor in output.extras.items()}
    terms = {name: Term(term.sum * 0, term.count * 0, term.weight) for name, term in output.terms.items()}
    return Features(output.video[:0], output.text[:0], output.owner[:0], extras, terms)


def _part(term: Term, count: Tensor | float) -> Tensor:
    """``weight * sum / count``; a count of 0 comes with a sum of 0, and gives 0."""
    if term.weight == 0:
        return (term.sum / torch.as_tensor(count).clamp(min=_TINY)).detach()
    if isinstance(count, Tensor):
        mean = term.sum / count.clamp(min=_TINY)
        return mean if term.weight == 1 else mean * term.weight
    return term.sum * (term.weight / max(count, _TINY))


def _default_generators(device: torch.device) -> list[torch.Generator]:
    """The generators that dropout draws from on ``device``."""
    if device.type == "cpu":
        return [torch.default_generator]
    offered = getattr(torch.get_device_module(device), "default_generators", ())
    assert offered, f"torch names no default generators for {device}"
    return [torch.default_generator, offered[device.index or 0]]
