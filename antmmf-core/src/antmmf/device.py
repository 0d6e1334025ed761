"""Which device a run uses, and accelerators that are there but that torch cannot see."""

from __future__ import annotations

import logging
import os
from glob import glob

import torch

from antmmf.errors import ConfigError, Problem

log = logging.getLogger("antmmf")

_TRACES = {
    # device files that a driver makes -> what they stand for
    "/dev/nvidia[0-9]*": "an NVIDIA GPU",
    "/dev/kfd": "an AMD GPU",
    "/dev/davinci[0-9]*": "an Ascend NPU",
    "/dev/accel/accel[0-9]*": "an accelerator",
}


def unseen_accelerator() -> str | None:
    """An accelerator whose driver is loaded while torch sees none; None when there is nothing to say."""
    if torch.accelerator.is_available():
        return None
    return next((f"{name} ({found[0]})" for trace, name in _TRACES.items() if (found := sorted(glob(trace)))), None)


def choose_device(name: str, *, where: str = "", local_rank: int | None = None) -> torch.device:
    """The device called ``name``; ``auto`` is the accelerator, else the CPU.

    ``local_rank`` is this process's number among several on one host: it gets the accelerator of that number.
    Raises ``ConfigError``.
    """
    device = _named_device(name, where)
    if local_rank is None or device.type in ("cpu", "mps") or device.index is not None:
        return device
    there = torch.accelerator.device_count()
    if local_rank >= there:
        message = f"must give each process of a host its own, process {local_rank} finds {there}; start fewer processes"
        raise ConfigError(Problem("training_parameters.device", where, message))
    torch.accelerator.set_device_index(local_rank)
    return torch.device(device.type, local_rank)


def tell_overflow(scaler: torch.amp.GradScaler, *, before: float) -> float:
    """The loss scale; one that fell since ``before`` says that steps were left out, which is logged."""
    scale = scaler.get_scale()
    if scale < before:
        log.info("fp16: gradients overflowed and their steps were left out; loss scale %g -> %g", before, scale)
    return scale


def amp_type(wanted: bool | str, device: torch.device) -> torch.dtype | None:
    """The type to autocast to: as named; true: bfloat16 where ``device`` computes in it, else float16; false: none."""
    if wanted is False:
        return None
    if wanted is True:
        has_bfloat16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    return {"bf16": torch.bfloat16, "fp16": torch.float16}[str(wanted)]


def _named_device(name: str, where: str) -> torch.device:
    key = "training_parameters.device"
    if name == "auto":
        unseen = unseen_accelerator()
        if unseen:
            reason = f"{unseen} is here but torch {torch.__version__} cannot use it"
            message = f"{reason}; install the torch build for it, or set training_parameters.device cpu"
            raise ConfigError(Problem(key, where, message))
        current = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return current or torch.device("cpu")
    here = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        assert kind is not None
        here += [kind.type, *(f"{kind.type}:{index}" for index in range(torch.accelerator.device_count()))]
    if name not in here:
        raise ConfigError(Problem(key, where, f"must be auto or one of {', '.join(here)}, is {name!r}"))
    return torch.device(name)


def num_cores() -> int:
    """The cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory(device: torch.device) -> int:
    """Peak memory of this process in bytes: of the accelerator, or resident on the CPU."""
    if device.type == "cpu":
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return int(torch.accelerator.max_memory_allocated(device))
