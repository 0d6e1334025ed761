"""Which of a run's processes this one is, as torchrun or SLURM says; the only reader of rank variables. No torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from antmmf.errors import ConfigError

STARTED = "ANTMMF_STARTED"  # set by our launcher: a name for the run, the same after every restart
_PORTS = range(15_000, 30_000)  # below those that systems hand out by themselves


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run (``rank`` of ``size``) and of its host (``local_rank`` of ``num_local``)."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    num_local: int = 1


def ranks(env: Mapping[str, str] = os.environ) -> Ranks:
    """What the launcher told this process: torchrun's variables, else those of a SLURM step, else alone."""
    if "RANK" in env and "WORLD_SIZE" in env:
        local = int(env.get("LOCAL_RANK", "0")), int(env.get("LOCAL_WORLD_SIZE", "1"))
        return Ranks(int(env["RANK"]), int(env["WORLD_SIZE"]), *local)
    if "SLURM_STEP_ID" in env and int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # started by srun, not by sbatch
        num_local = int(re.split(r"[(,]", env.get("SLURM_STEP_TASKS_PER_NODE", "1"))[0])  # 8(x2),4: of the first node
        return Ranks(int(env["SLURM_PROCID"]), int(env["SLURM_STEP_NUM_TASKS"]), int(env["SLURM_LOCALID"]), num_local)
    return Ranks()


def prepare_environment(env: MutableMapping[str, str] = os.environ) -> None:
    """Say where rank 0 is reached, for ``init_process_group``: in a SLURM step it is on the first host, at a port that
    follows from the numbers of job and step. Raises ``ConfigError`` where nothing tells.
    """
    if ranks(env).size == 1 or ("MASTER_ADDR" in env and "MASTER_PORT" in env):
        return
    hosts = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_NODELIST")
    if hosts is None:
        raise ConfigError("RANK and WORLD_SIZE are set, so MASTER_ADDR and MASTER_PORT must be set too; see torchrun")
    number = int(env.get("SLURM_JOB_ID", "0")) + 101 * int(env["SLURM_STEP_ID"])
    env.setdefault("MASTER_ADDR", first_host(hosts))
    env.setdefault("MASTER_PORT", str(_PORTS[number % len(_PORTS)]))


def first_host(hosts: str) -> str:
    """The first host of SLURM's list: ``node003`` of ``node[003-010,12],login1``."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", hosts)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0] if first else hosts)


def restarts(env: Mapping[str, str] = os.environ) -> int:
    """How often torchrun's agent has started this run's processes again because one of them had died."""
    return int(env.get("TORCHELASTIC_RESTART_COUNT", "0"))


def count_restarts(number: int, env: MutableMapping[str, str] = os.environ) -> None:
    """Let all processes count as many restarts as the one that counts most."""
    if number > 0:
        env["TORCHELASTIC_RESTART_COUNT"] = str(number)


def restarted(env: Mapping[str, str] = os.environ) -> bool:
    """Whether this run goes on after one of its processes had died."""
    return restarts(env) > 0


def started(env: Mapping[str, str] = os.environ) -> str | None:
    """A name for this run that a restart by the agent keeps: when it began, and the launcher's number.

    None where no launcher restarts anything, or where nothing is known about it.
    """
    if STARTED in env or "TORCHELASTIC_RUN_ID" not in env:
        return env.get(STARTED)
    agent = os.getppid()
    since_boot = _field(Path(f"/proc/{agent}/stat"), r".*\)(?: \S+){19} (\d+)")
    booted = _field(Path("/proc/stat"), r"(?s).*^btime (\d+)")
    if since_boot is None or booted is None:
        return f"agent-{agent}"
    return run_name(booted + since_boot / os.sysconf("SC_CLK_TCK"), agent)


def run_name(seconds: float, process: int) -> str:
    """``20261123-113000-4711``: the moment, and the launcher's process, since two runs may begin in one second."""
    return f"{datetime.fromtimestamp(seconds):%Y%m%d-%H%M%S}-{process}"


def _field(file: Path, pattern: str) -> int | None:
    try:
        found = re.match(pattern, file.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
