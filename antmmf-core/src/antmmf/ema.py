"""An exponential moving average of the weights, to evaluate and to keep beside those that are trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from antmmf.checkpoint.shards import is_sharded, shard_like


class Ema:
    """Averages of what is trained in ``module``, in float32 or better, which start as its present weights.

    The decay after ``step`` earlier updates is ``(1 + step) / (10 + step)`` where that is less than ``decay``, so that
    the first weights are forgotten soon (the rule of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``).
    Buffers are not averaged. Parameters that FSDP2 has sharded are averaged by shards; shard first.
    """

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        self.module = module
        self.decay = decay
        named = module.named_parameters(remove_duplicate=False)
        self._names = {name: parameter for name, parameter in named if parameter.requires_grad}
        self._averages = {parameter: _copy(parameter) for parameter in dict.fromkeys(self._names.values())}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the weights, after an optimizer step; ``step`` such steps came before."""
        averages, weights = _local(self._averages.values()), _local(self._averages)
        new = [weight.to(average.dtype) for weight, average in zip(weights, averages, strict=True)]
        torch._foreach_lerp_(averages, new, 1 - min(self.decay, (1 + step) / (10 + step)))

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by parameter name, not copied; a tied parameter has all its names."""
        return {name: self._averages[parameter] for name, parameter in self._names.items()}

    def load_state_dict(self, averages: Mapping[str, Tensor]) -> None:
        """Take whole tensors, as a checkpoint gives them; raises ``ValueError`` where names or shapes differ."""
        own = self.state_dict()
        if own.keys() != averages.keys():
            raise ValueError(f"averages of other parameters: {', '.join(sorted(own.keys() ^ averages.keys()))}")
        for name, average in own.items():
            saved = averages[name]
            if saved.shape != average.shape:
                raise ValueError(f"average of {name}: {tuple(saved.shape)} is not {tuple(average.shape)}")
            average.copy_(shard_like(saved, average))

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The averages are the module's weights inside; afterwards it has its own again, bit for bit."""
        kept = [weight.detach().clone() for weight in _local(self._averages)]
        self._put(_local(self._averages.values()))
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, weights: list[Tensor]) -> None:
        if any(is_sharded(parameter) for parameter in self._averages):
            from torch.distributed.fsdp import FSDPModule

            for module in self.module.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()  # after an evaluation the outermost still holds the weights it had gathered
        torch._foreach_copy_(_local(self._averages), weights)


@torch.no_grad()
def _copy(parameter: Tensor) -> Tensor:
    return parameter.to(torch.promote_types(parameter.dtype, torch.float32), copy=True)


@torch.no_grad()
def _local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this process has of each, without a copy."""
    return [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
