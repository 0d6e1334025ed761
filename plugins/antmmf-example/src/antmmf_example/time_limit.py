"""A callback that ends training in time."""

from __future__ import annotations

import time
from typing import Annotated

from antmmf import hookimpl
from pydantic import Field


class TimeLimit:
    """Ends training at the first evaluation after ``minutes``."""

    def __init__(self, *, minutes: Annotated[float, Field(gt=0)] = 60) -> None:
        self._seconds = 60 * minutes
        self._started = time.monotonic()

    @hookimpl
    def antmmf_run_start(self) -> None:
        """The clock starts when everything is built."""
        self._started = time.monotonic()

    @hookimpl
    def antmmf_should_stop(self) -> bool | None:
        """True once the time is over; None leaves the question to others."""
        return True if time.monotonic() - self._started > self._seconds else None
