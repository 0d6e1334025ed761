"""Averaged weights: their values, swapping them in and out, resuming, and shards of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from antmmf.checkpoint import Checkpoints, load_checkpoint, load_model, load_optimizer
from antmmf.contracts import RunState
from antmmf.ema import Ema
from antmmf.freeze import freeze
from antmmf.optim import AdamW, build_optimizer
from ema_ranks import one_rank, train_and_look
from engine_toys import ToyTask
from torch import Tensor, nn


def walk(module: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema, steps: range) -> None:
    """Steps whose gradients follow from their number."""
    for step in steps:
        draw = torch.Generator().manual_seed(step)
        for parameter in module.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=draw).to(parameter.dtype)
        optimizer.step()
        ema.update(step)


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def test_the_average_starts_at_the_weights_and_warms_up_to_its_decay() -> None:
    model = nn.Linear(2, 1, dtype=torch.float64)
    ema = Ema(model, decay=0.5)
    average = model.weight.detach().clone()
    assert torch.equal(ema.state_dict()["weight"], average)
    for step, decay in enumerate([1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5, 0.5]):
        model.weight.data.add_(step + 1.0)
        ema.update(step)
        average = decay * average + (1 - decay) * model.weight.detach()
        torch.testing.assert_close(ema.state_dict()["weight"], average, rtol=1e-12, atol=0)


def test_only_what_is_trained_is_averaged_and_a_tied_weight_has_all_its_names() -> None:
    task = ToyTask()
    freeze(task, ["vision.*"])
    averages = Ema(task, decay=0.9).state_dict()
    assert averages.keys() == {"text.weight", "head.weight", "head.bias"}
    assert averages["text.weight"] is averages["head.weight"]


def test_a_tied_weight_moves_once_a_step() -> None:
    task = ToyTask()
    ema = Ema(task, decay=0.9)
    before = task.text.weight.detach().clone()
    task.text.weight.data.add_(1.0)
    ema.update(0)
    torch.testing.assert_close(ema.state_dict()["head.weight"], before + 0.9)


def test_half_precision_weights_are_averaged_in_float32() -> None:
    model = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    model.weight.data.fill_(1.0)
    ema = Ema(model, decay=0.999)
    model.weight.data.fill_(1.0078125)  # the next number in bfloat16
    for step in range(10_000, 10_010):
        ema.update(step)
    expected = 1 + 0.0078125 * (1 - 0.999**10)
    assert float(ema.state_dict()["weight"]) == pytest.approx(expected, rel=1e-6)
    with ema.swapped():
        assert model.weight.dtype == torch.bfloat16


def test_swapping_evaluates_the_average_and_gives_the_weights_back_bit_for_bit() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, dtype=torch.float32))
    model[2].to(torch.bfloat16)
    ema = Ema(model, decay=0.9)
    walk(model, torch.optim.SGD(model.parameters(), lr=0.1), ema, range(3))
    own, places = copies(model.state_dict()), [parameter.data_ptr() for parameter in model.parameters()]
    averages = copies(ema.state_dict())
    with ema.swapped():
        inside = {name: parameter.detach() for name, parameter in model.named_parameters()}
        assert equal(inside, {name: value.to(inside[name].dtype) for name, value in averages.items()})
        assert not torch.equal(inside["0.weight"], own["0.weight"])
    assert equal(model.state_dict(), own)
    with pytest.raises(KeyboardInterrupt), ema.swapped():
        raise KeyboardInterrupt
    assert equal(model.state_dict(), own)
    assert equal(ema.state_dict(), averages)
    assert [parameter.data_ptr() for parameter in model.parameters()] == places  # compiled graphs hold on to them


def test_a_resumed_average_is_bit_for_bit_the_uninterrupted_one(tmp_path: Path) -> None:
    def start() -> tuple[ToyTask, torch.optim.Optimizer, Ema]:
        torch.manual_seed(0)
        task = ToyTask()
        return task, build_optimizer(AdamW(lr=0.01), task), Ema(task, decay=0.99)

    whole = start()
    walk(*whole, range(8))
    first = start()
    walk(*first, range(5))
    state = {"optimizer": first[1].state_dict()}
    Checkpoints(tmp_path).save(
        RunState(step=5), model=first[0].state_dict(), optimizer=state, ema=first[2].state_dict()
    )
    saved = load_checkpoint(tmp_path / "step_000005")
    task, optimizer, ema = start()
    load_model(task, saved.model)
    assert saved.optimizer is not None
    assert saved.ema is not None
    load_optimizer(optimizer, saved.optimizer["optimizer"])
    ema.load_state_dict(saved.ema)
    walk(task, optimizer, ema, range(5, 8))
    assert equal(ema.state_dict(), whole[2].state_dict())
    assert equal(task.state_dict(), whole[0].state_dict())


def test_the_saved_average_stands_for_the_model_with_its_tied_weights(tmp_path: Path) -> None:
    task = ToyTask()
    ema = Ema(task, decay=0.9)
    walk(task, torch.optim.SGD(task.parameters(), lr=0.1), ema, range(3))
    saved = load_checkpoint(Checkpoints(tmp_path).save(RunState(), model=task.state_dict(), ema=ema.state_dict()))
    with ema.swapped():
        expected = copies(task.state_dict())
    other = ToyTask()
    load_model(other, {**saved.model, **(saved.ema or {})})
    assert equal(other.state_dict(), expected)


def test_averages_of_another_model_are_refused() -> None:
    ema = Ema(nn.Linear(2, 2), decay=0.9)
    with pytest.raises(ValueError, match=r"averages of other parameters: bias"):
        ema.load_state_dict({"weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"average of bias: \(1,\) is not \(2,\)"):
        ema.load_state_dict({"weight": torch.zeros(2, 2), "bias": torch.zeros(1)})


# --- shards -----------------------------------------------------------------------------------------------------------


def test_shards_average_to_what_one_process_has_and_are_saved_and_resumed_as_one(tmp_path: Path) -> None:
    try:
        expected = train_and_look(0, 1, tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.multiprocessing.spawn(one_rank, args=(tmp_path, expected), nprocs=2)
    saved = [load_checkpoint(tmp_path / folder / "step_000003").ema for folder in ("1", "2")]
    assert saved[0] is not None
    assert saved[1] is not None
    torch.testing.assert_close(dict(saved[1]), dict(saved[0]), rtol=1e-9, atol=1e-12)
