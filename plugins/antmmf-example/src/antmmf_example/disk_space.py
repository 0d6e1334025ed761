"""A hook plugin: refuses to start a run on a disk that is nearly full."""

from __future__ import annotations

import shutil

from antmmf import AntmmfError, RunInfo, hookimpl

LEAST = 100 * 2**20  # bytes


@hookimpl
def antmmf_run_start(info: RunInfo) -> None:
    """Raise ``AntmmfError`` when less than 100 MB are free for checkpoints."""
    free = shutil.disk_usage(info.save_dir).free
    if free < LEAST:
        raise AntmmfError(
            f"{info.save_dir}: must have {LEAST >> 20} MB free, has {free >> 20} MB; choose another save_dir"
        )
