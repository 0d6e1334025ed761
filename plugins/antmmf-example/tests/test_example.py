"""Every component keeps its contract, and does what it says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from antmmf import AntmmfError, DataError, RunInfo
from antmmf.testing import check_component, check_dataset, check_plugin_module, check_vision_encoder
from antmmf_example import disk_space
from antmmf_example.file_names import FileNames
from antmmf_example.mean_colour import MeanColour
from antmmf_example.time_limit import TimeLimit

CLIPS = [f"{colour}_{shape}.mp4" for colour in ("red", "blue", "green") for shape in ("ball", "box", "cone", "ring")]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("vision_encoders", "mean_colour"),
        ("datasets", "file_names"),
        ("losses", "sigmoid"),
        ("callbacks", "time_limit"),
    ],
)
def test_components_are_found_and_load(kind: str, name: str) -> None:
    check_component(kind, f"antmmf-example:{name}")


@pytest.mark.parametrize("size", [32, 40])
def test_mean_colour_keeps_its_contract(size: int) -> None:
    check_vision_encoder(MeanColour(dim=8, patch=16), size=size)


def test_mean_colour_does_not_see_where_pixels_are_within_a_cell() -> None:
    frames = torch.arange(3 * 4, dtype=torch.uint8).view(1, 1, 1, 3, 2, 2)
    encoder, sizes = MeanColour(dim=4, patch=2), torch.tensor([[2, 2]])
    assert torch.allclose(encoder(frames, sizes).pooled, encoder(frames.flip(-1), sizes).pooled)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*CLIPS, "notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


def test_file_names_keeps_its_contract(folder: Path) -> None:
    check_dataset(FileNames(data_root_dir=folder, split="train"))


def test_file_names_puts_every_video_in_one_split(folder: Path) -> None:
    splits = [FileNames(data_root_dir=folder, split=split).records() for split in ("train", "val", "test")]
    assert sorted(record.key for records in splits for record in records) == sorted(CLIPS)


def test_file_names_are_captions(folder: Path) -> None:
    records = FileNames(data_root_dir=folder, split="train").records()
    assert "red ball" in {text for record in records for text in record.texts}


def test_a_folder_without_videos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be a folder with videos"):
        list(FileNames(data_root_dir=tmp_path, split="train").records())


def test_time_limit_stops_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("antmmf_example.time_limit.time", SimpleNamespace(monotonic=lambda: now))
    limit = TimeLimit(minutes=1)
    limit.antmmf_run_start()
    now += 60
    assert limit.antmmf_should_stop() is None
    now += 1
    assert limit.antmmf_should_stop() is True


def test_disk_space_keeps_its_contract() -> None:
    check_plugin_module(disk_space)


def test_disk_space_refuses_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = RunInfo("r", tmp_path, 1, 1, 1, "cpu", (), {})
    for free in (2**40, 2**20):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: SimpleNamespace(free=free))  # noqa: ARG005
        if free > disk_space.LEAST:
            disk_space.antmmf_run_start(info)
        else:
            with pytest.raises(AntmmfError, match="must have 100 MB free, has 1 MB"):
                disk_space.antmmf_run_start(info)
