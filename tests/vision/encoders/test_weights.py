from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from antmmf.errors import CheckpointError
from antmmf.pretrained import given, stored
from antmmf_vision.encoders import weights
from safetensors.torch import save_file
from torch import nn

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


class Bomb:
    """What a hostile file does when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.victim,)


def equal(read: dict[str, torch.Tensor]) -> bool:
    return read.keys() == TENSORS.keys() and all(value.equal(TENSORS[name]) for name, value in read.items())


@pytest.mark.parametrize("file", ["w.safetensors", "w.pt", "w.pth", "pytorch_model.bin"])
def test_files_and_folders_are_read(file: str, tmp_path: Path) -> None:
    if file.endswith(".safetensors"):
        save_file(TENSORS, tmp_path / file)
    else:
        torch.save(TENSORS, tmp_path / file)
    assert equal(weights.read(tmp_path / file))
    assert equal(weights.read(tmp_path))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module"])
def test_what_lies_around_the_tensors_is_taken_off(wrapper: str, tmp_path: Path) -> None:
    inner = {f"module.{name}": value for name, value in TENSORS.items()}
    torch.save({wrapper: inner, "epoch": 3, "lr": 0.1}, tmp_path / "w.pt")
    assert equal(weights.read(tmp_path / "w.pt"))


def test_a_file_that_would_run_code_is_refused_and_does_not_run_it(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    torch.save({**TENSORS, "bomb": Bomb(victim)}, tmp_path / "w.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb(victim), protocol=2))
    for name in ("w.pt", "plain.pt"):
        with pytest.raises(CheckpointError, match=rf"{name}: must hold tensors and nothing else"):
            weights.read(tmp_path / name)
    assert not victim.exists()


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 broken"])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_broken_file_is_told(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}: must hold tensors and nothing else"):
        weights.read(tmp_path / name)


def test_a_file_without_tensors_is_told(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="must hold tensors by name, holds list"):
        weights.read(tmp_path / "w.pt")


def test_a_folder_must_hold_one_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"must hold one file of weights \(.*\), holds 0"):
        weights.read(tmp_path)
    for name in ("a.pt", "b.pt"):
        torch.save(TENSORS, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"must hold one file of weights \(.*\), holds 2"):
        weights.read(tmp_path)
    save_file(TENSORS, tmp_path / "model.safetensors")  # the usual name wins
    assert equal(weights.read(tmp_path))


def test_weights_dir_is_searched_by_full_name_last_part_and_ending(tmp_path: Path) -> None:
    for name in ("group/one.pt", "two.safetensors", "three"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert stored(["group/one"], tmp_path) == tmp_path / "group/one.pt"
    assert stored(["nothing", "group/two"], tmp_path) == tmp_path / "two.safetensors"
    assert stored(["three"], tmp_path) == tmp_path / "three"
    assert stored(["four"], tmp_path) is None
    assert stored(["three"], None) is None


def test_a_path_is_taken_as_it_is_before_weights_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "there/w.pt").touch()
    monkeypatch.chdir(tmp_path / "here")
    assert given("w.pt", tmp_path / "there") == tmp_path / "there/w.pt"
    Path("w.pt").touch()
    assert given("w.pt", tmp_path / "there") == Path("w.pt")


def test_everything_must_fit() -> None:
    network = nn.ModuleDict({"a": nn.Linear(3, 2)})
    weights.load(network, {**TENSORS, "head.weight": torch.ones(1)}, source="x", surplus=("head.",))
    assert network["a"].weight.equal(TENSORS["a.weight"])
    told = r"x: does not fit: it lacks a\.bias; it has besides b; it has in other shapes a\.weight"
    with pytest.raises(CheckpointError, match=told):
        weights.load(network, {"a.weight": torch.ones(3, 3), "b": torch.ones(1)}, source="x")
