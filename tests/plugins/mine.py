"""A ``--plugin`` file: a data set, a reader and a hook that no package offers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from antmmf import Clip, Record, hookimpl
from antmmf.contracts import Pick, RunInfo, Source


class Dots:
    """Eight clips that exist in name only."""

    def __init__(self, *, num: int = 8) -> None:
        self.num = num

    def sources(self) -> Sequence[Path]:
        return []

    def records(self) -> Iterator[Record]:
        for i in range(self.num):
            yield Record(key=f"dot{i}", media=f"dot{i}.mp4", texts=(f"dot number {i}",))


class Noise:
    """Frames of one colour; leaves the number of its process in ``$SEEN``."""

    def __init__(self, *, side: int = 32) -> None:
        self.side = side

    def read(self, source: Source, pick: Pick) -> Clip:
        Path(os.environ["SEEN"], str(os.getpid())).touch()
        times = np.arange(4) / 4
        frames = np.full((4, self.side, self.side, 3), int(source.path.stem[3:]), np.uint8)
        return Clip(frames[pick(times)], len(times))


@hookimpl
def antmmf_run_start(info: RunInfo) -> None:
    (info.save_dir / "hook.txt").write_text(info.recipe)


ANTMMF_COMPONENTS = {"datasets": {"dots": Dots}, "readers": {"noise": "Noise"}}
