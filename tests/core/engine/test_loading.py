"""The loader and the quarantine: order, workers, bad samples."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from antmmf.data.index import Index
from antmmf.data.keyed import sample_id
from antmmf.data.loader import LoadedStep, Loader
from antmmf.data.quarantine import Quarantine, read_quarantine
from antmmf.data.reader_process import ReaderProcess
from antmmf.errors import DataError
from engine_toys import DeadlyReader, ToyCollator, ToyReader, load_file, toy_loader, toy_reader
from hostile_readers import HostileReader


def ids(steps: Iterator[LoadedStep]) -> list[list[int]]:
    return [[int(id) for batch in step.batches for id in batch.ids] for step in steps]


def flat(steps: Iterator[LoadedStep]) -> list[int]:
    return [id for step in ids(steps) for id in step]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_number_of_workers_does_not_change_a_bit(tmp_path: Path, num_workers: int) -> None:
    keys = [f"clip{i}" for i in range(11)] + ["bad"]
    alone = toy_loader(tmp_path, keys=keys, quarantine=Quarantine(policy="substitute"))
    helped = toy_loader(
        tmp_path, keys=keys, quarantine=Quarantine(policy="substitute"), num_workers=num_workers, micro_batches=2
    )
    for epoch in (1, 2):
        for one, two in zip(alone.epoch(epoch), helped.epoch(epoch), strict=True):
            assert one.samples == two.samples
            assert len(two.batches) == 2
            assert torch.equal(one.batches[0].frames, torch.cat([batch.frames for batch in two.batches]))
            assert torch.equal(one.batches[0].tokens, torch.cat([batch.tokens for batch in two.batches]))
    helped.close()


def test_workers_survive_an_epoch_that_is_left_early(tmp_path: Path) -> None:
    loader = toy_loader(tmp_path, num_workers=1)
    next(loader.epoch(1))
    assert ids(loader.epoch(2)) == ids(toy_loader(tmp_path).epoch(2))
    loader.close()


def test_a_killed_worker_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    reader = toy_reader(tmp_path, keys=["a"], train=False)
    reader.reader = DeadlyReader()
    loader = Loader(reader, ToyCollator(), batch_size=1, train=False, seed=7, num_workers=1)
    with pytest.raises(DataError, match=r"DataLoader worker .* lower num_workers"):
        list(loader.epoch(0))


def test_a_worker_imports_plugin_files_before_it_unpickles(tmp_path: Path) -> None:
    plugin = tmp_path / "my_reader.py"
    plugin.write_text("from engine_toys import ToyReader\nclass Mine(ToyReader):\n    pass\n")
    load_file(plugin)
    reader = toy_reader(tmp_path, keys=["a", "b"], train=True)
    reader.reader = sys.modules["file_plugin"].Mine()
    loader = Loader(
        reader, ToyCollator(), batch_size=2, train=True, seed=7, num_workers=1, worker_setup=partial(load_file, plugin)
    )
    assert len(flat(loader.epoch(1))) == 2
    loader.close()


def test_starting_in_the_middle_gives_the_rest_of_the_epoch(tmp_path: Path) -> None:
    loader = toy_loader(tmp_path, num=22)
    assert ids(loader.epoch(3, start=8)) == ids(loader.epoch(3))[2:]


def test_skipping_reads_nothing(tmp_path: Path) -> None:
    loader = toy_loader(tmp_path, num=8)
    read = []
    record = Index.record
    loader.parts[0].index.record = lambda row: read.append(row) or record(loader.parts[0].index, row)  # type: ignore[method-assign, func-returns-value]
    next(loader.epoch(1, start=4))
    assert len(read) == 4


def test_a_training_epoch_has_only_full_steps(tmp_path: Path) -> None:
    loader = toy_loader(tmp_path, num=22, batch_size=4)
    steps = ids(loader.epoch(1))
    assert [len(step) for step in steps] == [4] * 5
    assert loader.steps_per_epoch == 5
    assert len({id for step in steps for id in step}) == 20
    assert list(loader.epoch(1, start=20)) == []


def test_what_one_epoch_leaves_out_comes_in_another(tmp_path: Path) -> None:
    loader = toy_loader(tmp_path, num=5, batch_size=4)
    assert len({id for epoch in range(20) for id in flat(loader.epoch(epoch))}) == 5


def test_fewer_samples_than_a_batch_make_one_short_step(tmp_path: Path) -> None:
    loader = toy_loader(tmp_path, num=3, batch_size=4)
    assert [len(step) for step in ids(loader.epoch(1))] == [3]
    assert loader.steps_per_epoch == 1
    assert list(loader.epoch(1, start=3)) == []


def test_evaluation_reads_every_sample_once_and_in_order(tmp_path: Path) -> None:
    loader = toy_loader(tmp_path, num=10, train=False)
    assert flat(loader.epoch(1)) == [sample_id("toys:toy", f"clip{i}") for i in range(10)]
    assert loader.steps_per_epoch == 3


def test_a_loader_leaves_the_default_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(toy_loader(tmp_path).epoch(1))
    assert torch.equal(before, torch.get_rng_state())


# --- bad samples ------------------------------------------------------------------------------------------------------

MIXED = [f"clip{i}" for i in range(19)] + ["bad"]


def test_fail_names_the_file_and_the_reason(tmp_path: Path) -> None:
    loader = toy_loader(tmp_path, keys=["a", "folder/bad.mp4"], batch_size=2)
    with pytest.raises(DataError, match=r"folder/bad\.mp4: no video stream \(reader toy, key 'folder/bad\.mp4'\)"):
        list(loader.epoch(1))


def test_skip_leaves_a_hole_and_changes_no_order(tmp_path: Path) -> None:
    bad = sample_id("toys:toy", "bad")
    good = toy_loader(tmp_path / "good", keys=[key.replace("bad", "good") for key in MIXED])
    loader = toy_loader(tmp_path / "bad", keys=MIXED, quarantine=Quarantine(policy="skip"))
    other = sample_id("toys:toy", "good")
    for with_hole, whole in zip(loader.epoch(1), good.epoch(1), strict=True):
        assert with_hole.samples == whole.samples == 4
        assert ids(iter([with_hole]))[0] == [id for id in ids(iter([whole]))[0] if id not in (bad, other)]
    assert loader.quarantine.count == 1


def test_a_substitute_is_the_same_in_a_restarted_run(tmp_path: Path) -> None:
    runs = []
    for _ in range(2):
        quarantine = Quarantine(tmp_path, policy="substitute")
        runs.append(ids(toy_loader(tmp_path, keys=MIXED, quarantine=quarantine).epoch(1)))
    assert runs[0] == runs[1]
    assert [len(step) for step in runs[0]] == [4] * 5
    assert sample_id("toys:toy", "bad") not in [id for step in runs[0] for id in step]


def test_evaluation_never_puts_another_sample_in_the_place_of_a_bad_one(tmp_path: Path) -> None:
    loader = toy_loader(tmp_path, keys=MIXED, train=False, quarantine=Quarantine(policy="substitute"))
    assert flat(loader.epoch(1)) == [sample_id("toys:toy", key) for key in MIXED[:-1]]


def test_a_bad_sample_is_written_down_once(tmp_path: Path) -> None:
    for rank in (1, 0):  # the second run continues what the first one began
        loader = toy_loader(tmp_path, keys=MIXED, quarantine=Quarantine(tmp_path, rank=rank, policy="skip"))
        for epoch in range(3):
            list(loader.epoch(epoch))
        assert loader.quarantine.count == 1
        how = f"antmmf data quarantine list {tmp_path}"
        said = f"1 bad sample (1 no_video), left out: bad (no video stream); listed by: {how}"
        assert loader.quarantine.summary() == said
    assert not (tmp_path / "quarantine.rank0.jsonl").exists()
    assert [json.loads(line) for line in (tmp_path / "quarantine.rank1.jsonl").read_text().splitlines()] == [
        {
            "id": sample_id("toys:toy", "bad"),
            "key": "bad",
            "media": "bad",
            "reader": "toy",
            "reason": "no_video",
            "message": "no video stream",
            "facts": {"unreadable": "[Errno 2] No such file or directory: 'bad'"},
        }
    ]


def test_the_end_of_a_run_tells_of_the_bad_samples_of_all_processes(tmp_path: Path) -> None:
    shares = [Quarantine(tmp_path, rank=rank, policy="skip", max_bad_rate=1) for rank in (0, 1)]
    keys = [f"bad{i}" for i in range(4)] + ["a", "b", "c", "d"]
    for rank, quarantine in enumerate(shares):
        loader = toy_loader(tmp_path, keys=keys, batch_size=8, quarantine=quarantine, rank=rank, num_ranks=2)
        list(loader.epoch(1))
    assert sum(quarantine.count for quarantine in shares) == 4
    assert (shares[0].summary() or "").startswith("4 bad samples (4 no_video)")


def test_too_many_bad_samples_end_the_run(tmp_path: Path) -> None:
    keys = [f"bad{i}" for i in range(6)] + [f"clip{i}" for i in range(94)]
    loader = toy_loader(tmp_path, keys=keys, quarantine=Quarantine(policy="skip", max_bad_rate=0.05))
    with pytest.raises(
        DataError, match=r"6 of \d+ samples could not be read, .* 0\.05 of them; the last: bad\d: no video"
    ):
        list(loader.epoch(1))


def test_a_defect_of_a_transform_is_a_reason_too(tmp_path: Path) -> None:
    reader = toy_reader(tmp_path, keys=["a"], train=True)
    reader.transform = lambda frames, _: frames[:, 9]  # type: ignore[assignment]
    loader = Loader(reader, ToyCollator(), batch_size=1, train=True, seed=7)
    with pytest.raises(DataError, match="a: IndexError: index 9 is out of bounds"):
        list(loader.epoch(1))


def test_a_time_out_is_tried_again_and_never_quarantined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    calls = []

    class Flaky(ToyReader):
        def read(self, source, pick):  # type: ignore[no-untyped-def]
            calls.append(source)
            if len(calls) < 3:
                raise TimeoutError
            return super().read(source, pick)

    reader = toy_reader(tmp_path, keys=["a"], train=True)
    reader.reader = Flaky()
    loader = Loader(reader, ToyCollator(), batch_size=1, train=True, seed=7)
    assert len(flat(loader.epoch(1))) == 1
    assert loader.quarantine.count == 0


def test_what_does_not_pass_ends_the_run_and_is_not_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)

    class Unplugged(ToyReader):
        def read(self, source, pick):  # type: ignore[no-untyped-def]  # noqa: ARG002
            raise OSError(errno.EIO, "Input/output error")

    reader = toy_reader(tmp_path, keys=["a"], train=True)
    reader.reader = Unplugged()
    loader = Loader(reader, ToyCollator(), batch_size=1, train=True, seed=7, quarantine=Quarantine(policy="skip"))
    with pytest.raises(DataError, match=r"a: OSError: .*error, 5 times in 17 s: .* not quarantined; .*resume auto"):
        list(loader.epoch(1))
    assert loader.quarantine.count == 0


@pytest.mark.parametrize("num_workers", [0, 1])
def test_files_that_hang_or_kill_their_decoder_are_bad_samples_and_the_epoch_goes_on(
    tmp_path: Path, num_workers: int
) -> None:
    keys = ["a", "hang", "b", "segfault", "c", "spin"]
    reader = toy_reader(tmp_path, keys=keys, train=True)
    reader.reader = ReaderProcess(HostileReader(), timeout=0.5)
    quarantine = Quarantine(tmp_path, policy="skip", max_bad_rate=1)
    loader = Loader(
        reader, ToyCollator(), batch_size=2, train=True, seed=7, quarantine=quarantine, num_workers=num_workers
    )
    assert len(flat(loader.epoch(1))) == 3
    loader.close()
    assert {sample.key: sample.reason for sample in read_quarantine(tmp_path).values()} == {
        "hang": "hung",
        "segfault": "crashed",
        "spin": "hung",
    }


def test_an_error_of_the_collator_reaches_the_user_as_one_line(tmp_path: Path) -> None:
    class Picky(ToyCollator):
        def __call__(self, samples):  # type: ignore[no-untyped-def]  # noqa: ARG002
            raise DataError("no answer")

    loader = Loader(toy_reader(tmp_path, keys=["a"], train=True), Picky(), batch_size=1, train=True, seed=7)
    with pytest.raises(DataError, match=r"^no answer$"):
        list(loader.epoch(1))
