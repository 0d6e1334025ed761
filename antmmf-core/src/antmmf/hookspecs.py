"""The hooks: events that every plugin may listen to, in a run's order.

A plugin implements any of them as a function in a module (entry-point group ``antmmf.plugins``) or as a method of a
callback, decorated with ``antmmf.hookimpl``, and takes only the arguments it wants. Hooks receive states and floats,
never live tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pluggy

from antmmf.contracts import Figure, Json, RunInfo, RunState, StepReport

hookspec = pluggy.HookspecMarker("antmmf")
hookimpl = pluggy.HookimplMarker("antmmf")


@hookspec(firstresult=True)
def antmmf_resolve(kind: str, name: str) -> Any:
    """Return a component for a name that no entry point offers, or None: the door for whole families (``timm/...``)."""


@hookspec
def antmmf_config_defaults(config: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """Return dotted keys with values for leaves that the config leaves out; what somebody wrote is never changed."""


@hookspec
def antmmf_run_start(info: RunInfo, state: RunState) -> None:
    """A run begins or continues; everything is built, nothing has been read."""


@hookspec
def antmmf_step_end(state: RunState, report: StepReport) -> None:
    """An optimizer step is done. Called every ``log_interval`` steps, with means since the last call."""


@hookspec
def antmmf_eval_end(state: RunState, split: str, figures: Mapping[str, Figure]) -> None:
    """A split (``val`` or ``test``) was evaluated; names carry the split, as in ``val/t2v/R1``."""


@hookspec
def antmmf_checkpoint_saved(state: RunState, path: Path) -> None:
    """A checkpoint is whole and on disk."""


@hookspec(firstresult=True)
def antmmf_should_stop(state: RunState, figures: Mapping[str, Figure]) -> bool | None:
    """Return True to end training after this evaluation."""


@hookspec
def antmmf_run_end(info: RunInfo, state: RunState, error: str | None) -> None:
    """A run ended, ``error`` says why when it failed; always called."""
