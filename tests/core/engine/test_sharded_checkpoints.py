"""Checkpoints that several processes write together: a file of each, whole tensors for any number of readers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from antmmf.checkpoint import Checkpoints, load_checkpoint, load_model, load_optimizer
from antmmf.errors import CheckpointError
from safetensors.torch import load_file
from torch import Tensor


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that ``sharded_ranks.py`` leaves behind."""
    folder = tmp_path_factory.mktemp("scenes")
    script = Path(__file__).with_name("sharded_ranks.py")
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def tensors_of(path: Path) -> dict[str, Tensor]:
    """All tensors of model and optimizer, named as ``sharded_ranks.dump`` does."""
    loaded = load_checkpoint(path)
    found = {f"model.{name}": tensor for name, tensor in loaded.model.items()}
    for index, values in (loaded.optimizer or {})["state"].items():
        found |= {f"{index}.{name}": tensor for name, tensor in values.items()}
    return found


def assert_same(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert tensor.dtype == two[name].dtype, name
        assert torch.equal(tensor, two[name]), name


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("step", [2, 3])
def test_one_process_reads_whole_tensors_of_many(scenes: Path, size: int, step: int) -> None:
    assert_same(
        tensors_of(scenes / f"from{size}/step_{step:06d}"), load_file(scenes / f"from{size}/{step}.safetensors")
    )


def test_every_process_writes_its_own_rows_and_the_first_all_that_is_not_sharded(scenes: Path) -> None:
    files = [
        load_file(scenes / f"from3/step_000002/model.{i}-of-00003.safetensors") for i in ("00001", "00002", "00003")
    ]
    rows = [{name: len(tensor) for name, tensor in file.items() if tensor.ndim == 2} for file in files]
    assert rows == [
        {"few.weight": 1, "text.weight": 17, "vision.weight": 3},
        {"few.weight": 1, "text.weight": 17, "vision.weight": 3},
        {"text.weight": 16, "vision.weight": 2},
    ]
    assert ["norm.running_mean" in file for file in files] == [True, False, False]
    assert not any("head.weight" in file for file in files)  # tied to the text's


def test_the_index_tells_the_shapes_of_whole_tensors(scenes: Path) -> None:
    index = json.loads((scenes / "from3/step_000002/model.index.json").read_text())
    assert index["shapes"]["text.weight"] == [50, 8]
    assert index["shapes"]["few.weight"] == [2, 3]
    assert index["aliases"] == {"head.weight": "text.weight"}


def test_the_manifest_names_the_files_of_all_processes(scenes: Path) -> None:
    path = scenes / "from3/step_000002"
    names = {file.name for file in path.iterdir()}
    assert set(json.loads((path / "manifest.json").read_text())["files"]) == names - {"manifest.json"}
    assert {
        f"{part}.0000{i}-of-00003.safetensors" for part in ("model", "optimizer", "ema") for i in (1, 2, 3)
    } <= names
    damaged = path / "model.00002-of-00003.safetensors"
    before = damaged.read_bytes()
    try:
        damaged.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(CheckpointError, match=r"model\.00002-of-00003\.safetensors is damaged.* is step_000003"):
            load_checkpoint(path)
    finally:
        damaged.write_bytes(before)


def test_no_file_of_a_sharded_checkpoint_is_a_pickle_or_an_archive(scenes: Path) -> None:
    files = [file for path in scenes.glob("*/step_*") for file in path.iterdir()]
    assert len(files) > 50
    for file in files:
        first = file.read_bytes()[:9]
        assert first[:1] == b"{" or first[8:9] == b"{", file  # JSON, or a safetensors header after its length


@pytest.mark.parametrize("way", ["from1to2", "from2to2", "from2to3", "from3to2", "from3toddp"])
def test_any_number_of_processes_goes_on_bit_for_bit(scenes: Path, way: str) -> None:
    source = scenes / way.partition("to")[0] / "step_000002"
    assert_same(tensors_of(scenes / way / "step_000002"), tensors_of(source))
    assert_same(load_file(scenes / way / "3.safetensors"), load_file(scenes / "from2/3.safetensors"))
    assert load_checkpoint(scenes / way / "step_000002").state.step == 2


def test_one_process_goes_on_from_three_bit_for_bit(scenes: Path) -> None:
    from sharded_ranks import seeded_task, step

    task = seeded_task(2)
    optimizer = torch.optim.AdamW(task.parameters(), lr=0.1, weight_decay=0.1)
    loaded = load_checkpoint(scenes / "from3/step_000002")
    load_model(task, loaded.model)
    load_optimizer(optimizer, loaded.optimizer or {})
    step(task, optimizer)
    goal = load_file(scenes / "from3/3.safetensors")
    for name, tensor in task.state_dict().items():
        assert torch.equal(tensor, goal[f"model.{name}"]), name


def test_a_moving_average_is_sharded_too(scenes: Path) -> None:
    loaded = load_checkpoint(scenes / "from3/step_000002")
    assert loaded.ema is not None
    assert_same(dict(loaded.ema), dict(loaded.model))


def test_every_process_hears_of_each_checkpoint(scenes: Path) -> None:
    for rank in range(3):
        heard = json.loads((scenes / f"from3/finished.{rank}.json").read_text())
        assert heard == [[2, "step_000002"], [3, "step_000003"]]
    checkpoints = Checkpoints(scenes / "from3")
    assert checkpoints.latest() == checkpoints.best() == scenes / "from3/step_000003"


def test_a_failure_of_one_process_is_raised_on_all_and_leaves_nothing(scenes: Path) -> None:
    for rank in range(2):
        foreground, background, whole = json.loads((scenes / f"full/heard.{rank}.json").read_text())
        for message in (foreground, background):
            assert "step_000002 could not be written: No space left on device; it needs" in message
        assert whole == str(scenes / "full/step_000001")
    assert {path.name for path in (scenes / "full").iterdir() if not path.name.startswith("heard")} == {
        "latest",
        "step_000001",
        "step_000003",
    }


def test_D29_one_process_writes_a_replicated_model_and_without_a_prefix(scenes: Path) -> None:
    """Upstream's ``finalize`` writes one file from all ranks at once, with DDP's prefix in its names."""
    notes = [json.loads((scenes / f"ddp/opened.{rank}.json").read_text()) for rank in range(2)]
    assert written_twice([note["upstream"] for note in notes]) == {str(scenes / "ddp/_final.pth")}
    assert all(name.startswith("module.") for name in load_file(scenes / "ddp/_final.pth"))

    assert written_twice([note["ours"] for note in notes]) == set()
    assert notes[1]["ours"] == []
    model = load_checkpoint(scenes / "ddp/step_000001").model
    assert not any(name.startswith("module.") for name in model)
    assert torch.equal(model["norm.running_mean"], torch.zeros(8, dtype=torch.float64))  # of rank 0, and whole
    assert all(note["refused"] for note in notes)


def written_twice(opened: list[list[str]]) -> set[str]:
    """Files that more than one process opened to write."""
    first, second = map(set, opened)
    return first & second
