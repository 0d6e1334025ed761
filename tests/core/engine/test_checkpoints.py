"""Checkpoints: exact round trips, wholeness, pointers, pruning; and weights into another model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from antmmf.checkpoint import Checkpoints, find_checkpoint, load_checkpoint, pack, take_weights, unpack
from antmmf.contracts import RunState
from antmmf.errors import CheckpointError
from engine_toys import ToyTask
from torch import nn


def save(folder: Path, step: int, *, keep: int | None = None, best: bool = False) -> Path:
    return Checkpoints(folder, max_ckpt_num=keep).save(RunState(step=step), model=ToyTask().state_dict(), best=best)


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    task = ToyTask()
    optimizer = torch.optim.AdamW(task.parameters(), betas=(0.9, 0.98))
    task(_batch()).terms["distance"].sum.backward()
    optimizer.step()
    state = RunState(step=7, epoch=2, position=12, best_value=1 / 3, best_step=5, bad_samples=1)
    path = Checkpoints(tmp_path).save(
        state,
        model=task.state_dict(),
        optimizer=optimizer.state_dict(),
        callbacks={"c": {"n": 1}},
        assets={"answers": ["ja", "é"]},
        files={"config.yml": "a: 1\n"},
    )
    loaded = load_checkpoint(path)
    assert loaded.state == state
    assert (loaded.callbacks, loaded.assets) == ({"c": {"n": 1}}, {"answers": ["ja", "é"]})
    assert loaded.files == {"config.yml": "a: 1\n"}
    assert loaded.optimizer is not None
    saved = optimizer.state_dict()
    assert loaded.optimizer["param_groups"] == saved["param_groups"]
    assert type(loaded.optimizer["param_groups"][0]["betas"]) is tuple
    for index, tensors in saved["state"].items():
        for name, value in tensors.items():
            assert torch.equal(loaded.optimizer["state"][index][name], value)
    assert loaded.model.keys() == task.state_dict().keys()


def _batch():  # type: ignore[no-untyped-def]
    from antmmf.batch import Batch

    return Batch(
        ids=torch.arange(2),
        frames=torch.zeros(2, 1, 2, 3, 4, 4, dtype=torch.uint8),
        sizes=torch.full((2, 2), 4),
        tokens=torch.ones(2, 2, dtype=torch.long),
        token_mask=torch.ones(2, 2, dtype=torch.bool),
        owner=torch.arange(2),
    )


def test_tied_weights_are_written_once_and_stay_tied(tmp_path: Path) -> None:
    task = ToyTask()
    path = Checkpoints(tmp_path).save(RunState(step=1), model=task.state_dict())
    size = sum(p.numel() for p in task.parameters()) * 4
    assert size < (path / "model.safetensors").stat().st_size < size + 1500
    other = ToyTask()
    other.load_state_dict(dict(load_checkpoint(path).model))
    assert other.head.weight is other.text.weight
    assert torch.equal(other.head.weight, task.head.weight)


def test_views_into_one_memory_and_odd_strides_come_back(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    model = {"all": base, "part": base[3:6], "turned": base.view(3, 4).t(), "empty": base[:0], "half": base.bfloat16()}
    loaded = load_checkpoint(Checkpoints(tmp_path).save(RunState(), model=model)).model
    for name, tensor in model.items():
        assert torch.equal(loaded[name], tensor), name


def test_no_file_of_a_checkpoint_is_a_pickle_or_an_archive(tmp_path: Path) -> None:
    for file in save(tmp_path, 1).iterdir():
        first = file.read_bytes()[:9]
        assert first[:1] == b"{" or first[8:9] == b"{", file  # JSON, or a safetensors header after its length


def test_nested_state_keeps_its_types() -> None:
    value = {0: (1, [2.5, None, True, "x", {}]), "t": {"u": torch.ones(2)}, "empty": (), "inf": float("inf")}
    structure, tensors = pack(value)
    back = unpack(json.loads(json.dumps(structure)), tensors)
    assert back.pop("t")["u"] is value.pop("t")["u"]  # type: ignore[index]
    assert back == value


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "assets.json"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    file = save(tmp_path, 1) / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"step_000001/{name} is damaged"):
        load_checkpoint(file.parent)


def test_a_cut_file_is_found_without_reading_hashes(tmp_path: Path) -> None:
    file = save(tmp_path, 1) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_checkpoint(file.parent, verify=False)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "assets.json").unlink()
    with pytest.raises(CheckpointError, match=r"assets\.json is missing"):
        load_checkpoint(path)


def test_a_folder_without_a_manifest_is_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not a whole checkpoint: it has no manifest\.json"):
        load_checkpoint(tmp_path)


def test_a_save_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(TypeError):
        Checkpoints(tmp_path).save(RunState(step=2), model=ToyTask().state_dict(), assets={"x": object()})
    assert steps(tmp_path) == ["latest", "step_000001"]
    assert Checkpoints(tmp_path).latest() == tmp_path / "step_000001"


def test_the_remains_of_a_killed_save_are_cleared_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".tmp-step_000001-abc").mkdir(parents=True)
    (tmp_path / ".tmp-step_000001-abc" / "model.safetensors").write_bytes(b"half")
    assert Checkpoints(tmp_path).latest() is None
    save(tmp_path, 2)
    assert steps(tmp_path) == ["latest", "step_000002"]


def test_old_ones_are_removed_but_never_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step, keep=2, best=step == 2)
    assert steps(tmp_path) == ["best", "latest", "step_000002", "step_000004", "step_000005"]


@pytest.mark.parametrize("keep", [None, 0])
def test_without_a_limit_all_are_kept(tmp_path: Path, keep: int | None) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, keep=keep)
    assert steps(tmp_path) == ["latest", "step_000001", "step_000002", "step_000003"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 1, best=True)
    assert steps(tmp_path) == ["best", "latest", "step_000001"]
    load_checkpoint(tmp_path / "step_000001")


def test_steps_are_numbers_not_words(tmp_path: Path) -> None:
    save(tmp_path, 999_999)
    save(tmp_path, 1_000_000)
    (tmp_path / "latest").unlink()
    assert Checkpoints(tmp_path).latest() == tmp_path / "step_1000000"


def test_a_checkpoint_is_found_by_every_name_it_has(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    one, two = save(folder, 1, best=True), save(folder, 2)
    assert [find_checkpoint(path, prefer="latest") for path in (tmp_path, folder, one, folder / "best")] == [
        two,
        two,
        one,
        one,
    ]
    assert find_checkpoint(tmp_path, prefer="best") == one


def test_a_place_without_a_checkpoint_is_an_error_that_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint; give a run's folder"):
        find_checkpoint(tmp_path, prefer="best")
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        find_checkpoint(tmp_path / "nowhere", prefer="best")


def test_weights_that_fit_are_taken_and_the_rest_is_told() -> None:
    source = {**nn.Linear(2, 3).state_dict(), "head.weight": torch.ones(1)}
    model = nn.Linear(2, 3)
    model.extra = nn.Parameter(torch.zeros(2))
    transfer = take_weights(model, source, source="F")
    assert torch.equal(model.weight, source["weight"])
    assert (transfer.taken, transfer.left, transfer.random) == (("weight", "bias"), ("head.weight",), ("extra",))
    assert str(transfer) == "2 tensors taken, 1 left, 1 random; left: head.weight; random: extra"


def test_weights_of_which_none_fits_are_an_error() -> None:
    with pytest.raises(
        CheckpointError, match=r"F: none of its 1 tensors fits the model; it has module\.weight, .*needs"
    ):
        take_weights(nn.Linear(2, 3), {"module.weight": torch.ones(3, 2)}, source="F")
