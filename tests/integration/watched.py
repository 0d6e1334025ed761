"""A ``--plugin`` file: clips whose reader writes down each that it reads, beside the steps and evaluations of the run.

A line a fact, in their order, in the file ``$WATCHED``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from antmmf import Clip, Record, hookimpl
from antmmf.contracts import Pick, RunState, Source


def note(fact: str) -> None:
    """Append a line; whole, whichever process writes it."""
    with Path(os.environ["WATCHED"]).open("a", encoding="utf-8") as file:
        file.write(f"{fact}\n")


class Clips:
    """Eight clips of one split, which exist in name only."""

    def __init__(self, *, split: str) -> None:
        self.split = split

    def sources(self) -> Sequence[Path]:
        return []

    def records(self) -> Iterator[Record]:
        for number in range(8):
            yield Record(key=f"{self.split}{number}", media=f"{self.split}_{number}", texts=("word " * (number + 1),))


class Noted:
    """Frames of one colour, another one for each clip."""

    def read(self, source: Source, pick: Pick) -> Clip:
        split, number = source.path.name.split("_")
        note(f"read {split}")
        frames = np.full((4, 32, 32, 3), 30 * int(number), np.uint8)
        return Clip(frames[pick(np.arange(4) / 4)], 4)


@hookimpl
def antmmf_step_end(state: RunState) -> None:
    note(f"step {state.step}")


@hookimpl
def antmmf_eval_end(state: RunState, split: str) -> None:
    note(f"evaluated {split} after {state.step}")


ANTMMF_COMPONENTS = {"datasets": {"clips": Clips}, "readers": {"noted": Noted}}
