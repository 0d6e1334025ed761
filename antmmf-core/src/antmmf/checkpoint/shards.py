"""Sets of tensors in files: whole ones in one file; those that FSDP2 shards by rows in a file of each process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from antmmf.checkpoint.files import read_json, write_tensors
from antmmf.contracts import Json
from antmmf.errors import CheckpointError


@dataclass
class Part:
    """What one process writes of the set ``name``: its rows of the sharded ``tensors``, and rank 0 all others.

    ``shapes`` are those of whole tensors; ``aliases`` are more names of tied ones; ``size`` is that of all, in bytes.
    """

    name: str
    is_sharded: bool
    tensors: dict[str, Tensor] = field(default_factory=dict)
    shapes: dict[str, list[int]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    size: int = 0

    def write(self, folder: Path, *, rank: int, num_ranks: int) -> dict[str, Json]:
        """Write this process's file, where it has anything; returns its entry for the manifest by name."""
        if rank > 0 and not self.tensors:
            return {}
        number = f".{rank + 1:05d}-of-{num_ranks:05d}" if self.is_sharded else ""
        file = f"{self.name}{number}.safetensors"
        return {file: write_tensors(folder / file, self.tensors)}


def own_part(name: str, tensors: Mapping[str, Tensor], *, rank: int) -> Part:
    """The part of ``tensors`` that process ``rank`` writes; nothing is copied, and tied tensors are in it once."""
    part = Part(name, any(is_sharded(tensor) for tensor in tensors.values()))
    first: dict[tuple[object, ...], str] = {}
    for key, tensor in tensors.items():
        own = own_rows(tensor.detach())
        memory = (own.untyped_storage().data_ptr(), own.storage_offset(), own.shape, own.stride(), own.dtype)
        if own.numel() > 0 and first.setdefault(memory, key) != key:
            part.aliases[key] = first[memory]
            continue
        part.shapes[key] = list(tensor.shape)
        part.size += tensor.numel() * tensor.element_size()
        if rank == 0 or (is_sharded(tensor) and own.numel() > 0):
            part.tensors[key] = own
    return part


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of the set ``name`` in a checkpoint's folder, whole, whatever the number of files they are in.

    Each is read when it is asked for, and owns its memory: none hangs on a file that may be removed.
    """

    def __init__(self, folder: Path, name: str) -> None:
        index = read_json(folder / f"{name}.index.json")
        self._shapes: dict[str, list[int]] = index["shapes"]
        self._aliases: dict[str, str] = index["aliases"]
        self._pieces: dict[str, list[Any]] = {}
        for file in sorted(folder.glob(f"{name}.*safetensors")):
            opened = _open(file)
            for key in opened.keys():  # noqa: SIM118
                self._pieces.setdefault(key, []).append(opened)

    def __getitem__(self, name: str) -> Tensor:
        key = self._aliases.get(name, name)
        pieces: list[Tensor] = [file.get_tensor(key) for file in self._pieces[key]]
        whole = torch.cat(pieces) if len(pieces) > 1 else pieces[0].clone()
        assert list(whole.shape) == self._shapes[key], f"{name} is {whole.shape}, must be {self._shapes[key]}"
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter((*self._shapes, *self._aliases))

    def __len__(self) -> int:
        return len(self._shapes) + len(self._aliases)


def _open(file: Path) -> Any:
    try:
        return safe_open(str(file), framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error


# --- FSDP2's tensors --------------------------------------------------------------------------------------------------


def is_sharded(tensor: Tensor) -> bool:
    """Is it a ``DTensor`` of which this process holds a part? Asked without importing that, which takes a second."""
    return any(placement.is_shard() for placement in getattr(tensor, "placements", ()))


def shard_like(full: Tensor, like: Tensor) -> Tensor:
    """``full`` placed as ``like`` is: a ``DTensor`` of this process's rows where that is sharded, else unchanged."""
    if not is_sharded(like):
        return full
    from torch.distributed.tensor import DTensor

    assert isinstance(like, DTensor)
    mesh = like.device_mesh
    num_rows = -(-len(full) // mesh.size())  # as torch.chunk: the last processes may have fewer, or none
    start = mesh.get_local_rank() * num_rows
    own = full[start : start + num_rows].to(like.device, copy=True)  # a view would keep all of ``full``
    return DTensor.from_local(own, mesh, like.placements, run_check=False, shape=full.shape, stride=full.stride())


def own_rows(tensor: Any) -> Tensor:
    """What this process has of a tensor, without a copy."""
    if is_sharded(tensor):
        rows = [placement.is_shard(0) for placement in tensor.placements]
        assert rows == [True], f"only rows over one mesh dimension can be saved, not {tensor.placements}"
    own: Tensor = tensor.to_local() if hasattr(tensor, "placements") else tensor
    return own


# --- nested state <-> JSON and flat tensors ---------------------------------------------------------------------------


def pack(value: Any) -> tuple[Json, dict[str, Tensor]]:
    """Nested dicts, lists, tuples, tensors and plain values -> a JSON structure that names its tensors, and those."""
    tensors: dict[str, Tensor] = {}

    def visit(part: Any, place: str) -> Json:
        if isinstance(part, Tensor):
            tensors[place] = part
            return {"tensor": place}
        if isinstance(part, Mapping):
            inside = f"{place}." if place else ""
            return {"items": [[key, visit(item, f"{inside}{key}")] for key, item in part.items()]}
        if isinstance(part, (list, tuple)):
            return {type(part).__name__: [visit(item, f"{place}.{i}") for i, item in enumerate(part)]}
        assert part is None or isinstance(part, (bool, int, float, str)), f"{place} is {type(part)}"
        return part

    return visit(value, ""), tensors


def unpack(structure: Json, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of ``pack``, types and numbers kept exactly."""
    if not isinstance(structure, dict):
        return structure
    ((kind, content),) = structure.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "items":
        return {key: unpack(item, tensors) for key, item in content}
    items = [unpack(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
