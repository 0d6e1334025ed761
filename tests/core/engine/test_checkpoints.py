"""Checkpoints of one process: exact round trips, wholeness, pointers, pruning."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from antmmf.checkpoint import Checkpoints, find_checkpoint, load_checkpoint, pack, unpack
from antmmf.contracts import RunState
from antmmf.errors import CheckpointError
from engine_toys import ToyTask
from safetensors.torch import load_file


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


def test_safetensors_reads_what_was_written(tmp_path: Path) -> None:
    model = {
        "": torch.arange(3, dtype=torch.int8),
        "half": torch.randn(2, 3).bfloat16(),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "none": torch.zeros(0, 4),
        "mask": torch.tensor([True, False]),
        "ümlaut": torch.randn(5, dtype=torch.float16),
    }
    path = Checkpoints(tmp_path).save(RunState(), model=model)
    for read in (load_file(path / "model.safetensors"), load_checkpoint(path).model):
        assert read.keys() == model.keys()
        for name, tensor in model.items():
            assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(read[name], tensor), name


def test_a_tensor_that_was_read_does_not_hang_on_its_file(tmp_path: Path) -> None:
    model = {"x": torch.randn(1000)}
    path = Checkpoints(tmp_path).save(RunState(), model=model)
    read = load_checkpoint(path).model["x"]
    file = path / "model.safetensors"
    file.write_bytes(bytes(file.stat().st_size))
    assert torch.equal(read, model["x"])


def test_a_moving_average_comes_back(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save(RunState(), model={"x": torch.zeros(2)}, ema={"x": torch.ones(2)})
    loaded = load_checkpoint(path)
    assert loaded.ema is not None
    assert torch.equal(loaded.ema["x"], torch.ones(2))
    assert torch.equal(loaded.model["x"], torch.zeros(2))
    assert load_checkpoint(save(tmp_path, 1)).ema is None
    assert load_checkpoint(save(tmp_path, 2)).optimizer is None


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
    assert save(tmp_path, 1, best=True) == tmp_path / "step_000001-2"
    assert steps(tmp_path) == ["best", "latest", "step_000001-2"]
    assert save(tmp_path, 1) == tmp_path / "step_000001-3"
    assert steps(tmp_path) == ["best", "latest", "step_000001-2", "step_000001-3"]  # best is never removed


def test_a_step_that_was_saved_again_is_found_by_its_first_name(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 1)
    assert find_checkpoint(tmp_path / "step_000001", prefer="latest") == tmp_path / "step_000001-2"
    assert load_checkpoint(tmp_path / "step_000001").path == tmp_path / "step_000001-2"


def test_a_step_saved_again_counts_once(tmp_path: Path) -> None:
    for step in (1, 2, 2, 3, 3, 3):
        save(tmp_path, step, keep=2)
    assert steps(tmp_path) == ["latest", "step_000002-2", "step_000003-3"]


def test_remains_are_removed_before_anything_is_written(tmp_path: Path) -> None:
    remains = tmp_path / ".old-step_000001"
    remains.mkdir()
    with pytest.raises(AssertionError, match=r"x: safetensors has no torch\.complex128"):
        Checkpoints(tmp_path).save(RunState(step=2), model={"x": torch.zeros(1, dtype=torch.complex128)})
    assert not remains.exists()


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


# --- damage -----------------------------------------------------------------------------------------------------------


def damage(path: Path, name: str = "model.safetensors") -> None:
    content = bytearray((path / name).read_bytes())
    content[-1] ^= 1
    (path / name).write_bytes(content)


def test_of_damaged_ones_the_newest_whole_one_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two, three = (save(tmp_path, step) for step in (1, 2, 3))
    assert Checkpoints(tmp_path).newest_whole() == three
    damage(three)
    (two / "state.json").unlink()
    with caplog.at_level(logging.WARNING, "antmmf"):
        assert Checkpoints(tmp_path).newest_whole() == one
    assert caplog.messages == [
        f"{three / 'model.safetensors'} is damaged: it is not what the manifest says; using {one} instead",
        f"{two / 'state.json'} is missing from the checkpoint; using {one} instead",
    ]


def test_a_manifest_with_any_wrong_byte_is_harmless_or_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    manifest = save(tmp_path, 2) / "manifest.json"
    content = manifest.read_bytes()
    used = set()
    for place in range(len(content)):
        manifest.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        whole = Checkpoints(tmp_path).newest_whole()
        assert whole is not None
        used.add(whole.name)
    assert used == {"step_000001", "step_000002"}


def test_checkpoints_of_which_none_is_whole_are_an_error(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).newest_whole() is None
    damage(save(tmp_path, 1))
    (save(tmp_path, 2) / "manifest.json").unlink()
    message = r"none of its 2 checkpoints is whole: .*step_000002 .*no manifest\.json; .*step_000001/model.* is damaged"
    with pytest.raises(CheckpointError, match=message):
        Checkpoints(tmp_path).newest_whole()


def test_a_damaged_one_that_is_named_is_refused_with_the_newest_whole_one(tmp_path: Path) -> None:
    one, two = save(tmp_path, 1), save(tmp_path, 2)
    damage(two)
    with pytest.raises(CheckpointError, match=r"is damaged.*; the newest whole one beside it is step_000001$"):
        load_checkpoint(two)
    damage(one)
    with pytest.raises(CheckpointError, match=r"is damaged.*; there is no whole one beside it$"):
        load_checkpoint(two)


@pytest.mark.parametrize("content", ["", "step_000009", "..", "step_1e3"])
def test_a_pointer_to_nothing_is_passed_over(tmp_path: Path, content: str) -> None:
    path = save(tmp_path, 1)
    for pointer in ("latest", "best"):
        (tmp_path / pointer).write_text(content)
    checkpoints = Checkpoints(tmp_path)
    assert (checkpoints.latest(), checkpoints.newest_whole(), checkpoints.best()) == (path, path, None)


def test_what_latest_names_is_newer_than_a_save_that_was_killed_before_it(tmp_path: Path) -> None:
    one, two = save(tmp_path, 1, best=True), save(tmp_path, 2, best=True)
    (tmp_path / "latest").write_text(one.name)  # killed after best, before latest
    assert Checkpoints(tmp_path).newest_whole() == one
    damage(one)
    assert Checkpoints(tmp_path).newest_whole() == two


# --- names of wrappers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["module.vision.weight", "task.vision.weight", "vision._orig_mod.weight"])
def test_a_wrappers_name_is_never_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(AssertionError):
        Checkpoints(tmp_path).save(RunState(), model={name: torch.zeros(1)})
    assert not list(tmp_path.iterdir())
