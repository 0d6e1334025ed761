"""Where pretrained weights come from: a file or folder, ``weights_dir``, or the library's own download."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from antmmf.errors import CheckpointError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")
_WRAPPERS = ("state_dict", "model", "module")


def given(path: str, weights_dir: Path | None) -> Path:
    """The file or folder that a config names: ``path`` as it is, else inside ``weights_dir``.

    Raises ``CheckpointError`` where neither exists.
    """
    own = Path(path).expanduser()
    found = own if own.exists() else stored([path], weights_dir)
    if found is None:
        beside = f", nor does {weights_dir / path}" if weights_dir else ""
        raise CheckpointError(f"{path} does not exist{beside}; write a file or folder with weights")
    return found


def stored(names: Iterable[str], weights_dir: Path | None) -> Path | None:
    """The first of ``names`` that lies in ``weights_dir``, also by the last part of a name, or with an ending added.

    Raises ``CheckpointError`` where ``weights_dir`` is no folder.
    """
    if weights_dir is None:
        return None
    folder = weights_dir.expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"weights_dir: must be a folder, {weights_dir} is none")
    stems = dict.fromkeys(stem for name in names for stem in (name, name.rpartition("/")[2]))
    paths = (folder / f"{stem}{suffix}" for stem in stems for suffix in ("", *SUFFIXES))
    return next((path for path in paths if path.exists()), None)


def missing(what: str, *, source: str, place: str, weights_dir: Path | None, reason: BaseException) -> CheckpointError:
    """What to tell somebody whose files can be had neither here nor from the network.

    ``source`` says what to download, ``place`` the name that it must have inside ``weights_dir``.
    """
    first = (str(reason).strip().splitlines() or [""])[0]
    why = f"{type(reason).__name__}: {first}" if first else type(reason).__name__
    put = f"put it at {weights_dir / place}" if weights_dir else f"set weights_dir and put it at weights_dir/{place}"
    return CheckpointError(
        f"{what}: its files must be here or be downloaded, and the download failed ({why}). "
        f"On a machine with a network, get {source}; {put}"
    )


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
