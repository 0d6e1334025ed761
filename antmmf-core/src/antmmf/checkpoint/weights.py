"""Saved tensors into a model or an optimizer that may be sharded; what does not fit is told, never passed over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from antmmf.checkpoint.shards import shard_like
from antmmf.errors import CheckpointError

# What a config says of an optimizer's group. All else is left as it was saved: some optimizers keep state there.
_SETTINGS = (
    *("initial_lr", "weight_decay", "betas", "eps", "momentum", "dampening", "nesterov", "amsgrad", "maximize"),
    *("fused", "foreach", "capturable"),
)


@dataclass(frozen=True)
class Transfer:
    """Names of the tensors that were ``taken``, ``missing`` in the source, ``unexpected`` in it, and ``reshaped``:
    name, shape here, shape there. ``coverage`` is the share of the ``num_values`` of all parameters that were filled.
    """

    taken: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    coverage: float
    num_values: int

    def lines(self) -> Iterator[str]:
        """The counts, then the first names of each kind."""
        counts = ", ".join(
            f"{len(getattr(self, kind))} {kind}" for kind in ("taken", "missing", "unexpected", "reshaped")
        )
        yield f"{100 * self.coverage:.1f} % of {self.num_values:,} values: {counts}"
        shapes = tuple(f"{name} {here} here, {there} there" for name, here, there in self.reshaped)
        for kind, names in (("missing", self.missing), ("unexpected", self.unexpected), ("reshaped", shapes)):
            if names:
                yield f"{kind:<10}  {_short(names)}"


def take_weights(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    min_coverage: float = 0.5,
) -> Transfer:
    """Copy every tensor whose name and shape the module has; names are taken as they are.

    The ``followers`` of a task (momentum encoders) do not count where they are missing.

    Raises ``CheckpointError`` where that fills less than ``min_coverage`` of the parameters, and always where nothing
    fits; the module is unchanged then.
    """
    own: dict[str, Tensor] = module.state_dict(keep_vars=True)
    fitting: dict[str, Tensor] = {}
    reshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    filled: dict[int, str] = {}  # a tied tensor has several names
    for name, here in own.items():
        there = tensors.get(name)
        if there is not None and there.shape == here.shape:
            first = filled.setdefault(id(here), name)
            if first != name and not torch.equal(tensors[first], there):
                raise CheckpointError(f"{source}: {first} and {name} are one tensor in the model, and differ there")
            fitting[name] = shard_like(there, here)
        elif there is not None:
            reshaped.append((name, tuple(here.shape), tuple(there.shape)))
    apart = tuple(f"{name}." for name in getattr(module, "followers", ()))
    sizes = {
        id(tensor): tensor.numel()
        for name, tensor in own.items()
        if isinstance(tensor, nn.Parameter) and not name.startswith(apart)
    }
    num_values = sum(sizes.values())
    transfer = Transfer(
        taken=tuple(fitting),
        missing=tuple(
            name for name in own if id(own[name]) not in filled and name not in tensors and not name.startswith(apart)
        ),
        unexpected=tuple(name for name in tensors if name not in own),
        reshaped=tuple(reshaped),
        coverage=sum(sizes.get(key, 0) for key in filled) / num_values if num_values else float(bool(fitting)),
        num_values=num_values,
    )
    if transfer.coverage == 0:
        raise CheckpointError(
            f"{source}: none of its {len(tensors)} tensors fits the model; it has {_short(tuple(tensors))}, "
            f"the model needs {_short(tuple(own))}; {'; '.join(transfer.lines())}"
        )
    if transfer.coverage < min_coverage:
        raise CheckpointError(
            f"{source} fills too little of the model: {'; '.join(transfer.lines())}; at least "
            f"{100 * min_coverage:g} % must be filled, set training_parameters.min_coverage=0 to take it anyway"
        )
    module.load_state_dict(fitting, strict=False)
    return transfer


def load_model(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy all ``tensors``, whole ones, into ``module``, sharded or not; raises ``RuntimeError`` where names or shapes
    differ, as torch does."""
    own = module.state_dict()
    module.load_state_dict({name: shard_like(tensors[name], own.get(name, tensors[name])) for name in tensors})


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Give ``optimizer`` the ``state`` of ``Checkpoint.optimizer``, placed as its parameters are.

    Learning rates, decay and their like stay those of ``optimizer``; where parameters are in other groups than they
    were, each gets its own state, by name. Raises ``ValueError`` where other parameters are trained.
    """
    settings = [{key: group[key] for key in _SETTINGS if key in group} for group in optimizer.param_groups]
    _load(optimizer, _regrouped(optimizer, state))
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def _regrouped(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """``state`` in the groups of ``optimizer``."""
    before = [group.get("names") for group in state["param_groups"]]
    after = [group.get("names") for group in optimizer.param_groups]
    if before == after or None in before or None in after:
        return state
    saved = {name: number for number, name in enumerate(chain(*before))}
    wanted = list(chain(*after))  # type: ignore[arg-type]
    if saved.keys() != set(wanted):
        odd = sorted(saved.keys() ^ set(wanted))
        raise ValueError(f"{len(odd)} parameters are trained in only one of the two runs, such as {odd[0]}")
    moved = {i: state["state"][saved[name]] for i, name in enumerate(wanted) if saved[name] in state["state"]}
    return {"state": moved, "param_groups": optimizer.state_dict()["param_groups"]}


def _load(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    placed = {
        index: {name: _placed(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
        if index < len(parameters)  # else torch refuses the groups
    }
    optimizer.load_state_dict({**state, "state": placed})


def _placed(value: Any, parameter: Tensor) -> Any:
    same_rows = isinstance(value, Tensor) and value.shape == parameter.shape
    return shard_like(value, parameter) if same_rows else value


def _short(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f", ... ({len(names)})" if len(names) > 3 else "")
