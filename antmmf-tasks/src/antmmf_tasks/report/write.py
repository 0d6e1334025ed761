"""Write a run's page into its folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from antmmf.errors import AntmmfError
from antmmf.registry import Registry

from antmmf_tasks.finished import FinishedRun
from antmmf_tasks.report.page import page
from antmmf_tasks.report.sheets import Sheets

log = logging.getLogger("antmmf")


def write_report(folder: Path, *, registry: Registry, num_failures: int = 8, max_seconds: float | None = None) -> Path:
    """``report.html`` in the run's folder; after ``max_seconds`` of drawing, clips stay without pictures.

    Raises ``ConfigError`` for a folder of no run, or of one that did not come to its end.
    """
    run, sheets = FinishedRun(folder), dict[str, Sheets]()
    splits = {name.partition("/")[0] for name in run.figures}
    for split in sorted(splits if num_failures else ()):
        if (folder / "predictions" / f"{split}.jsonl").is_file():
            try:
                sheets[split] = Sheets(folder / "config.yml", split, registry=registry, max_seconds=max_seconds)
            except AntmmfError as problem:
                log.warning("the report has no pictures of %s: %s", split, problem)
    try:
        text = page(run, sheets, num_failures=num_failures)
    finally:
        for drawn in sheets.values():
            drawn.close()
    path = folder / "report.html"
    beside = path.with_name(".tmp-report.html")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
    return path
