"""What the steps since the last report were like; values stay on the device until the report reads them at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter

import torch
from torch import Tensor

from antmmf.contracts import StepReport
from antmmf.errors import AntmmfError

_SHOWN_KEYS = 8


class Meter:
    """Collects losses, gradient norms and seconds; one ``report`` costs one transfer, a step costs none.

    ``keys`` turns sample ids into keys, for the message about a loss that is not finite.
    """

    def __init__(self, keys: Callable[[Iterable[int]], list[str]]) -> None:
        self._keys = keys
        self._clock = perf_counter()
        self._clear()

    def _clear(self) -> None:
        self._terms: defaultdict[str, list[Tensor]] = defaultdict(list)
        self._norms: list[Tensor] = []
        self._steps: list[tuple[int, list[Tensor]]] = []
        self._samples = 0
        self._seconds: defaultdict[str, float] = defaultdict(float)

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
        for name, value in terms.items():
            self._terms[name].append(value)
        if norm is not None:
            self._norms.append(norm)
        self._steps.append((number, ids))
        self._samples += sum(len(part) for part in ids)

    def report(self, *, lr: float) -> StepReport:
        """Means over the steps since the last call; raises ``AntmmfError`` naming the first step that went wrong."""
        terms = {name: torch.stack(values).tolist() for name, values in self._terms.items()}
        norms = torch.stack(self._norms).tolist() if self._norms else []
        self.lap("wait")  # an accelerator finishes here what was launched above
        losses = [sum(values) for values in zip(*terms.values(), strict=True)]
        self._refuse_not_finite(losses, terms, norms)
        num = max(1, len(self._steps))
        report = StepReport(
            loss=sum(losses) / num,
            terms={name: sum(values) / num for name, values in terms.items()},
            lr=lr,
            grad_norm=sum(norms) / num if norms else None,
            samples=round(self._samples / num),
            seconds={part: seconds / num for part, seconds in self._seconds.items()},
        )
        self._clear()
        return report

    def __len__(self) -> int:
        return len(self._steps)

    def _refuse_not_finite(self, losses: list[float], terms: Mapping[str, list[float]], norms: list[float]) -> None:
        good = torch.tensor(losses).isfinite()
        if norms:
            good &= torch.tensor(norms).isfinite()
        if good.all():
            return
        at = int(good.logical_not().nonzero()[0, 0])
        number, parts = self._steps[at]
        values = ", ".join(f"{name} {series[at]:g}" for name, series in terms.items())
        values += f", gradient norm {norms[at]:g}" if norms else ""
        keys = self._keys(int(id) for part in parts for id in part)
        shown = ", ".join(keys[:_SHOWN_KEYS]) + (f", ... ({len(keys)})" if len(keys) > _SHOWN_KEYS else "")
        raise AntmmfError(
            f"step {number}: the loss must be finite, is {values}, on samples {shown}; "
            "lower the learning rate, set max_grad_l2_norm, or look at these samples"
        )
