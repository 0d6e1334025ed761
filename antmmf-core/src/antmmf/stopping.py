"""Ctrl-C and SIGTERM end a run between two steps, never inside of one."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is only noted in ``caught``; a second one acts at once.

    Only the main thread can listen; elsewhere nothing is caught.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
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
        self.caught = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
