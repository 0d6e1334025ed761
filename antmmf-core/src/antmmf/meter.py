"""What the steps since the last report were like; values stay on the device until the report reads them at once."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf, isfinite
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from antmmf.checkpoint.shards import own_rows
from antmmf.contracts import StepReport
from antmmf.distributed.world import World
from antmmf.errors import AntmmfError

_LOG_ONLY = logging.getLogger("antmmf.said")
PARTS = ("data", "to_device", "forward", "backward", "optimizer", "communication")
"""Parts of a step, which add up to it."""

_SHOWN_KEYS = 8
_NORM = "gradient norm"


class _Step(NamedTuple):
    """Scalars by name: the terms of the loss and, if it was taken, the gradient's norm."""

    number: int
    values: Mapping[str, Tensor]
    ids: list[list[int]]


class Stopwatch:
    """Seconds by part. On an accelerator they are those of its own queue: marks go along with the work and are read
    when a report has waited for it anyway, so that a gap before a batch is time without data, not time of launching.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._on_host = self.device.type in ("cpu", "mps")
        self._clock = perf_counter()
        self._marks: list[tuple[str, torch.Event]] = []
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def start(self) -> None:
        """Restart: the time since the last ``lap`` belongs to no part."""
        if self._on_host:
            self._clock = perf_counter()
        else:
            self._mark("")

    def lap(self, part: str) -> None:
        """Add the seconds since the last call to ``part``."""
        if self._on_host:
            now = perf_counter()
            self.seconds[part] += now - self._clock
            self._clock = now
        else:
            self._mark(part)

    def read(self) -> dict[str, float]:
        """The seconds since the last ``read``; the device must have done its work."""
        for (_, before), (part, after) in zip(self._marks, self._marks[1:], strict=False):
            if part:
                self.seconds[part] += before.elapsed_time(after) / 1000
        self._marks.clear()
        seconds = dict(self.seconds)
        self.seconds.clear()
        return seconds

    def _mark(self, part: str) -> None:
        event = torch.Event(self.device, enable_timing=True)
        event.record()
        self._marks.append((part, event))


class Meter:
    """Collects losses, gradient norms and seconds; one ``report`` costs one transfer, a step costs none.

    ``keys`` turns sample ids into keys, for the message about a loss that is not finite. With ``check_norm`` false
    the norm need not be finite (float16 skips such steps). ``decode_seconds`` is what the loader's processes spent
    since the last report; ``total`` adds up the seconds of all reports.
    """

    def __init__(
        self,
        keys: Callable[[Iterable[int]], list[str]],
        watch: Stopwatch,
        *,
        world: World | None = None,
        check_norm: bool = True,
    ) -> None:
        self._keys = keys
        self._world = world or World()
        self._check_norm = check_norm
        self._steps: list[_Step] = []
        self._watched: frozenset[str] = frozenset()
        self.watch = watch
        self._on_accelerator = watch.device.type != "cpu"
        self.decode_seconds = 0.0
        self.total: defaultdict[str, float] = defaultdict(float)
        self.num_steps = 0

    def __len__(self) -> int:
        return len(self._steps)

    def add_step(
        self,
        number: int,
        *,
        terms: Mapping[str, Tensor],
        norm: Tensor | None,
        ids: list[list[int]],
        watched: frozenset[str] = frozenset(),
    ) -> None:
        """Note step ``number`` with its detached scalar ``terms``, those ``watched`` that are no part of the loss, and
        the ids of each micro-batch."""
        self._watched |= watched
        self._steps.append(_Step(number, terms if norm is None else {**terms, _NORM: norm}, ids))

    def report(self, *, lr: float) -> tuple[StepReport, list[dict[str, float]]]:
        """Means over the steps since the last call and over all processes, and the seconds a step of each process.

        Raises ``AntmmfError``, on every process the same, naming the first step that went wrong and its samples.
        """
        steps = self._read()
        for number, values in enumerate(steps):
            if not all(isfinite(value) for name, value in values.items() if name != _NORM or self._check_norm):
                raise AntmmfError(self._not_finite(self._steps[number], values))
        series: defaultdict[str, list[float]] = defaultdict(list)
        for values in steps:
            for name, value in values.items():
                series[name].append(value)
        means = {name: sum(values) / len(values) for name, values in series.items()}
        norm = means.pop(_NORM, None)
        num = len(steps)
        samples, decode, ranks = self._exchange(num)
        seconds = {part: sum(rank[part] for rank in ranks) / len(ranks) for part in PARTS}
        report = StepReport(
            loss=sum(sum(values) for name, values in series.items() if name not in {_NORM, *self._watched}) / num,
            terms=means,
            lr=lr,
            grad_norm=norm,
            samples=round(samples / num),
            seconds=seconds,
            decode=decode / num,
        )
        self._steps.clear()
        self.num_steps += num
        self.total["decode"] += decode
        for part, value in seconds.items():
            self.total[part] += value * num
        return report, ranks

    def _exchange(self, num: int) -> tuple[float, float, list[dict[str, float]]]:
        """Samples of all processes, their mean decoding seconds, and the seconds by part of an average step of each."""
        own = self.watch.read()
        self.total["start"] += own.get("start", 0.0)
        samples = sum(len(part) for step in self._steps for part in step.ids)
        mean = {part: own.get(part, 0.0) / num for part in PARTS}
        decode, self.decode_seconds = self.decode_seconds, 0.0
        if self._world.size == 1:
            return samples, decode, [mean]
        table = self._world.exchange([samples, decode, *mean.values()])
        ranks = [dict(zip(PARTS, row[2:].tolist(), strict=True)) for row in table]
        return float(table[:, 0].sum()), float(table[:, 1].mean()), ranks

    def _read(self) -> list[dict[str, float]]:
        if self._world.size == 1 and not self._on_accelerator:  # nothing to gather: the fewest operations
            return [{name: float(value) for name, value in step.values.items()} for step in self._steps]
        stacked = torch.stack([value.float() for step in self._steps for value in step.values.values()])
        if self._world.size > 1:
            dist.all_reduce(stacked)
            stacked /= self._world.size
        read = iter(stacked.tolist())  # an accelerator finishes here what was launched above
        return [{name: next(read) for name in step.values} for step in self._steps]

    def _not_finite(self, step: _Step, values: Mapping[str, float]) -> str:
        """The samples are those of the processes whose own values are not finite, or of all."""
        keys = self._keys(int(id) for part in step.ids for id in part)
        is_own = not all(map(isfinite, torch.stack([value.float() for value in step.values.values()]).tolist()))
        found = self._world.collect((is_own, keys))
        keys = [key for is_guilty, some in found for key in some if is_guilty or not any(guilty for guilty, _ in found)]
        shown = ", ".join(keys[:_SHOWN_KEYS])
        if len(keys) > _SHOWN_KEYS:
            shown += f", ... ({len(keys)}, all in the log)"
            _LOG_ONLY.info("samples of step %d: %s", step.number, ", ".join(keys))
        said = ", ".join(f"{name} {value:g}" for name, value in values.items())
        return (
            f"step {step.number}: the loss must be finite, is {said}, on samples {shown}; "
            "lower the learning rate, or look at these samples; the gradient of the step before may be at fault, which "
            "training_parameters.max_grad_l2_norm looks at"
        )


def refuse_broken(parameters: Sequence[Tensor], *, step: int, world: World, newest: Path | None) -> None:
    """Raise ``AntmmfError``, on every process, when a parameter is not finite: a gradient may be so though the loss is
    not, and nobody looked at it. ``newest`` is the checkpoint to go on from."""
    own = [rows for rows in map(own_rows, parameters) if rows.numel() > 0]  # a process may hold no row of a shard
    norm = nn.utils.get_total_norm(own, norm_type=inf)
    if not world.exchange([not norm.isfinite()]).any():
        return
    raise AntmmfError(
        f"step {step}: the weights must be finite, but are not, though the losses are: a gradient was not; "
        "nothing was saved. training_parameters.max_grad_l2_norm has every gradient looked at, and names the step "
        f"and its samples; {f'{newest} is there to go on from' if newest else 'there is no checkpoint before it'}"
    )
