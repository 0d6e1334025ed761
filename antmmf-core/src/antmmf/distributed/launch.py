"""``antmmf run --nproc-per-node N``: this process becomes torchrun's agent, which starts and watches the others.

No launcher of our own: torchrun's arguments mean what they mean there, and ``torchrun -m antmmf run`` does the same.
torch is only imported once there is something to launch.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import NoReturn

from antmmf.distributed.environment import STARTED, run_name
from antmmf.errors import ConfigError

log = logging.getLogger("antmmf")

VALUES = (
    "nproc-per-node", "nnodes", "node-rank", "master-addr", "master-port", "rdzv-backend", "rdzv-endpoint", "rdzv-id",
    "rdzv-conf", "max-restarts", "monitor-interval", "shutdown-timeout", "start-method", "role", "local-addr",
    "log-dir", "redirects", "tee", "local-ranks-filter", "numa-binding", "event-log-handler", "logs-specs",
    "duplicate-stdout-filters", "duplicate-stderr-filters", "signals-to-handle",
)  # fmt: skip
"""torchrun's arguments that have a value; dashes may be underscores."""
FLAGS = ("standalone", "virtual-local-rank")
_PLACES = ("rdzv-backend", "rdzv-endpoint", "master-addr", "master-port", "node-rank")  # of a meeting point


def split_arguments(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """torchrun's arguments by name (with dashes), and all others in their order. Raises ``ConfigError``."""
    given: dict[str, str] = {}
    rest: list[str] = []
    left = iter(arguments)
    for argument in left:
        option, equals, value = argument.partition("=")
        name = option.removeprefix("--").replace("_", "-")
        if not option.startswith("--") or name not in (*VALUES, *FLAGS):
            rest.append(argument)
        elif name in FLAGS:
            given[name] = ""
        else:
            following = value if equals else next(left, None)
            if following is None:
                raise ConfigError(f"{option} needs a value")
            given[name] = following
    return given, rest


def launch(given: Mapping[str, str], command: Sequence[str]) -> int:
    """Run ``python -m antmmf COMMAND`` in the processes that torchrun's arguments ask for.

    Returns the exit code that one process would have; SIGUSR1 and SIGUSR2 reach the processes as SIGTERM does. Raises
    ``KeyboardInterrupt`` after Ctrl-C, ``ConfigError`` for arguments that torchrun refuses.
    """
    if given.get("nnodes", os.environ.get("PET_NNODES", "1")) not in ("1", "1:1"):
        # With the agents' common store a machine that comes later or is replaced is not taken in (torch 2.13).
        os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    if "--debug" not in command:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else a store that is gone is worth 20 lines to each
    with tempfile.TemporaryDirectory(prefix="antmmf-launch-") as folder:  # the agent leaves its own behind
        logs = {} if {"redirects", "tee"} & given.keys() else {"log-dir": folder}
        return _run_agent(_parsed({**logs, **given}, command))


def _run_agent(parsed: argparse.Namespace) -> int:
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args

    def forward(number: int, _: object) -> NoReturn:
        raise SignalException(f"signal {number}", sigval=signal.Signals(number))

    if "--debug" not in parsed.training_script_args:  # the process that failed has said all there is to say
        logging.getLogger("torch.distributed").handlers[:] = [logging.NullHandler()]
    try:
        config, program, arguments = config_from_args(parsed)  # also sets OMP_NUM_THREADS, for several processes
    except (ValueError, RuntimeError, AssertionError) as error:
        _refuse(str(error))
    os.environ[STARTED] = run_name(time.time(), os.getpid())
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, forward)
    try:
        elastic_launch(config, program)(*arguments)
    except ChildFailedError as failed:
        return _code_of({rank: failure.exitcode for rank, failure in failed.failures.items()})
    except SignalException as stopped:
        if stopped.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        return _stopped(stopped.sigval)
    except (RendezvousError, DistError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError(f"processes cannot meet at {config.rdzv_endpoint}: {reason}") from error
    return 0


def _parsed(given: Mapping[str, str], command: Sequence[str]) -> argparse.Namespace:
    """What torchrun's own parser makes of the arguments and of its PET_ variables; on one host with a free port."""
    import torch
    from torch.distributed.run import get_args_parser

    options = [f"--{name}={value}" if name in VALUES else f"--{name}" for name, value in given.items()]
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    parsed = parser.parse_args([*options, "-m", "antmmf", *command])
    if "nproc-per-node" not in given and "PET_NPROC_PER_NODE" not in os.environ:
        parsed.nproc_per_node = str(torch.accelerator.device_count() if torch.accelerator.is_available() else 1)
    is_alone = str(parsed.nnodes) in ("1", "1:1") and not any(
        name in given or f"PET_{name.replace('-', '_').upper()}" in os.environ for name in _PLACES
    )
    if parsed.standalone or is_alone:
        parsed.rdzv_backend, parsed.rdzv_endpoint, parsed.rdzv_id = "c10d", "127.0.0.1:0", str(uuid.uuid4())
        parsed.local_addr = parsed.local_addr or "127.0.0.1"  # not every host can resolve its own name
    parsed.master_port = parsed.master_port or 29500
    return parsed


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"torchrun's arguments: {message}")


def _code_of(codes: Mapping[int, int]) -> int:
    """The exit code of a run whose processes ended with these, by rank; negative: killed by that signal.

    A process that the agent stopped because of another one is not the cause.
    """
    rank, code = min(codes.items(), key=lambda item: (item[1] in (-signal.SIGTERM, 128 + signal.SIGTERM), item[1] > 0))
    number = -code if code < 0 else code - 128
    if number not in set(signal.Signals):
        return code
    if code > 0 or number == signal.SIGTERM:
        return _stopped(number)
    hint = ", which is what happens when memory runs out" if number == signal.SIGKILL else ""
    log.error("rank %d was killed by %s%s", rank, signal.Signals(number).name, hint)
    return 128 + number


def _stopped(number: int) -> int:
    log.warning("stopped by %s", signal.Signals(number).name)
    return 128 + number
