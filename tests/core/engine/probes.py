"""A command ``antmmf probe SCENARIO``, for processes that fail or are stopped together; run by test_failures.py."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time

import click
from antmmf.cli.run import show_log, tell_and_code
from antmmf.distributed.environment import ranks, restarted, started
from antmmf.distributed.failure import together
from antmmf.distributed.world import World
from antmmf.errors import DataError
from antmmf.stopping import StopSignals


@click.command()
@click.argument("scenario")
def probe(scenario: str) -> None:
    """Do as SCENARIO says, in as many processes as the launcher has started."""
    show_log(quiet=False, first=ranks().rank == 0)
    with together(functools.partial(tell_and_code, debug=False)) as world:
        world.wait()
        say(f"rank {world.rank} of {world.size} is ready")
        SCENARIOS[scenario](world)
        world.wait()
    say(f"rank {world.rank} is done, {started()}")


def say(line: str) -> None:
    """In one write: processes share the output."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def bug(world: World) -> None:
    """One process fails, the others wait in a collective."""
    if world.rank == 1:
        raise ZeroDivisionError("on one rank")
    world.wait()


def missing(world: World) -> None:
    """The first process, which holds the store where there is no launcher, meets what the user can mend; the others
    would never notice."""
    if world.is_first:
        raise DataError("clips is missing here")
    time.sleep(1000)


def all_missing(_: World) -> None:
    """All processes meet the same."""
    raise DataError("clips is missing everywhere")


def kill(world: World) -> None:
    """One process is killed, at the first attempt."""
    if not restarted() and world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    world.wait()


def listen(world: World) -> None:
    """Work in steps until a signal comes, agreeing on it as the trainer does."""
    with StopSignals([signal.SIGUSR1]) as signals:
        world.wait()
        say(f"rank {world.rank} listens")
        while True:
            time.sleep(0.02)
            caught = int(world.exchange([signals.caught or 0]).max())
            if caught:
                say(f"rank {world.rank} saves after signal {caught}")
                signals.caught = caught
                signals.end()


SCENARIOS = {
    "fine": World.wait,
    "bug": bug,
    "missing": missing,
    "all-missing": all_missing,
    "kill": kill,
    "listen": listen,
}
