"""Readers that do to their process what damaged files make decoders do."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from antmmf.contracts import Clip, Source
from antmmf.errors import DataError, PluginError

Pick = Callable[[np.ndarray], np.ndarray]
WIDE = 64


class HostileReader:
    """What happens is in the file's name; else 10 gray frames whose level is their number."""

    def __init__(self) -> None:
        self.leaked: list[bytes] = []

    def read(self, source: Source, pick: Pick) -> Clip:
        kind = source.path.stem
        if kind == "hang":
            time.sleep(1000)
        if kind == "spin":
            while True:
                pass
        if kind == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if kind == "exit":
            os._exit(3)
        if kind == "once" and not source.path.exists():
            source.path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "bad":
            raise DataError(f"{source}: no frame", reason="no_frames")
        if kind == "odd":
            raise OddError(1, 2)
        if kind == "slow network":
            raise TimeoutError("no answer")
        if kind.startswith("leak"):
            self.leaked.append(os.urandom(4 << 20))
        indices = pick(np.arange(10) / 10)
        levels = np.full((10, WIDE, WIDE, 3), np.arange(10)[:, None, None, None], np.uint8)
        return Clip(frames=levels[indices], num_total=10)

    def facts(self, source: Source) -> Mapping[str, Any]:
        if source.path.stem == "counted":
            with source.path.open("a") as file:
                file.write("asked ")
            os._exit(3)
        return {"codec": "toy", "name": source.path.name}


class OddError(Exception):
    """It cannot be unpickled: its arguments are not kept."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class SpyReader(HostileReader):
    """Says in its facts what its process is like."""

    def facts(self, source: Source) -> Mapping[str, Any]:  # noqa: ARG002
        return {"pid": os.getpid(), "torch": "torch" in sys.modules, "blocked": sorted(blocked())}


def blocked() -> set[int]:
    return {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])}


def fail_to_set_up() -> None:
    raise PluginError("no such plugin")
