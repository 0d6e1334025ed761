"""The Arrow index: what goes in comes out, when it is rebuilt, what it refuses."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from antmmf.contracts import Record, Segment
from antmmf.data.index import Index, open_index
from antmmf.data.keyed import sample_id
from antmmf.errors import DataError


@dataclass
class Listed:
    """Records from memory; counts how often they were read."""

    folder: Path
    content: Sequence[Record]
    calls: list[str] = field(default_factory=list)

    def prepare(self) -> None:
        self.calls.append("prepare")
        if not (self.folder / "list.txt").exists():
            (self.folder / "list.txt").write_text("x")

    def sources(self) -> Sequence[Path]:
        return [self.folder / "list.txt"]

    def records(self) -> Iterator[Record]:
        self.calls.append("records")
        yield from self.content


def opened(dataset: Listed, *, version: str = "1", **parameters: object) -> Index:
    return open_index(dataset, name="d:set", version=version, parameters=parameters, folder=dataset.folder / "index")


FULL = Record(
    key="k",
    media="a/b.mp4",
    start=1.5,
    end=2.25,
    texts=("one", "two"),
    negatives=("false",),
    transcript=(Segment(0.5, 1.0, "said"),),
    question="what?",
    answer="that",
    options=("this", "that"),
    language="zh",
    extras={"nested": [1, {"a": None}]},
)


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    index = opened(Listed(tmp_path, [Record(key="plain", media="m"), FULL, Record(key="0", media="m", start=0.0)]))
    assert [index.record(row) for row in range(3)] == [
        Record(key="plain", media="m"),
        FULL,
        Record(key="0", media="m", start=0.0),
    ]


def test_records_beyond_one_chunk_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antmmf.data.index._ROWS_A_CHUNK", 4096)
    index = opened(Listed(tmp_path, [Record(key=f"k{i}", media="m") for i in range(5000)]))
    assert len(index) == 5000
    assert [index.record(i).key for i in (0, 4095, 4096, 4999)] == ["k0", "k4095", "k4096", "k4999"]
    assert index.ids[4321] == sample_id("d:set", "k4321")


def test_texts_and_answers_are_listed(tmp_path: Path) -> None:
    index = opened(Listed(tmp_path, [FULL, Record(key="c", media="m", texts=("three",))]))
    assert list(index.texts()) == ["one", "two", "said", "what?", "this", "that", "three"]
    assert list(index.answers()) == ["that"]


def test_an_index_is_pickled_by_its_path(tmp_path: Path) -> None:
    index = opened(Listed(tmp_path, [Record(key=f"k{i}", media="m") for i in range(5000)]))
    assert len(pickle.dumps(index)) < 500
    assert pickle.loads(pickle.dumps(index)).record(4999).key == "k4999"


def test_an_unchanged_index_is_not_built_again(tmp_path: Path) -> None:
    dataset = Listed(tmp_path, [FULL])
    assert opened(dataset).path == opened(dataset).path
    assert dataset.calls == ["prepare", "records", "prepare"]


def test_a_changed_source_version_or_parameter_builds_a_new_one(tmp_path: Path) -> None:
    dataset = Listed(tmp_path, [FULL])
    paths = [opened(dataset).path, opened(dataset, version="2").path, opened(dataset, split="val").path]
    (tmp_path / "list.txt").write_text("y")  # as long as before
    os.utime(tmp_path / "list.txt", ns=(0, 0))
    assert len({*paths, opened(dataset).path}) == 4


def test_a_source_that_is_only_newer_builds_nothing(tmp_path: Path) -> None:
    dataset = Listed(tmp_path, [FULL])
    first = opened(dataset).path
    os.utime(tmp_path / "list.txt", ns=(0, 0))
    assert opened(dataset).path == first
    assert dataset.calls.count("records") == 1


def test_a_lost_table_of_contents_builds_nothing(tmp_path: Path) -> None:
    dataset = Listed(tmp_path, [FULL])
    first = opened(dataset).path
    for table in (tmp_path / "index").glob(".*.json"):
        table.write_text("{broken")
    assert opened(dataset).path == first
    assert dataset.calls.count("records") == 1


def test_an_index_without_a_column_has_nothing_in_it(tmp_path: Path) -> None:
    """As one that was built before the column was thought of."""
    path = opened(Listed(tmp_path, [FULL])).path
    file = path / "records.arrow"
    table = pa.ipc.open_file(str(file)).read_all().drop_columns(["negatives", "answer", "transcript"])
    with pa.ipc.new_file(str(tmp_path / "older"), table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "older").replace(file)
    index = Index(path)
    assert index.record(0) == replace(FULL, negatives=(), answer=None, transcript=())
    assert list(index.texts()) == ["one", "two", "what?", "this", "that"]
    assert list(index.answers()) == []


def test_a_key_that_occurs_twice_is_named(tmp_path: Path) -> None:
    dataset = Listed(tmp_path, [Record(key=key, media="m") for key in ("a", "b", "c", "b")])
    with pytest.raises(DataError, match="'b' is record 2 and record 4"):
        opened(dataset)
    assert not [path for path in (tmp_path / "index").iterdir() if path.is_dir()]


def test_what_a_killed_one_left_is_removed_by_the_next(tmp_path: Path) -> None:
    killed = """
import os, sys
from test_index import FULL, Listed, opened
class Killed(Listed):
    def records(self):
        yield FULL
        os.kill(os.getpid(), 9)
from pathlib import Path
opened(Killed(Path(sys.argv[1]), [FULL]))
"""
    command = [sys.executable, "-c", killed, str(tmp_path)]
    died = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)}, check=False)
    assert died.returncode == -9
    assert [path for path in (tmp_path / "index").iterdir() if path.name.startswith(".building")]
    index = opened(Listed(tmp_path, [FULL]))
    assert index.record(0) == FULL
    assert not [path for path in (tmp_path / "index").iterdir() if path.name.startswith(".building")]


def test_a_damaged_index_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = opened(Listed(tmp_path, [FULL])).path
    whole = (path / "records.arrow").read_bytes()
    (path / "records.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"is no whole index .*; remove it, and it is built again"):
        opened(Listed(tmp_path, [FULL]))


def test_no_records_are_an_error_that_names_the_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"d:set: no records in .*list\.txt"):
        opened(Listed(tmp_path, []))


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    dataset = Listed(tmp_path, [FULL])
    dataset.sources = lambda: [tmp_path / "nowhere.json"]  # type: ignore[method-assign]
    with pytest.raises(DataError, match=r"nowhere\.json: No such file"):
        opened(dataset)


def test_of_several_only_one_builds(tmp_path: Path) -> None:
    dataset = Listed(tmp_path, [Record(key=f"k{i}", media="m") for i in range(2000)])
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: opened(dataset).path, range(4)))
    assert len(set(paths)) == 1
    assert dataset.calls.count("records") == 1
