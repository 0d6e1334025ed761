"""Weights into a model that may be another one: what fits is taken, what does not is told."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from antmmf.checkpoint import Checkpoints, load_checkpoint, load_model, load_optimizer, take_weights
from antmmf.contracts import RunState
from antmmf.errors import CheckpointError
from engine_toys import ToyTask
from torch import Tensor, nn


def linear(**more: Tensor) -> nn.Linear:
    """6 + 3 values, and those of ``more``."""
    model = nn.Linear(2, 3)
    for name, values in more.items():
        setattr(model, name, nn.Parameter(values))
    return model


def test_weights_that_fit_are_taken_and_the_rest_is_told() -> None:
    source = {**linear(wide=torch.zeros(4, 2)).state_dict(), "head.weight": torch.ones(1)}
    model = linear(extra=torch.zeros(2), wide=torch.zeros(4, 3))
    transfer = take_weights(model, source, source="F", min_coverage=0.3)
    assert torch.equal(model.weight, source["weight"])
    assert (transfer.taken, transfer.missing, transfer.unexpected, transfer.reshaped) == (
        ("weight", "bias"),
        ("extra",),
        ("head.weight",),
        (("wide", (4, 3), (4, 2)),),
    )
    assert transfer.coverage == 9 / 23
    assert list(transfer.lines()) == [
        "39.1 % of 23 values: 2 taken, 1 missing, 1 unexpected, 1 reshaped",
        "missing     extra",
        "unexpected  head.weight",
        "reshaped    wide (4, 3) here, (4, 2) there",
    ]


def test_of_many_names_the_first_are_shown_and_all_counted() -> None:
    source = {**linear().state_dict(), **{f"x{i}": torch.zeros(1) for i in range(12)}}
    assert "unexpected  x0, x1, x2, ... (12)" in list(take_weights(linear(), source, source="F").lines())


def test_too_little_coverage_is_refused_and_changes_nothing() -> None:
    model = linear(extra=torch.zeros(10))
    before = model.weight.clone()
    with pytest.raises(CheckpointError, match=r"47\.4 % of 19 values.*at least 50 % must.*min_coverage=0"):
        take_weights(model, linear().state_dict(), source="F")
    assert torch.equal(model.weight, before)
    assert take_weights(model, linear().state_dict(), source="F", min_coverage=0).coverage == 9 / 19


@pytest.mark.parametrize("min_coverage", [0, 0.5])
def test_weights_of_which_none_fits_are_always_an_error(min_coverage: float) -> None:
    with pytest.raises(
        CheckpointError, match=r"F: none of its 1 tensors fits the model; it has module\.weight, the model needs weight"
    ):
        take_weights(linear(), {"module.weight": torch.ones(3, 2)}, source="F", min_coverage=min_coverage)


def test_a_statistic_alone_does_not_count_as_weights() -> None:
    model = nn.BatchNorm1d(2)
    with pytest.raises(CheckpointError, match="none of its 1 tensors fits"):
        take_weights(model, {"running_mean": torch.ones(2)}, source="F", min_coverage=0)


def test_a_tied_tensor_counts_once_and_is_filled_by_any_of_its_names() -> None:
    task = ToyTask()
    source = {name: tensor for name, tensor in ToyTask().state_dict().items() if name != "text.weight"}
    transfer = take_weights(task, source, source="F")
    assert (transfer.coverage, transfer.missing) == (1.0, ())
    assert transfer.num_values == sum(parameter.numel() for parameter in task.parameters())


def test_two_values_for_one_tied_tensor_are_refused() -> None:
    source = {**ToyTask().state_dict(), "head.weight": torch.ones(50, 8)}
    with pytest.raises(CheckpointError, match=r"F: text\.weight and head\.weight are one tensor in the model"):
        take_weights(ToyTask(), source, source="F")


def test_what_is_loaded_whole_must_fit_whole() -> None:
    with pytest.raises(RuntimeError, match="extra"):
        load_model(linear(extra=torch.zeros(1)), linear().state_dict())
    with pytest.raises(RuntimeError, match="other"):
        load_model(linear(), {**linear().state_dict(), "other": torch.zeros(1)})
    with pytest.raises(ValueError, match="group"):
        load_optimizer(torch.optim.SGD(linear().parameters()), {"state": {5: {}}, "param_groups": []})


def test_D10_a_checkpoint_holds_all_that_moves_not_the_weights_alone(tmp_path: Path) -> None:
    task = ToyTask()
    optimizer = torch.optim.AdamW(task.parameters(), lr=0.1)
    for group in optimizer.param_groups:
        group["initial_lr"] = 0.2  # what a schedule multiplies
    _step(task, optimizer)
    state = RunState(step=1, epoch=3, position=8)

    def weights_only() -> tuple[ToyTask, torch.optim.Optimizer, RunState]:  # upstream's rule
        again = ToyTask()
        again.load_state_dict(task.state_dict())
        return again, torch.optim.AdamW(again.parameters(), lr=0.1), RunState()

    def everything() -> tuple[ToyTask, torch.optim.Optimizer, RunState]:
        path = Checkpoints(tmp_path).save(state, model=task.state_dict(), optimizer=optimizer.state_dict())
        loaded, again = load_checkpoint(path), ToyTask()
        load_model(again, loaded.model)
        fresh = torch.optim.AdamW(again.parameters(), lr=9.0)
        load_optimizer(fresh, loaded.optimizer or {})
        return again, fresh, loaded.state

    wrong, right = weights_only(), everything()
    _step(task, optimizer)
    assert not _is_resumed(wrong, task, state, rate=0.2)
    assert _is_resumed(right, task, state, rate=0.2)


def _step(task: ToyTask, optimizer: torch.optim.Optimizer) -> None:
    sum(parameter.square().sum() for parameter in task.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    optimizer.zero_grad()


def _is_resumed(
    resumed: tuple[ToyTask, torch.optim.Optimizer, RunState], goal: ToyTask, state: RunState, *, rate: float
) -> bool:
    task, optimizer, resumed_state = resumed
    _step(task, optimizer)
    same = all(torch.equal(one, two) for one, two in zip(task.parameters(), goal.parameters(), strict=True))
    return same and resumed_state == state and optimizer.param_groups[0].get("initial_lr") == rate


def test_D30_weights_under_a_wrappers_prefix_are_refused_not_left_random(caplog: pytest.LogCaptureFixture) -> None:
    """Upstream maps names that carry DDP's prefix; alone there is none, nothing matches, and training begins anew."""
    pretrained = {f"module.model.model.{name}": tensor for name, tensor in ToyTask().state_dict().items()}

    def upstream(task: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        own, log = task.state_dict(), logging.getLogger("antmmf")
        old, new = "module.model.model.", "module.model."
        for name, tensor in tensors.items():
            for key in own:
                if old in name and new in key and name.replace(old, "") == key.replace(new, ""):
                    own[key] = tensor
                    break
            else:
                log.warning("%s was not loaded", name)
        task.load_state_dict(own)

    task = ToyTask()
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    upstream(task, pretrained)  # ends as if all were well
    assert all(torch.equal(before[name], tensor) for name, tensor in task.state_dict().items())
    assert {record.levelname for record in caplog.records} == {"WARNING"}

    with pytest.raises(CheckpointError, match=r"none of its \d tensors fits the model; it has module\.model\.model\."):
        take_weights(task, pretrained, source="F", min_coverage=0)
