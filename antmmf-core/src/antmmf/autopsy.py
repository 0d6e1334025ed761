"""Where the time of a run went, and what to do about it, in words. docs/performance.md explains the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median_low

MIN_STEPS = 20  # what fewer steps take says little about many

_CACHE = "build the cache (input_attributes.reader: {type: antmmf-vision:cached})"
_SMALLER = "take fewer or smaller frames (sampler, train_transform)"
RULES = {
    # part -> largest share that is in order, and what to do about a larger one
    "data": (0.1, ""),  # depends on what the loader's processes did meanwhile
    "communication": (0.2, "communicating: raise training_parameters.batch_size or use a faster link"),
    "to_device": (0.1, f"copying batches to the device: {_SMALLER}"),
    "optimizer": (0.2, "in the optimizer: raise training_parameters.batch_size or freeze some of the model"),
    "evaluation": (0.2, "evaluating: raise training_parameters.evaluation_interval or test_batch_size"),
    "saving": (0.02, "saving: raise training_parameters.snapshot_interval and leave async_save true"),
    "start": (0.2, "waiting for the first batch: a longer run pays for it once, too"),
}
_BETWEEN_STEPS = ("start", "evaluation", "saving")
_BUSY = 0.7  # workers that decode for a larger share of the time can hardly keep up
_COMPUTE_BOUND = 0.7
_OWN = ("data", "to_device", "forward")  # a process does these before it has to wait for others
_SLOW, _FELT = 1.3, 0.05  # times the median, and a share of the step that it must cost


@dataclass(frozen=True, kw_only=True)
class Autopsy:
    """What ``steps`` steps took: ``seconds`` of the whole run by part, any of which may be left out.

    ``decode`` is the time of the loader's processes, added up over them. It passes beside all the other parts, which
    together are the wall time. ``cores`` are those that this process may use, ``threads`` those that compute its steps.
    """

    seconds: Mapping[str, float]
    steps: int
    num_workers: int
    cores: int
    threads: int = 1
    is_cached: bool = False

    def shares(self) -> dict[str, float]:
        """Each part's share of the wall time."""
        parts = {part: value for part, value in self.seconds.items() if part != "decode" and value > 0}
        return {part: value / sum(parts.values()) for part, value in parts.items()}

    def numbers(self) -> str:
        """``1,000 steps of 412 ms: data 61 %, forward 12 %, backward 27 %``; empty before the first step."""
        if self.steps == 0:
            return ""
        said = [f"{part} {_percent(share)}" for part, share in self.shares().items() if share >= 0.005]
        return f"{self.steps:,} steps of {_milliseconds(self._training() / self.steps)}: {', '.join(said)}"

    def verdict(self) -> str:
        """The first of ``findings``, or what the time went into when all is in order; empty for a few steps."""
        if self.steps < MIN_STEPS:
            return ""
        computing = sum(self.shares().get(part, 0.0) for part in ("forward", "backward"))
        rest = "compute-bound" if computing >= _COMPUTE_BOUND else "no other part stands out"
        return next(iter(self.findings()), f"{_percent(computing)} forward and backward: {rest}")

    def findings(self) -> list[str]:
        """What takes more of the time than it should, with what to do about it, the largest share first."""
        shares = self.shares()
        over = [part for part, (limit, _) in RULES.items() if shares.get(part, 0.0) > limit]
        over.sort(key=lambda part: -shares[part])
        return [f"{_percent(shares[part])} {RULES[part][1] or self._data_advice()}" for part in over]

    def _data_advice(self) -> str:
        training, waited, now = self._training(), self.seconds["data"], self.num_workers
        decoding = self.seconds.get("decode", 0.0) if now else waited
        busy = decoding / (training * now) if now else 1.0
        if busy < _BUSY:
            few = f"waiting for data, though the workers decode only {_percent(busy)} of the time"
            if decoding < waited:
                return f"{few}: set training_parameters.num_workers 0, reading takes less time than waiting for it"
            return f"{few}: batches come unevenly or are slow to hand over; {_SMALLER}"
        wanted, room = ceil(decoding / max(training - waited, 1e-9)), max(1, self.cores - self.threads)
        way_out = _SMALLER if self.is_cached else _CACHE
        if now >= room:
            return f"waiting for decoding, and {self.cores} cores have no room for more workers: {way_out}"
        raised = f"waiting for decoding: raise training_parameters.num_workers from {now} to"
        if wanted <= room:
            return f"{raised} {max(wanted, now + 1)} or {way_out}"
        return f"{raised} {room}, all that {self.cores} cores have room for, and {way_out}"

    def _training(self) -> float:
        """The wall time of the steps themselves."""
        return sum(value for part, value in self.seconds.items() if part not in ("decode", *_BETWEEN_STEPS))


def slow_ranks(seconds: Sequence[Mapping[str, float]], hosts: Sequence[str]) -> str | None:
    """Name the slowest rank and its host, if its own work takes 1.3 times the median's and is felt; else None.

    ``seconds`` are those of an average step by part, one mapping a rank. Own work is what comes before a process
    waits for others. The backward pass does not count: in it all wait for the slowest.
    """
    own = [sum(parts.get(part, 0.0) for part in _OWN) for parts in seconds]
    typical, rank = median_low(own), own.index(max(own))
    whole = sum(value for part, value in seconds[rank].items() if part != "decode")
    if own[rank] <= _SLOW * typical or own[rank] - typical <= _FELT * whole or typical <= 0:
        return None
    excess = {part: seconds[rank].get(part, 0.0) - median_low([r.get(part, 0.0) for r in seconds]) for part in _OWN}
    more = sum(value > _SLOW * typical for value in own) - 1
    return (
        f"rank {rank} on {hosts[rank]} is {own[rank] / typical:.1f} times as slow as the median "
        f"({_milliseconds(own[rank])} against {_milliseconds(typical)} a step), "
        f"mostly {max(excess, key=lambda part: excess[part])}{f'; and {more} more' if more else ''}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 0.1 else f"{1000 * seconds:,.0f} ms"
