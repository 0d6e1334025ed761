"""A page about each run, at its end."""

from __future__ import annotations

import logging
from typing import Annotated

from antmmf.contracts import RunInfo
from antmmf.errors import AntmmfError
from antmmf.hookspecs import hookimpl
from antmmf.registry import Registry
from pydantic import Field

log = logging.getLogger("antmmf")


class Report:
    """Writes ``report.html`` when an evaluated run ends: figures, recall curves, ranks, confusions and, where the run
    predicts, ``num_failures`` failures with contact sheets. ``antmmf report RUN`` writes the same page.

    Clips that are not read after ``max_seconds`` stay without a picture. A report that fails is no failure of the run.
    """

    def __init__(
        self,
        *,
        num_failures: Annotated[int, Field(ge=0)] = 8,
        max_seconds: Annotated[float, Field(gt=0)] = 5.0,
    ) -> None:
        self.num_failures = num_failures
        self.max_seconds = max_seconds

    @hookimpl(trylast=True)
    def antmmf_run_end(self, info: RunInfo, error: str | None) -> None:
        if error is not None:
            return
        from antmmf_tasks.finished import FinishedRun
        from antmmf_tasks.report.write import write_report

        try:
            if not FinishedRun(info.save_dir).figures:
                return
            path = write_report(
                info.save_dir, registry=Registry(), num_failures=self.num_failures, max_seconds=self.max_seconds
            )
        except (AntmmfError, OSError) as problem:
            log.warning("no report: %s", problem)
            return
        log.info("report: %s", path.resolve().as_uri())
