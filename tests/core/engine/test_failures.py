"""Several processes end together: after an error of one, after a signal, after a kill; and start again."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from antmmf.stopping import StopSignals, helpers_deaf
from antmmf.testing import fake_distribution

LAUNCH = """
import sys
from antmmf.cli.run import show_log
from antmmf.distributed.launch import launch, split_arguments
show_log(quiet=False)
try:
    sys.exit(launch(*split_arguments(sys.argv[1:])))
except KeyboardInterrupt:
    sys.exit(130)
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start a process that knows the command ``antmmf probe``; its stderr comes with its stdout."""
    fake_distribution(tmp_path, name="probes", entry_points={"antmmf.commands": {"probe": "probes:probe"}})
    paths = [str(tmp_path), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **environment}
        command = [sys.executable, *arguments]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return start


@pytest.fixture
def port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def finish(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """(exit code, lines) of a process that ends by itself."""
    try:
        out, _ = process.communicate(timeout=100)
    except subprocess.TimeoutExpired:
        process.terminate()  # and the launcher ends the others
        raise
    return process.returncode, [line for line in out.splitlines() if line]


def launched(start: Start, scenario: str, *arguments: str) -> subprocess.Popen[str]:
    """The scenario in two processes of our launcher."""
    return start("-c", LAUNCH, "--nproc-per-node=2", *arguments, "probe", scenario)


def after_ready(lines: list[str]) -> list[str]:
    """What stands behind the greetings of the processes."""
    assert sum("is ready" in line for line in lines) == 2
    return [line for line in lines if "is ready" not in line]


# --- one process fails ------------------------------------------------------------------------------------------------


def test_an_error_of_one_process_ends_all_with_its_traceback_first(start: Start) -> None:
    code, lines = finish(launched(start, "bug"))
    first, *traceback, last = after_ready(lines)
    assert code == 1
    assert re.fullmatch(r"antmmf: rank 1 \(\S+\) failed:", first)
    assert (traceback[0], traceback[-1]) == ("Traceback (most recent call last):", "ZeroDivisionError: on one rank")
    assert sum("Traceback" in line for line in lines) == 1
    assert re.fullmatch(r"rank 0 \((\S+)\) stops: rank 1 \(\1\) failed", last)


def test_what_all_processes_meet_is_said_once(start: Start) -> None:
    code, lines = finish(launched(start, "all-missing"))
    assert (code, after_ready(lines)) == (2, ["antmmf: clips is missing everywhere"])


def test_what_the_user_can_mend_ends_all_with_2_though_nothing_watches_over_them(start: Start, port: int) -> None:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    both = [start("-m", "antmmf", "probe", "missing", RANK=str(rank), **place) for rank in range(2)]
    (code, first), (other_code, other) = map(finish, both)
    assert (code, other_code) == (2, 2)
    assert first[1:] == ["antmmf: clips is missing here"]
    assert re.fullmatch(r"rank 1 \((\S+)\) stops: rank 0 \(\1\) failed", other[-1])


def test_a_slurm_step_needs_no_launcher(start: Start, port: int) -> None:
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "127.0.0.1"}
    step |= {"SLURM_JOB_ID": str(port), "SLURM_STEP_TASKS_PER_NODE": "2"}
    tasks = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), **step} for rank in range(2)]
    both = [start("-m", "antmmf", "probe", "fine", **task) for task in tasks]
    (code, first), (other_code, other) = map(finish, both)
    assert (code, other_code) == (0, 0)
    assert first == ["rank 0 of 2 is ready", "rank 0 is done, None"]
    assert other == ["rank 1 of 2 is ready", "rank 1 is done, None"]


# --- killed and started again -----------------------------------------------------------------------------------------


def test_a_killed_process_ends_all_with_its_signal(start: Start) -> None:
    code, lines = finish(launched(start, "kill"))
    assert code == 128 + signal.SIGKILL
    assert lines[-1] == "rank 1 was killed by SIGKILL, which is what happens when memory runs out"
    assert not any("Traceback" in line for line in lines)


def test_a_killed_process_is_started_again_with_all_others_under_the_same_name(start: Start) -> None:
    process = launched(start, "kill", "--max-restarts=1")
    code, lines = finish(process)
    assert code == 0, lines
    names = [line.partition(" is done, ")[2] for line in lines[-2:]]
    assert names[0] == names[1]
    assert re.fullmatch(rf"\d{{8}}-\d{{6}}-{process.pid}", names[0])


def test_a_run_under_torchrun_is_named_after_it(start: Start) -> None:
    process = start("-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "antmmf", "probe", "fine")
    code, lines = finish(process)
    assert code == 0, lines
    names = {line.partition(" is done, ")[2] for line in lines if " is done, " in line}
    assert len(names) == 1
    assert re.fullmatch(rf"\d{{8}}-\d{{6}}-{process.pid}", names.pop())


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_the_launcher_lets_all_processes_finish_the_step(start: Start, number: signal.Signals) -> None:
    process = launched(start, "listen")
    assert process.stdout is not None
    listening = 0
    while listening < 2:
        listening += "listens" in process.stdout.readline()
    process.send_signal(number)
    code, lines = finish(process)
    assert code == 128 + number
    assert {f"rank {rank} saves after signal {int(number)}" for rank in range(2)} <= set(lines)
    assert (f"stopped by {number.name}" in lines) == (number != signal.SIGINT)  # the command line says: interrupted


def test_a_further_signal_can_be_listened_to() -> None:
    with StopSignals([signal.SIGUSR2]) as signals:
        signal.raise_signal(signal.SIGUSR2)
        assert signals.caught == signal.SIGUSR2
        with pytest.raises(SystemExit) as ended:
            signals.end()
    assert ended.value.code == 128 + signal.SIGUSR2
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL


def test_an_echo_of_a_signal_is_ignored_and_a_later_one_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    acted: list[int] = []
    now = iter([0.0, 1.0, 10.0])
    monkeypatch.setattr("antmmf.stopping.time.monotonic", lambda: next(now))
    before = signal.signal(signal.SIGTERM, lambda number, _: acted.append(number))
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            assert (signals.caught, acted) == (signal.SIGTERM, [])
            signal.raise_signal(signal.SIGTERM)
            assert acted == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("quiet", [False, True])
def test_ctrl_c_pressed_twice_acts_at_once_as_the_first_is_told(quiet: bool, capfd: pytest.CaptureFixture[str]) -> None:
    with StopSignals(quiet=quiet) as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.caught == signal.SIGINT
        assert ("Ctrl-C again ends at once" in capfd.readouterr().err) is not quiet
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_signal_of_another_process_counts_as_caught_and_ones_own_echo_of_it_does_nothing() -> None:
    with StopSignals() as signals:
        signals.caught = signal.SIGTERM
        signal.raise_signal(signal.SIGTERM)
        assert signals.caught == signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_helper_process_does_not_hear_a_signal_that_is_sent_to_all(number: signal.Signals) -> None:
    with helpers_deaf():
        helper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    helper.send_signal(number)
    helper.communicate(b"\n", timeout=100)
    assert helper.returncode == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
