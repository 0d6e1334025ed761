"""When one process of a run fails, all end: within seconds, with its message first, and with its exit code.

The first to fail says so in the launcher's store. A thread of every process looks there once a second and ends its
process even if that waits in a collective for ever, so no step pays for it, and no launcher has to help.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from antmmf.distributed.store import shared_store
from antmmf.distributed.world import World, joined_world

log = logging.getLogger("antmmf")

_POLL, _COURTESY, _HEARD, _GRACE = 1.0, 2.0, 3.0, 3.0  # seconds
_CLAIM, _FAILURE, _SEEN = "failure/claim", "failure/record", "failure/seen"

Tell = Callable[[Exception], int]
"""Prints an error and returns the exit code that it means."""


@contextmanager
def together(tell: Tell) -> Iterator[World]:
    """All processes of this run, joined and guarded; ``tell`` prints what goes wrong, on the first process to fail."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    with joined_world(device or "cpu") as world, guarded(world, tell):
        yield world


@contextmanager
def guarded(world: World, tell: Tell) -> Iterator[None]:
    """End all processes within 10 s when one of them raises an ``Exception`` in here, with the same code on each.

    ``tell`` is called on the first that fails; the others say in one line why they stop. Signals are not failures.
    Where there is one process, errors pass through.
    """
    if world.size == 1:
        yield
        return
    guard = _Guard(world)
    try:
        yield
    except Exception as error:
        raise SystemExit(guard.fail(error, tell)) from None
    finally:
        guard.left.set()


class _Guard:
    def __init__(self, world: World) -> None:
        self.world = world
        self.left = threading.Event()
        self._told = threading.Event()
        self._error: Exception | None = None
        self._code = 1
        self._store = shared_store()  # not the process group's, which a collective may hold
        threading.Thread(target=self._watch, name="antmmf failures", daemon=True).start()

    def fail(self, error: Exception, tell: Tell) -> int:
        """Make this failure known, unless another was first; returns the exit code."""
        self._error = error
        if not self.world.is_first:
            time.sleep(_COURTESY)  # what fails on all processes is the first one's to say
        if self._is_first_failure():
            self._code = self._tell(error, tell)
            self._store.set(_FAILURE, json.dumps([self._name(), self._code, str(error)]))
            self._wait_until_heard()
        elif not self._told.wait(_POLL + _GRACE):  # the other was killed before it could say why
            self._code = self._tell(error, tell)
        _end_in(_GRACE, self._code)  # leaving the process group may take for ever now
        return self._code

    def _tell(self, error: Exception, tell: Tell) -> int:
        if not isinstance(error, RuntimeError) or not re.search("(closed|reset) by peer", str(error)):
            return tell(error)
        log.error("%s stops: another process is gone without a word", self._name())
        return 1

    def _is_first_failure(self) -> bool:
        try:
            return not self._told.is_set() and self._store.add(_CLAIM, 1) == 1
        except dist.DistError:
            return False

    def _wait_until_heard(self) -> None:
        """The store may end with this process, and a launcher kills the others when it does."""
        deadline = time.monotonic() + _HEARD
        while self._store.add(_SEEN, 0) < self.world.size and time.monotonic() < deadline:
            time.sleep(0.05)

    def _watch(self) -> None:
        while not self.left.wait(_POLL):
            try:
                if not self._store.check([_FAILURE]):
                    continue
                who, self._code, message = json.loads(self._store.get(_FAILURE))
                self._store.add(_SEEN, 1)
            except dist.DistError:
                who, message = "", "the launcher or rank 0 is gone"
            if who == self._name() or self.left.is_set():
                return
            if self._error is None or str(self._error) != message:  # else all failed alike
                log.error("%s stops: %s", self._name(), f"{who} failed" if who else message)
            self._told.set()
            if not self.left.wait(_GRACE):  # time to close what is open, should its collective fail by itself
                os._exit(self._code)
            return

    def _name(self) -> str:
        return f"rank {self.world.rank} ({platform.node()})"


def _end_in(seconds: float, code: int) -> None:
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()
