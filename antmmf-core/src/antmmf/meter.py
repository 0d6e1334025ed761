"""What the steps since the last report were like; values stay on the device until the report reads them at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from time import perf_counter

import torch
from torch import Tensor

from antmmf.contracts import StepReport
from antmmf.errors import AntmmfError

_SHOWN_KEYS = 8
_NORM = "gradient norm"


@dataclass(frozen=True, slots=True)
class _Step:
    """Scalars by name: the terms of the loss and, if it was taken, the gradient's norm."""

    number: int
    values: Mapping[str, Tensor]
    ids: list[Tensor]


class Meter:
    """Collects losses, gradient norms and seconds; one ``report`` costs one transfer, a step costs none.

    ``keys`` turns sample ids into keys, for the message about a loss that is not finite.
    """

    def __init__(self, keys: Callable[[Iterable[int]], list[str]]) -> None:
        self._keys = keys
        self._clock = perf_counter()
        self._steps: list[_Step] = []
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def __len__(self) -> int:
        return len(self._steps)

    def start(self) -> None:
        """Restart the clock: the time since the last ``lap`` belongs to no part of a step."""
        self._clock = perf_counter()

    def lap(self, part: str) -> None:
        """Add the seconds since the last call to ``part``; on an accelerator, those of launching, not of computing."""
        now = perf_counter()
        self._seconds[part] += now - self._clock
        self._clock = now

    def add_step(self, number: int, *, terms: Mapping[str, Tensor], norm: Tensor | None, ids: list[Tensor]) -> None:
        """Note step ``number`` with its detached scalar ``terms`` and the ids of each micro-batch."""
        self._steps.append(_Step(number, terms if norm is None else {**terms, _NORM: norm}, ids))

    def report(self, *, lr: float) -> StepReport:
        """Means over the steps since the last call; raises ``AntmmfError`` naming the first step that went wrong."""
        self.start()
        steps = self._read()
        self.lap("wait")  # an accelerator finishes here what was launched above
        for step, values in zip(self._steps, steps, strict=True):
            if not all(map(isfinite, values.values())):
                raise AntmmfError(self._not_finite(step, values))
        series: defaultdict[str, list[float]] = defaultdict(list)
        for values in steps:
            for name, value in values.items():
                series[name].append(value)
        means = {name: sum(values) / len(values) for name, values in series.items()}
        norm = means.pop(_NORM, None)
        num = len(steps)
        report = StepReport(
            loss=sum(sum(values) for name, values in series.items() if name != _NORM) / num,
            terms=means,
            lr=lr,
            grad_norm=norm,
            samples=round(sum(len(part) for step in self._steps for part in step.ids) / num),
            seconds={part: seconds / num for part, seconds in self._seconds.items()},
        )
        self._steps.clear()
        self._seconds.clear()
        return report

    def _read(self) -> list[dict[str, float]]:
        read = iter(torch.stack([value.float() for step in self._steps for value in step.values.values()]).tolist())
        return [{name: next(read) for name in step.values} for step in self._steps]

    def _not_finite(self, step: _Step, values: Mapping[str, float]) -> str:
        keys = self._keys(int(id) for part in step.ids for id in part)
        shown = ", ".join(keys[:_SHOWN_KEYS]) + (f", ... ({len(keys)})" if len(keys) > _SHOWN_KEYS else "")
        said = ", ".join(f"{name} {value:g}" for name, value in values.items())
        return (
            f"step {step.number}: the loss must be finite, is {said}, on samples {shown}; "
            "lower the learning rate, set max_grad_l2_norm, or look at these samples"
        )
