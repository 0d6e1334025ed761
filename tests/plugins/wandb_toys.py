"""For the tests of plugins/antmmf-wandb: the plugin as if installed, a stand-in for wandb, a reader of its files."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from antmmf.testing import fake_distribution

PLUGIN = Path(__file__).parents[2] / "plugins" / "antmmf-wandb"
SOURCE = PLUGIN / "src" / "antmmf_wandb"
BLOCK = 32 * 1024


def install(folder: Path) -> Path:
    """Make ``folder`` one that belongs on the path, with the plugin's modules and its metadata."""
    text = (PLUGIN / "pyproject.toml").read_text(encoding="utf-8")
    point = re.search(r'\[project.entry-points."(antmmf.callbacks)"\]\n(\w+) = "(.+)"', text)
    assert point
    modules = {
        "antmmf_wandb" if path.stem == "__init__" else f"antmmf_wandb.{path.stem}": path.read_text(encoding="utf-8")
        for path in SOURCE.glob("*.py")
    }
    points = {point[1]: {point[2]: point[3]}}
    return fake_distribution(folder, name="antmmf-wandb", version="0.1.0", entry_points=points, modules=modules)


@dataclass
class Service:
    """What W&B's servers keep of each run."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)
    starts: list[dict[str, Any]] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)
    axes: list[tuple[str, str]] = field(default_factory=list)

    def init(self, **arguments: Any) -> FakeRun:
        self.starts.append(arguments)
        return FakeRun(self, arguments["id"] or f"run{len(self.rows)}", disabled=arguments["mode"] == "disabled")


class FakeRun:
    """A run of wandb's as far as a tracker needs it: rows must come in order, and one resumed counts on."""

    def __init__(self, service: Service, id: str, *, disabled: bool) -> None:
        self.id, self.disabled, self._service = id, disabled, service
        self._rows = service.rows.setdefault(id, [])
        self.summary = service.summaries.setdefault(id, {})

    @property
    def step(self) -> int:
        return self._rows[-1]["_step"] + 1 if self._rows else 0

    def define_metric(self, name: str, *, step_metric: str) -> None:
        self._service.axes.append((name, step_metric))

    def log(self, values: dict[str, Any], *, step: int) -> None:
        if self._rows and step == self._rows[-1]["_step"]:
            self._rows[-1].update(values)
            return
        assert step >= self.step, f"wandb would warn about step {step} and throw it away"
        self._rows.append({"_step": step, **values})

    def finish(self, exit_code: int) -> None:
        self._service.exits.append(exit_code)


@dataclass
class Offline:
    """What wandb wrote about one start of a run."""

    id: str = ""
    project: str = ""
    exit_code: int = -1
    steps: list[int] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)


def read_offline(path: Path) -> Offline:
    """What a ``.wandb`` file says."""
    found = Offline()
    for record in records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.id, found.project = record.run.run_id, record.run.project
            found.config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            found.steps.append(row["step"])
        elif kind == "summary":
            found.summary |= {item.key: json.loads(item.value_json) for item in record.summary.update}
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def records(content: bytes) -> Iterator[Any]:
    """The records of a ``.wandb`` file: a header, then LevelDB's log format (blocks of parts of 7 + n bytes)."""
    from wandb.proto.wandb_internal_pb2 import Record

    at, parts = 7, b""
    while at < len(content):
        if BLOCK - at % BLOCK < 7:  # padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""
