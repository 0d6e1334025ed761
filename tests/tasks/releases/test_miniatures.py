"""A miniature of every data set, in the format of its release, is found, counted and decoded like the real one."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import typing
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from antmmf.cli.main import cli
from antmmf.contracts import Source
from antmmf.errors import DataError
from antmmf.registry import Registry
from antmmf_tasks.commands.download import fetch
from antmmf_tasks.datasets.didemo import Didemo
from antmmf_tasks.datasets.release import Release
from antmmf_tasks.miniatures import HELD_OUT, MINIATURES, write_miniature
from antmmf_vision.readers.auto import AutoReader
from click.testing import CliRunner, Result

EXPECTED = {  # records of each split of 24: 16, 4 and 4
    "cc3m": {"train": 16, "val": 8},
    "coco": {"train": 16, "val": 4, "test": 4},
    "didemo": {"train": 16, "val": 4, "test": 4},
    "msrvtt": {"train": 16, "val": 4, "test": 4},
    "msrvtt_mc": {"test": 24},
    "msvd": {"train": 16, "val": 4, "test": 4},
    "vatex": {"train": 16, "val": 4, "test": 4},
    "webvid": {"train": 16, "val": 8},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("miniatures")


def opened(name: str, root: Path, split: str) -> Release:
    component = Registry().find("datasets", name)
    assert component is not None
    held_out = {"val_share": 0.2} if name in HELD_OUT else {}
    dataset: Release = component.load()(data_root_dir=root, split=split, **held_out)
    return dataset


def splits(name: str) -> tuple[str, ...]:
    component = Registry().find("datasets", name)
    assert component is not None
    return typing.get_args(typing.get_type_hints(component.load().__init__)["split"])


@pytest.mark.parametrize("name", MINIATURES)
def test_every_split_of_a_miniature_is_read_and_its_media_decode(name: str, folder: Path) -> None:
    root = folder / name
    write_miniature(name, root)
    found = {}
    for split in splits(name):
        dataset = opened(name, root, split)
        records = list(dataset.records())
        found[split] = len(records)
        published = dataset.sizes.get(dataset.part)
        assert published is None or (published[1] > 0) == any(record.texts for record in records)
        assert len({record.key for record in records}) == len(records)
        assert all(r.texts or r.transcript or r.question or r.options for r in records)
        clip = AutoReader().read(Source(Path(records[-1].media)), lambda times: np.array([0, len(times) - 1]))
        assert clip.frames.shape == (2, 64, 64, 3)
    if name in EXPECTED:
        assert found == EXPECTED[name]
    elif name in HELD_OUT:
        assert sum(found.values()) == 24


def test_one_root_serves_data_sets_in_folders_of_their_names(tmp_path: Path) -> None:
    for name in ("visual_genome", "msrvtt_qa", "cc3m"):
        write_miniature(name, tmp_path / name, num=6)
        records = list(opened(name, tmp_path, "train").records())
        assert records == list(opened(name, tmp_path / name, "train").records())
        assert all(record.media.startswith(f"{tmp_path / name}/") for record in records)


def test_media_are_the_scene_that_the_text_tells(folder: Path) -> None:
    """Two copies of one scene, as a video and as a picture, have one caption."""
    for name in ("msrvtt", "cc3m"):
        write_miniature(name, folder / f"{name}_2", num=6)
    (video, *_), (picture, *_) = (
        list(opened(name, folder / f"{name}_2", "train").records()) for name in ("msrvtt", "cc3m")
    )
    assert picture.texts[0] == video.texts[0]


def test_every_data_set_of_the_thirteen_says_where_it_is_from_and_under_which_terms() -> None:
    assert len(MINIATURES) == 13
    for name in MINIATURES:
        component = Registry().find("datasets", name)
        assert component is not None
        kind = component.load()
        assert kind.home.startswith("https://")
        assert kind.terms
        assert "Terms:" in (kind.__doc__ or "")
        assert "Expects" in (kind.__doc__ or "") or "expects" in (kind.__doc__ or "")


# --- the commands -----------------------------------------------------------------------------------------------------


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["data", *arguments])


def test_prepare_counts_compares_and_indexes(tmp_path: Path) -> None:
    made = typed("miniature", "msvd", "--out", str(tmp_path / "msvd"), "--num", "12")
    assert made.exit_code == 0, made.output
    result = typed("prepare", "msvd", "--root", str(tmp_path / "msvd"), "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert [part["records"] for part in report["splits"]] == [8, 2, 2]
    assert report["splits"][0]["problems"][0] == "8 records, a complete copy has 1,200"
    assert {Path(file["file"]).name: file["same"] for file in report["files"]}["train_list.txt"] is False
    assert all(Path(part["index"]).is_dir() for part in report["splits"])
    shown = typed("prepare", "msvd", "--root", str(tmp_path / "msvd"), "language=zh")
    assert "msvd_cn_captions_release_utf8.csv" in shown.output
    assert "DIFFERS from what was published" in shown.output


def test_prepare_shows_a_bar_on_a_terminal(tmp_path: Path) -> None:
    typed("miniature", "msvd", "--out", str(tmp_path / "msvd"), "--num", "12")
    words = [sys.executable, "-m", "antmmf", "data", "prepare", "msvd", "--root", str(tmp_path / "msvd"), "split=train"]
    screen, far_end = os.openpty()
    environment = {**os.environ, "ANTMMF_CACHE": str(tmp_path / "cache"), "TERM": "xterm"}
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=far_end, env=environment) as process:
        os.close(far_end)
        shown = b""
        try:
            while part := os.read(screen, 4096):
                shown += part
        except OSError:  # Linux: the other end is closed
            pass
    os.close(screen)
    assert process.returncode in (0, 1)
    assert re.search(rb"indexing train .* (\x1b\[\d+m)?8/1200", shown), shown


def test_prepare_names_what_is_missing_in_each_split(tmp_path: Path) -> None:
    write_miniature("didemo", tmp_path, num=6)
    (tmp_path / "val_data.json").unlink()
    next((tmp_path / "videos").iterdir()).unlink()
    result = typed("prepare", "didemo", "--root", str(tmp_path))
    assert result.exit_code == 1
    assert "must hold val_data.json or DiDeMo_val.tsv" in result.output
    assert "1 of 4 media do not exist" in result.output
    assert "dataset_attributes" not in result.output


def test_a_data_set_named_without_a_split_is_checked_in_all_of_them(tmp_path: Path) -> None:
    write_miniature("msvd", tmp_path, num=12)
    result = typed("check", "msvd", f"data_root_dir={tmp_path}", "--json")
    assert result.exit_code == 0, result.output
    assert {name: part["outcomes"] for name, part in json.loads(result.stdout).items()} == {
        "train": {"read": 8},
        "val": {"read": 2},
        "test": {"read": 2},
    }
    (only,) = json.loads(typed("check", "msvd", f"data_root_dir={tmp_path}", "split=val", "--json").stdout)
    assert only == "val"
    wrong = typed("check", "msvd", f"data_root_dir={tmp_path}", "langage=zh")
    assert str(wrong.exception).count("did you mean 'language'") == 1


def test_prepare_of_an_unknown_data_set_names_the_nearest() -> None:
    result = typed("prepare", "msrvt")
    assert result.exit_code != 0
    assert "did you mean 'msrvtt'" in str(result.exception or result.output)


class Server(SimpleHTTPRequestHandler):
    """Serves a folder, with ranges as publishers' servers do."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        content = (Path(self.directory) / self.path.lstrip("/")).read_bytes()
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        code, part = (206, content[start:]) if 0 < start < len(content) else (416 if start else 200, content)
        self.send_response(code)
        ranges = {206: f"bytes {start}-{len(content) - 1}/{len(content)}", 416: f"bytes */{len(content)}"}
        self.send_header("Content-Range", ranges.get(code, ""))
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(folder)))
    Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_address[1]}", folder
    http.shutdown()
    http.server_close()


def test_a_download_goes_on_where_it_stopped(server: tuple[str, Path], tmp_path: Path) -> None:
    address, served = server
    content = bytes(range(256)) * 10_000
    (served / "a.json").write_bytes(content)
    (tmp_path / "a.json.part").write_bytes(content[:1000])
    fetch(f"{address}/a.json", tmp_path / "a.json")
    assert (tmp_path / "a.json").read_bytes() == content
    assert not (tmp_path / "a.json.part").exists()


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_a_part_that_is_as_long_as_the_file_is_it_and_a_longer_one_is_fetched_anew(
    server: tuple[str, Path], tmp_path: Path, extra: bytes
) -> None:
    address, served = server
    (served / "a.json").write_bytes(b"content")
    (tmp_path / "a.json.part").write_bytes(b"content" + extra)
    fetch(f"{address}/a.json", tmp_path / "a.json")
    assert (tmp_path / "a.json").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"HTTP/1.1 206 x\r\nContent-Range: bytes 9-12/13\r\nContent-Length: 4\r\n\r\nmore", "another part came than"),
        (b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nha", "start again to go on"),
        (b"HTTP/1.1 200 x\r\nContent-Length: many\r\n\r\n", "start again to go on"),
        (b"no HTTP\r\n\r\n", "start again to go on"),
    ],
)
def test_what_a_server_must_not_say_is_an_error(tmp_path: Path, sent: bytes, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with listening.accept()[0] as client:
                client.recv(10_000)
                client.sendall(sent)

        Thread(target=answer, daemon=True).start()
        (tmp_path / "a.json.part").write_bytes(b"x")
        with pytest.raises(DataError, match=message):
            fetch(f"http://127.0.0.1:{listening.getsockname()[1]}/a.json", tmp_path / "a.json")


def test_a_server_that_is_not_there_is_an_error_that_keeps_the_part(tmp_path: Path) -> None:
    (tmp_path / "a.json.part").write_bytes(b"x")
    with pytest.raises(DataError, match="start again to go on"):
        fetch("http://127.0.0.1:9/a.json", tmp_path / "a.json")
    assert (tmp_path / "a.json.part").exists()


def test_a_zip_that_was_unpacked_in_part_is_unpacked_again_and_never_out_of_the_root(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, served = server
    with zipfile.ZipFile(served / "a.zip", "w") as archive:
        for name in ("annotations/one.json", "two.json", "../../three.json"):
            archive.writestr(name, f"content of {name}")
    monkeypatch.setattr(Didemo, "downloads", (f"{address}/a.zip",))
    root = tmp_path / "a" / "root"
    (root / "annotations").mkdir(parents=True)
    (root / "annotations/one.json").write_text("cut")
    assert typed("download", "didemo", "--root", str(root)).exit_code == 0
    files = {str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert files == {f"root/{name}" for name in ("a.zip", "annotations/one.json", "two.json", "three.json")}
    (root / "two.json").write_text("cut")  # as if killed in the middle
    again = typed("download", "didemo", "--root", str(root))
    assert "a.zip: is there" in again.output
    assert (root / "annotations/one.json").read_text() == "content of annotations/one.json"
    assert (root / "two.json").read_text() == "content of two.json"


def test_what_may_not_be_downloaded_is_said_where_to_find(tmp_path: Path) -> None:
    result = typed("download", "howto100m", "--root", str(tmp_path))
    assert result.exit_code != 0
    said = str(result.exception or result.output)
    assert "fetch it from https://www.di.ens.fr/willow/research/howto100m/" in said


def test_any_data_set_becomes_lines_that_captions_and_antmmf_read(tmp_path: Path) -> None:
    write_miniature("msvd", tmp_path / "msvd", num=12)
    out = tmp_path / "lines.jsonl"
    result = typed("convert", "msvd", f"data_root_dir={tmp_path / 'msvd'}", "split=val", "--out", str(out))
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 12  # two clips with six captions each
    assert {line["split"] for line in lines} == {"val"}
    captions, antmmf = Registry().find("datasets", "captions"), Registry().find("datasets", "antmmf_jsonl")
    assert captions is not None
    assert antmmf is not None
    (first, second) = captions.load()(
        data_root_dir=tmp_path, captions=out.name, split="val", media_dir=Path("/")
    ).records()
    assert len(first.texts) == len(second.texts) == 6
    read = list(antmmf.load()(data_root_dir=tmp_path, annotations=out.name, media_dir=Path("/")).records())
    assert [record.texts for record in read] == [first.texts, second.texts]
    assert Path(first.media).is_file()


@pytest.mark.parametrize(("name", "split", "task"), [("msrvtt_mc", "test", "choice"), ("msvd_qa", "val", "qa")])
def test_questions_and_options_become_lines_that_say_how_to_read_them(
    name: str, split: str, task: str, folder: Path, tmp_path: Path
) -> None:
    write_miniature(name, folder / name)
    expected = list(opened(name, folder / name, split).records())
    out = tmp_path / "all lines.jsonl"
    result = typed("convert", name, f"data_root_dir={folder / name}", f"split={split}", "--out", str(out))
    command = shlex.split(result.output.splitlines()[-1].partition("antmmf data ")[2])
    assert command[:4] == ["check", "antmmf_jsonl", "annotations=all lines.jsonl", f"task={task}"]
    assert typed(*command).exit_code == 0
    assert {json.loads(line)["type"] for line in out.read_text(encoding="utf-8").splitlines()} == {"video"}
    component = Registry().find("datasets", "antmmf_jsonl")
    assert component is not None
    read = component.load()(data_root_dir=tmp_path, annotations=out.name, task=task, media_dir=Path("/")).records()
    assert [(r.media, r.question, r.answer, r.options) for r in read] == [
        (r.media, r.question, r.answer, r.options) for r in expected
    ]
