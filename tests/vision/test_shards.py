"""Packed shards: the same samples as from the files, from a disk and from a server that fails now and then."""

from __future__ import annotations

import http.server
import json
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from antmmf.cli.main import cli
from antmmf.contracts import Source
from antmmf.data.fetch import read_sample
from antmmf.data.index import open_index
from antmmf.data.media import SampleReader
from antmmf.data.reader_process import ReaderProcess
from antmmf.data.sources import Sources, _explained, _system, file_of, is_remote, member, source_of
from antmmf.errors import DataError, PluginError, is_transient
from antmmf_vision.readers.pyav import PyAVReader
from antmmf_vision.samplers import Segments
from click.testing import CliRunner

WriteClip = Callable[..., Path]
fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")


@pytest.fixture
def folder(write_clip: WriteClip, tmp_path: Path) -> Path:
    """Twelve videos with captions; one of them has two records."""
    (tmp_path / "videos").mkdir()
    for k in range(12):
        write_clip(f"videos/{k}.mp4", count=8 + k, fps=8)
    rows = [{"video": f"{k}.mp4", "caption": f"clip {k} 视频", "split": "train"} for k in range(12)]
    (tmp_path / "videos/captions.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return tmp_path / "videos"


def packed(folder: Path, out: Path, *more: str) -> Path:
    given = ("captions", f"data_root_dir={folder}", "split=train", "--out", str(out), "--shard-mb", "0.01", *more)
    done = CliRunner().invoke(cli, ["data", "pack", *given])
    assert done.exit_code == 0, done.output
    return out


def reader_of(dataset: Any, name: str, tmp_path: Path, sources: Any = source_of) -> SampleReader:
    index = open_index(dataset, name=name, version="1", parameters={"at": str(tmp_path)}, folder=tmp_path / "index")
    return SampleReader(
        index,
        dataset=dataset,
        reader=ReaderProcess(PyAVReader(), timeout=60),
        reader_name="pyav",
        sampler=Segments(n_clips=4),
        transform=None,
        seed=1,
        train=False,
        sources=sources,
    )


def frames(reader: SampleReader) -> list[torch.Tensor]:
    return [reader.read(row, epoch=0).frames for row in range(len(reader))]


def from_files(folder: Path, tmp_path: Path) -> list[torch.Tensor]:
    from antmmf_tasks.datasets.captions import Captions

    return frames(reader_of(Captions(data_root_dir=folder, split="train"), "files", tmp_path))


def shards(root: str | Path, split: str = "train") -> Any:
    from antmmf_tasks.datasets.shards import Shards

    return Shards(data_root_dir=str(root), split=split)


def test_shards_give_the_same_samples_as_the_files(folder: Path, tmp_path: Path) -> None:
    dataset = shards(packed(folder, tmp_path / "out"))
    reader = reader_of(dataset, "shards", tmp_path)
    assert [reader.index.record(row).texts for row in range(12)] == [(f"clip {k} 视频",) for k in range(12)]
    for one, two in zip(frames(reader), from_files(folder, tmp_path), strict=True):
        assert torch.equal(one, two)
    assert len(reader.index.blocks) > 2
    assert reader.index.blocks.sum() == 12


def test_the_tars_are_laid_out_as_webdataset_wants_them(folder: Path, tmp_path: Path) -> None:
    out = packed(folder, tmp_path / "out")
    names = []
    for tar in sorted(out.glob("*.tar")):
        with tarfile.open(tar) as shard:
            names += shard.getnames()
            first = next(name for name in shard.getnames() if name.endswith(".mp4"))
            place = json.loads((tar.with_suffix(".jsonl")).read_text().splitlines()[0])["member"]
            content = shard.extractfile(first)
            assert content is not None
            with tar.open("rb") as file:
                file.seek(place[1])
                assert file.read(place[2]) == content.read()
    assert [name.partition(".")[2] for name in names[:3]] == ["mp4", "txt", "json"]
    assert len({name.partition(".")[0] for name in names}) == 12


def test_packing_goes_on_where_it_was_killed(folder: Path, tmp_path: Path) -> None:
    whole = packed(folder, tmp_path / "whole")
    half = packed(folder, tmp_path / "half")
    kept = sorted(half.glob("*.tar"))[:2]
    for path in sorted(half.iterdir()):
        if path.suffix == ".json" or path.with_suffix(".tar") not in kept:
            path.unlink()
    (half / "train-000002.tar.part").write_bytes(b"half of one")
    before = {path: path.stat().st_mtime_ns for path in kept}
    packed(folder, half)
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert sorted(path.name for path in half.iterdir()) == sorted(path.name for path in whole.iterdir())
    for path in whole.iterdir():
        assert (half / path.name).read_bytes() == path.read_bytes()


def test_a_split_that_is_not_there_and_a_cut_shard_are_one_clear_line(folder: Path, tmp_path: Path) -> None:
    out = packed(folder, tmp_path / "out")
    with pytest.raises(DataError, match=r"there is no val\.json; the splits there are train"):
        list(shards(out, "val").records())
    reader = reader_of(shards(out), "cut", tmp_path)
    tar = sorted(out.glob("*.tar"))[-1]
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(DataError, match=r"only \d+ of its \d+ bytes are there") as caught:
        reader.read(11, epoch=0)
    assert caught.value.reason == "truncated"


# --- from a server ----------------------------------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder; every ``nth`` request fails, in turn with 503, with half of the bytes, with no answer. While it
    is ``silent`` it lets everybody wait for five seconds."""

    nth = 0
    silent: threading.Event | None = None
    root = Path()
    requests: list[str]


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Server

    def translate_path(self, path: str) -> str:
        return str(self.server.root / path.lstrip("/"))

    def do_GET(self) -> None:
        if self.server.silent is not None:
            self.server.silent.wait(5)
        self.server.requests.append(self.path)
        count, nth = len(self.server.requests), self.server.nth
        if nth and count % nth == 0:
            kind = (count // nth) % 3
            if kind == 0:
                self.send_error(503)
                return
            if kind == 1:
                self.send_response(200)
                self.send_header("Content-Length", "5000000")
                self.end_headers()
                self.wfile.write(b"half")
            self.close_connection = True
            return
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.root, made.requests = tmp_path, []
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()


def url(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{path}"


def test_shards_behind_a_url_give_the_same_bits_and_each_comes_once(
    folder: Path, tmp_path: Path, server: Server
) -> None:
    packed(folder, tmp_path / "out")
    sources = Sources(tmp_path / "copies")
    reader = reader_of(shards(url(server, "out")), "remote", tmp_path, sources)
    for one, two in zip(frames(reader), from_files(folder, tmp_path), strict=True):
        assert torch.equal(one, two)
    tars = [path for path in server.requests if path.endswith(".tar")]
    assert sorted(tars) == sorted(set(tars))
    again = reader_of(shards(url(server, "out")), "remote", tmp_path, Sources(tmp_path / "copies"))
    frames(again)
    assert [path for path in server.requests if path.endswith(".tar")] == tars


@pytest.mark.parametrize("whole", [True, False])
def test_a_server_that_fails_now_and_then_costs_no_sample(
    folder: Path, tmp_path: Path, server: Server, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(folder, tmp_path / "out")
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    server.nth = 3
    monkeypatch.setenv("ANTMMF_CACHE", str(tmp_path / "cache"))
    reader = reader_of(shards(url(server, "out")), "faulty", tmp_path, Sources(tmp_path / "copies", whole=whole))
    assert waits  # the lists of records failed too
    waits.clear()
    wanted = from_files(folder, tmp_path)
    for row in range(12):
        found = read_sample(reader, row, epoch=0)
        assert torch.equal(found.frames, wanted[row])  # type: ignore[union-attr]
    assert waits  # it did fail


def test_a_server_that_falls_silent_is_given_up_and_may_be_asked_again(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.bin").write_bytes(b"12345678")
    monkeypatch.setattr("antmmf.data.sources._SILENCE", 0.2)
    server.silent = threading.Event()
    try:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            Sources(tmp_path / "copies").local(url(server, "a.bin"))
    finally:
        server.silent.set()
    assert is_transient(caught.value)


def test_a_large_file_may_take_as_long_as_it_comes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _system(url(server, "a.bin"))[0].client_kwargs["timeout"].total is None
    monkeypatch.setitem(fsspec.config.conf, "http", {"client_kwargs": {"auth": None}})  # the user knows better
    assert _system(url(server, "a.bin"))[0].client_kwargs == {"auth": None}


def test_the_time_out_of_old_pythons_is_a_time_out() -> None:
    assert is_transient(
        _explained("http://h/a", type("FSTimeoutError", (type("TimeoutError", (Exception,), {}),), {})())
    )


def test_what_the_server_does_not_have_is_missing_and_not_tried_again(tmp_path: Path, server: Server) -> None:
    for whole in (True, False):
        sources = Sources(tmp_path / "copies", whole=whole)
        with pytest.raises(DataError) as caught:
            sources(member(url(server, "none.tar"), name="a.mp4", offset=512, size=9))
        assert caught.value.reason == "missing"


def test_copies_keep_to_their_room_and_the_last_ones_stay(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antmmf.data.sources._IN_USE", 0.0)
    for k in range(6):
        (tmp_path / f"{k}.bin").write_bytes(bytes(1000))
    sources = Sources(tmp_path / "copies", max_gb=3e-6)
    for k in (0, 1, 2, 0, 3, 4):
        sources.local(url(server, f"{k}.bin"))
        time.sleep(0.01)
    assert _names(tmp_path / "copies") == ["0.bin", "3.bin", "4.bin"]


def test_what_a_killed_download_left_counts_as_a_copy(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antmmf.data.sources._IN_USE", 0.0)
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies/.half.bin.part").write_bytes(bytes(2500))
    (tmp_path / "0.bin").write_bytes(bytes(1000))
    Sources(tmp_path / "copies", max_gb=3e-6).local(url(server, "0.bin"))
    assert _names(tmp_path / "copies") == ["0.bin"]


def _names(folder: Path) -> list[str]:
    return sorted(path.name[-5:] for path in folder.iterdir() if path.suffix != ".lock")


def test_files_are_fetched_ahead_in_the_background(tmp_path: Path, server: Server) -> None:
    (tmp_path / "a.bin").write_bytes(b"12345678")
    sources = Sources(tmp_path / "copies")
    sources.prefetch([url(server, "a.bin"), "/a/local/file"])
    sources._coming[url(server, "a.bin")].result(timeout=20)
    assert list(sources._coming) == [url(server, "a.bin")]
    server.root = tmp_path / "nowhere"
    media = member(url(server, "a.bin"), name="x", offset=2, size=3)
    assert sources(media).open().read() == b"345"
    sources.close()


def test_media_are_taken_apart_as_they_were_put_together() -> None:
    media = member("https://host/a b#c.tar", name="视频 1&2.mp4", offset=512, size=7)
    assert file_of(media) == "https://host/a b#c.tar"
    source = source_of(media, Path("/copy"))
    assert (source.path, source.offset, source.size) == (Path("/copy"), 512, 7)
    assert str(source) == "https://host/a b#c.tar:视频 1&2.mp4"
    assert source.suffix == ".mp4"
    assert source_of("/a/b#1.mp4") == Source(Path("/a/b#1.mp4"))
    assert [is_remote(text) for text in ("s3://b/k", "/a/b", "C:/a", "http://h/x")] == [True, False, False, True]


def test_without_fsspec_a_url_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(PluginError, match=r"pip install 'antmmf-core\[fsspec\]'"):
        Sources(tmp_path).local("https://host/a.tar")


def test_a_full_order_reads_only_the_wanted_part(folder: Path, tmp_path: Path, server: Server) -> None:
    packed(folder, tmp_path / "out")
    reader = reader_of(shards(url(server, "out")), "parts", tmp_path, Sources(tmp_path / "copies", whole=False))
    assert np.array_equal(reader.read(5, epoch=0).frames, from_files(folder, tmp_path)[5])
    assert not list((tmp_path / "copies").glob("*.tar"))
