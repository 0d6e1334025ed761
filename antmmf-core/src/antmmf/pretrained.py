"""Where an encoder's pretrained weights lie, and how its network is built where tensors have no values.

Files are looked for as a config names them, then in ``weights_dir``; a library's own download comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

from antmmf.errors import CheckpointError

Network = TypeVar("Network", bound=nn.Module)

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


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


def only_shapes() -> bool:
    """Whether tensors have no values here: under ``antmmf check``, and on the meta device."""
    probe = torch.empty(0)
    return probe.is_meta or isinstance(probe, FakeTensor)


def shaped(make: Callable[[], Network]) -> Network:
    """The network that ``make`` builds, which may read values of small tensors while it does.

    Under fake tensors these have none. So it is built on the meta device, and then given fake memory.
    """
    if not isinstance(torch.empty(0), FakeTensor):
        return make()
    with unset_fake_temporarily(), torch.device("meta"):
        network = make()
    return network.to_empty(device="cpu")
