"""Ctrl-C, SIGTERM and a warning of preemption end a run between two steps, never inside of one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType, TracebackType
from typing import Any

_TO_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_ECHO = 3.0  # seconds
_PATIENCE = b"\nfinishing the step, then saving; Ctrl-C again ends at once\n"


@contextmanager
def helpers_deaf() -> Iterator[None]:
    """Processes that are started in here never see a signal to stop: torchrun's agent and SLURM send it to all, but it
    is for the trainer, which needs its helpers to finish the step. They can still be killed.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TO_STOP)  # inherited; what comes meanwhile is kept for later
    try:
        resource_tracker.ensure_running()  # which lets SIGINT and SIGTERM through again
        signal.pthread_sigmask(signal.SIG_BLOCK, _TO_STOP)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopSignals:
    """While entered, the first SIGINT, SIGTERM or ``extra`` signal is only noted in ``caught``; a second acts at once.

    Processes stop together: whoever learns of another one's signal sets ``caught`` too. SLURM and torchrun's agent may
    both pass one signal on, so a second within 3 s does nothing, unless it is SIGINT: Ctrl-C, pressed twice, as the
    first one is told if ``quiet`` is not set. Only the main thread can listen; elsewhere nothing is caught.
    """

    def __init__(self, extra: Sequence[int] = (), *, quiet: bool = True) -> None:
        self.caught: int | None = None
        self._quiet = quiet
        self._numbers = (signal.SIGINT, signal.SIGTERM, *extra)
        self._before: dict[int, Any] = {}
        self._first: float | None = None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def end(self) -> None:
        """Raise what the signal means: ``KeyboardInterrupt``, or ``SystemExit`` with 128 + its number."""
        if self.caught == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self.caught or 0))

    def _note(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            self.caught = self.caught or number
            if number == signal.SIGINT and not self._quiet:
                os.write(2, _PATIENCE)  # logging may be what was interrupted
        elif number == signal.SIGINT or now - self._first > _ECHO:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
