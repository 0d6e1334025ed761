"""The tensors of a file of weights, and a network filled with all of them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from antmmf.errors import CheckpointError
from antmmf.pretrained import SUFFIXES
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")
_WRAPPERS = ("state_dict", "model", "module")


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, or of the only file of weights in a folder, by name; raises ``CheckpointError``.

    A dict around them (``state_dict``, ``model``, ``module``) and the prefix of a DDP wrapper are taken off.
    """
    file = _file_of(path)
    try:
        loaded: Any = load_file(file) if file.suffix == ".safetensors" else _unpickled(file)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{file}: must hold tensors and nothing else; {reason}") from error
    wrapper = next((name for name in _WRAPPERS if isinstance(loaded, Mapping) and name in loaded), None)
    tensors = loaded[wrapper] if wrapper else loaded
    if not isinstance(tensors, Mapping) or not any(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{file}: must hold tensors by name, holds {type(tensors).__name__}")
    return {str(key).removeprefix("module."): value for key, value in tensors.items() if isinstance(value, Tensor)}


def load(network: nn.Module, tensors: Mapping[str, Tensor], *, source: str, surplus: tuple[str, ...] = ()) -> None:
    """Fill all parameters and buffers of ``network``; names that begin with one of ``surplus`` may be left over.

    Raises ``CheckpointError`` where anything is missing, of another shape, or left over: it is another network then.
    """
    own = network.state_dict()
    faults = {
        "lacks": [name for name in own if name not in tensors],
        "has besides": [name for name in tensors if name not in own and not name.startswith(surplus or ("\0",))],
        "has in other shapes": [name for name in own if name in tensors and tensors[name].shape != own[name].shape],
    }
    told = [f"{kind} {_short(names)}" for kind, names in faults.items() if names]
    if told:
        raise CheckpointError(f"{source}: does not fit: it {'; it '.join(told)}")
    network.load_state_dict({name: tensors[name] for name in own})


def _short(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    usual = next((path / name for name in _IN_FOLDERS if (path / name).is_file()), None)
    files = [usual] if usual else sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if len(files) != 1:
        raise CheckpointError(f"{path}: must hold one file of weights ({', '.join(SUFFIXES)}), holds {len(files)}")
    return files[0]


def _unpickled(file: Path) -> Any:
    """What torch.save wrote, tensors and plain containers only: anything that would run code is refused."""
    return torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251  # other people's files; no code runs
