"""A reader in a process of its own: what a file does to it hurts nobody else."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from antmmf.contracts import Clip, Source
from antmmf.data import reader_process
from antmmf.data.reader_process import ReaderProcess, protected
from antmmf.errors import DataError, PluginError
from hostile_readers import HostileReader, SpyReader, fail_to_set_up


@pytest.fixture
def reader() -> Iterator[ReaderProcess]:
    made = ReaderProcess(HostileReader(), timeout=20)
    yield made
    made.close()


def every_third(times: np.ndarray) -> np.ndarray:
    return np.arange(0, len(times), 3)


def read(reader: ReaderProcess, name: str) -> Clip:
    return reader.read(Source(Path(name)), every_third)


def test_frames_and_errors_are_those_of_the_reader(reader: ReaderProcess) -> None:
    here = HostileReader().read(Source(Path("good")), every_third)
    there = read(reader, "good")
    np.testing.assert_array_equal(there.frames, here.frames)
    assert there.frames[:, 0, 0, 0].tolist() == [0, 3, 6, 9]
    assert there.num_total == 10
    with pytest.raises(DataError, match=r"^bad: no frame$") as caught:
        read(reader, "bad")
    assert caught.value.reason == "no_frames"
    assert reader.facts(Source(Path("a.mp4"))) == {"codec": "toy", "name": "a.mp4"}


def test_facts_that_kill_the_process_are_asked_for_once(reader: ReaderProcess, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        reader.facts(Source(tmp_path / "counted"))
    assert caught.value.reason == "crashed"
    assert (tmp_path / "counted").read_text() == "asked "
    assert read(reader, "good").num_total == 10


def test_an_error_that_cannot_be_pickled_still_says_what_it_was(reader: ReaderProcess) -> None:
    with pytest.raises(RuntimeError, match="OddError: 1 and 2"):
        read(reader, "odd")


def test_what_the_network_does_keeps_its_kind(reader: ReaderProcess) -> None:
    with pytest.raises(TimeoutError):
        read(reader, "slow network")


@pytest.mark.parametrize("kind", ["hang", "spin"])
def test_a_file_that_hangs_is_given_up_and_the_next_one_is_read(kind: str) -> None:
    reader = ReaderProcess(HostileReader(), timeout=0.4)
    with pytest.raises(DataError, match=r"did not finish in time \(input_attributes.read_timeout\)") as caught:
        read(reader, kind)
    assert caught.value.reason == "hung"
    reader._timeout = 20
    assert len(read(reader, "good").frames) == 4
    reader.close()


@pytest.mark.parametrize(("kind", "how"), [("segfault", "SIGSEGV"), ("exit", "exit code 3")])
def test_a_file_that_kills_its_decoder_is_an_error_and_the_next_one_is_read(
    reader: ReaderProcess, kind: str, how: str
) -> None:
    with pytest.raises(DataError, match=how) as caught:
        read(reader, kind)
    assert caught.value.reason == "crashed"
    assert len(read(reader, "good").frames) == 4


def test_what_kills_a_decoder_once_may_pass(reader: ReaderProcess, tmp_path: Path) -> None:
    assert len(read(reader, str(tmp_path / "once")).frames) == 4


def test_an_error_of_the_sampler_comes_through_and_leaves_no_wreck(reader: ReaderProcess) -> None:
    def fail(times: np.ndarray) -> np.ndarray:  # noqa: ARG001
        raise DataError("nothing between 3 and 4 s", reason="outside")

    with pytest.raises(DataError, match="between 3 and 4 s"):
        reader.read(Source(Path("good")), fail)
    assert len(read(reader, "good").frames) == 4


def test_a_reader_that_leaks_is_replaced_before_it_has_grown_far() -> None:
    reader = ReaderProcess(SpyReader(), timeout=20, max_growth=32 << 20)
    pids = []
    for _ in range(60):
        read(reader, "leak")  # 4 MB each
        pids.append(reader.facts(Source(Path("a")))["pid"])
    assert 3 <= len(set(pids)) <= 7  # at most every 20 answers, two of which are given per round
    reader.close()


def test_its_process_loads_no_torch_and_hears_no_signal_to_stop() -> None:
    reader = ReaderProcess(SpyReader(), timeout=20)
    facts = reader.facts(Source(Path("a")))
    assert facts["pid"] != os.getpid()
    assert facts["torch"] is False
    assert {signal.SIGINT, signal.SIGTERM} <= set(facts["blocked"])
    reader.close()
    with pytest.raises(ProcessLookupError):
        os.kill(facts["pid"], 0)


def test_one_that_outlives_its_module_ends_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    left = ReaderProcess(HostileReader(), timeout=1.0)
    for name in [name for name in vars(reader_process) if not name.startswith("__")]:
        monkeypatch.setattr(reader_process, name, None)  # as the interpreter does when it ends
    left.__del__()


def test_it_can_be_pickled_while_its_process_runs(reader: ReaderProcess) -> None:
    read(reader, "good")
    again = pickle.loads(pickle.dumps(reader))
    assert len(read(again, "good").frames) == 4
    again.close()


def test_a_reader_that_cannot_be_imported_there_is_an_error_that_says_so() -> None:
    code = """
from pathlib import Path
from antmmf.contracts import Source
from antmmf.data.reader_process import ReaderProcess
class Mine: pass
ReaderProcess(Mine(), timeout=9).facts(Source(Path("a")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "PluginError: reader Mine cannot be used in a process of its own" in done.stderr
    assert "not stand in __main__" in done.stderr
    with pytest.raises(PluginError, match="no such plugin"):
        ReaderProcess(HostileReader(), timeout=9, setup=fail_to_set_up).facts(Source(Path("a")))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a hanging child with its parent")
def test_it_ends_with_a_parent_that_is_killed_even_when_it_hangs() -> None:
    code = """
from pathlib import Path
from antmmf.contracts import Source
from antmmf.data.reader_process import ReaderProcess
from hostile_readers import SpyReader
reader = ReaderProcess(SpyReader(), timeout=99)
print(reader.facts(Source(Path("a")))["pid"], flush=True)
reader.read(Source(Path("spin")), None)
"""
    folder = str(Path(__file__).parent)
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": folder}
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.3)  # it spins
    parent.kill()
    parent.wait()
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("the reader's process is still there")


def test_a_reader_with_another_one_inside_is_protected_where_it_asks_for_it() -> None:
    class Outer:
        def around(self, wrap):  # type: ignore[no-untyped-def]
            return ("outer", wrap(HostileReader()))

    outer, inner = protected(Outer(), timeout=5)  # type: ignore[arg-type, misc]
    assert outer == "outer"
    assert isinstance(inner, ReaderProcess)
    assert isinstance(protected(HostileReader(), timeout=None), HostileReader)
