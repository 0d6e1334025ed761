"""``antmmf data check | stats | preview | quarantine`` on a folder of good and bad files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from antmmf.cli.main import cli
from antmmf.contracts import Record
from antmmf.data.keyed import sample_id
from antmmf.data.quarantine import BadSample, read_quarantine, write_quarantine
from antmmf.data.sources import UnreachableError
from antmmf.errors import AntmmfError, ConfigError
from antmmf_vision.commands.survey import survey
from click.testing import CliRunner, Result
from PIL import Image

WriteClip = Callable[..., Path]


def antmmf(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture
def folder(write_clip: WriteClip, tmp_path: Path) -> Path:
    """Three good videos, of which one has two captions, an empty one and one without its end."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for name, count in (("a.mp4", 24), ("b.mp4", 16), ("c.mp4", 8)):
        write_clip(f"videos/{name}", count=count, fps=8)
    (videos / "empty.mp4").touch()
    (videos / "cut.mp4").write_bytes((videos / "a.mp4").read_bytes()[:900])
    captions = [("a", "one"), ("a", "another one"), ("b", "two"), ("c", "three"), ("empty", "x"), ("cut", "y")]
    lines = [json.dumps({"video": f"{name}.mp4", "caption": text, "split": "test"}) for name, text in captions]
    (videos / "captions.jsonl").write_text("\n".join(lines))
    return videos


def source(folder: Path) -> tuple[str, ...]:
    return ("captions", f"data_root_dir={folder}", "split=test")


def test_check_says_what_every_file_gives(folder: Path, tmp_path: Path) -> None:
    done = antmmf("data", "check", *source(folder), "--out", str(tmp_path / "out.jsonl"))
    assert done.exit_code == 1
    assert "test: 5 records, 5 files" in done.output
    assert "1  the file has no bytes" in done.output
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {Path(line["file"]).name: line.get("frames", line.get("reason")) for line in lines} == {
        "a.mp4": 8,
        "b.mp4": 8,
        "c.mp4": 8,
        "empty.mp4": "empty",
        "cut.mp4": "truncated",
    }


def test_check_ends_with_0_when_all_is_well(folder: Path) -> None:
    for name in ("empty.mp4", "cut.mp4"):
        (folder / name).unlink()
    done = antmmf("data", "check", *source(folder), "missing=drop", "--json", "--jobs", "1")
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert report["test"] == {"records": 3, "files": 3, "outcomes": {"read": 3}, "bad": []}


def test_stats_are_of_the_records_and_the_files(folder: Path) -> None:
    done = antmmf("data", "stats", *source(folder), "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["test"]
    assert (found["records"], found["files"], found["unreadable"]) == (5, 5, 2)
    assert found["texts a record"] == {"min": 1, "median": 1, "max": 2, "sum": 6}
    assert found["seconds a file"] == {"min": 1.0, "median": 2.0, "max": 3.0, "sum": 6.0}
    assert found["sizes"] == {"64 x 48": 3}
    assert found["codecs"] == {"h264": 3}


def test_a_wrong_parameter_or_split_is_one_clear_line(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"data_root_di: is not a parameter .*did you mean 'data_root_dir'"):
        antmmf_raises("data", "check", "captions", f"data_root_di={folder}", "split=test")
    with pytest.raises(AntmmfError, match="has no val split; it has: test"):
        antmmf_raises("data", "check", *source(folder), "--split", "val")


def antmmf_raises(*arguments: str) -> None:
    result = antmmf(*arguments)
    assert result.exception is not None
    raise result.exception


def test_preview_draws_every_stage_and_says_what_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet"
    changes = ("input_attributes.train_transform.type=resize_crop", "input_attributes.train_transform.params.size=32")
    done = antmmf("data", "preview", *source(folder), *changes, "--count", "5", "--out", str(out))
    assert done.exit_code == 0, done.output
    with Image.open(out.with_suffix(".png")) as sheet:
        assert sheet.width > 300
        assert sheet.height > 5 * 100
    page = out.with_suffix(".html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert "another one" in page
    assert "http" not in page  # it opens without a network


@pytest.mark.parametrize("passes", [True, False])
def test_stats_look_again_at_what_a_network_keeps_from_them(passes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    looks: list[Record] = []

    class Reader:
        index = SimpleNamespace(record=lambda _: Record(key="a", media="a.mp4"))

        def look(self, record: Record) -> dict[str, int]:
            looks.append(record)
            if passes and len(looks) == 3:
                return {"bytes": 7}
            raise TimeoutError

    found = survey([Reader()], [0], decode=False)  # type: ignore[list-item]
    if passes:
        assert [outcome.facts for outcome in found] == [{"bytes": 7}]
    else:
        with pytest.raises(UnreachableError, match=r"a\.mp4: TimeoutError: , 5 times"):
            list(found)


# --- quarantine -------------------------------------------------------------------------------------------------------


def run_folder(folder: Path, tmp_path: Path, *keys: str) -> Path:
    """A folder as a run leaves it, with some samples in quarantine."""
    run = tmp_path / "run"
    run.mkdir()
    dataset = {"type": "antmmf-tasks:captions", "params": {"data_root_dir": str(folder), "split": "test"}}
    config: dict[str, Any] = {
        "task_attributes": {"type": "antmmf-tasks:retrieval", "params": {}},
        "model_attributes": {"vision_encoder": "small_video", "text_encoder": "small_text"},
        "dataset_attributes": {"train": [dataset], "test": [dataset]},
        "metrics": ["recall"],
        "training_parameters": {"max_iterations": 1},
    }
    (run / "config.yml").write_text(json.dumps(config))
    bad = [
        BadSample(sample_id("antmmf-tasks:captions", key), key, f"{folder}/{key}", "auto", "truncated", "cut short")
        for key in keys
    ]
    write_quarantine(run, bad)
    return run


def test_quarantine_lists_and_exports(folder: Path, tmp_path: Path) -> None:
    run = run_folder(folder, tmp_path, "a.mp4", "cut.mp4")
    listed = antmmf("data", "quarantine", "list", str(run))
    assert "2 bad samples: 2 truncated" in listed.output
    assert antmmf("data", "quarantine", "export", str(run)).output.splitlines() == [
        f"{folder}/a.mp4",
        f"{folder}/cut.mp4",
    ]
    antmmf("data", "quarantine", "export", str(run), "--format", "csv", "--out", str(tmp_path / "bad.csv"))
    assert (tmp_path / "bad.csv").read_text().splitlines()[0] == "media,key,reason,message,reader,id"
    assert json.loads(antmmf("data", "quarantine", "list", str(run), "--json").output)[1]["key"] == "cut.mp4"


def test_quarantine_retry_keeps_only_what_is_still_bad(folder: Path, tmp_path: Path) -> None:
    run = run_folder(folder, tmp_path, "a.mp4", "cut.mp4", "gone.mp4")
    done = antmmf("data", "quarantine", "retry", str(run))
    assert "1 of 3 can be read now" in done.output
    assert done.exit_code == 1
    assert {bad.key: bad.reason for bad in read_quarantine(run).values()} == {
        "cut.mp4": "truncated",
        "gone.mp4": "truncated",  # it is in no data set any more, so that nothing is known of it
    }
    (folder / "cut.mp4").write_bytes((folder / "a.mp4").read_bytes())
    antmmf("data", "quarantine", "retry", str(run))
    assert [bad.key for bad in read_quarantine(run).values()] == ["gone.mp4"]


def test_a_retry_that_is_killed_loses_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [BadSample(id=n, key=f"{n}", media="a", reader="r", reason="empty", message="m") for n in range(2)]
    write_quarantine(tmp_path, bad)
    first, second = (tmp_path / "quarantine.rank0.jsonl").read_text().splitlines()
    (tmp_path / "quarantine.rank0.jsonl").write_text(f"{first}\n")
    (tmp_path / "quarantine.rank1.jsonl").write_text(f"{second}\n")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_quarantine(tmp_path, bad)
    assert list(read_quarantine(tmp_path).values()) == bad
    write_quarantine(tmp_path, bad[1:])
    assert [path.name for path in tmp_path.glob("quarantine.*")] == ["quarantine.rank0.jsonl"]
    assert list(read_quarantine(tmp_path).values()) == bad[1:]


def test_quarantine_of_what_is_no_run_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(AntmmfError, match="is no run's folder"):
        antmmf_raises("data", "quarantine", "list", str(tmp_path))
