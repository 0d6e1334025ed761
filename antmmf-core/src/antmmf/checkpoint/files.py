"""The files of a checkpoint: hashed while they are written, synced, and compared with the manifest before a read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from antmmf.contracts import Json
from antmmf.errors import CheckpointError

FORMAT = 1
MANIFEST = "manifest.json"
_STEP = re.compile(r"step_(\d+)(?:-(\d+))?")
_BLOCK = 1 << 20
# Names of types in safetensors: https://huggingface.co/docs/safetensors/index#format
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip


def step_folders(folder: Path) -> dict[Path, tuple[int, int]]:
    """All checkpoints in ``folder``, the newest last: path -> step, and how many times that step was saved."""
    matches = {path: _STEP.fullmatch(path.name) for path in folder.glob("step_*") if path.is_dir()}
    found = {path: (int(match[1]), int(match[2] or 1)) for path, match in matches.items() if match}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def step_folder(folder: Path, step: int) -> Path:
    """A folder for the checkpoint of ``step`` that is not there yet: ``step_000123``, after that ``step_000123-2``."""
    last = max((version for saved, version in step_folders(folder).values() if saved == step), default=0)
    return folder / (f"step_{step:06d}-{last + 1}" if last else f"step_{step:06d}")


def write_file(file: Path, parts: Iterable[bytes | memoryview]) -> Json:
    """Write and sync ``parts``; returns the manifest's entry, its hash taken on the way."""
    digest, size = sha256(), 0
    with file.open("wb") as opened:
        for part in parts:
            for start in range(0, len(part), _BLOCK):
                block = part[start : start + _BLOCK]
                digest.update(block)
                opened.write(block)
            size += len(part)
        opened.flush()
        os.fsync(opened.fileno())
    return {"size": size, "sha256": digest.hexdigest()}


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> Json:
    """Write what safetensors would, but hashed in the same pass and without a second copy of everything in memory."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # so that each is aligned
    header: dict[str, Json] = {}
    end = 0
    for name, tensor in ordered:
        assert tensor.dtype in _DTYPES, f"{name}: safetensors has no {tensor.dtype}"
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return write_file(file, chain([len(text).to_bytes(8, "little"), text], (_bytes_of(t) for _, t in ordered)))


def _bytes_of(tensor: Tensor) -> memoryview:
    """The values in row-major order."""
    plain: memoryview = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return plain


def as_json(value: Json) -> str:
    """The text that stands for ``value`` in a file."""
    return json.dumps(value, ensure_ascii=False, indent=1)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` last; Windows cannot, and need not."""
    if os.name != "nt":
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def read_json(file: Path) -> Json:
    """The content of a JSON file; raises ``CheckpointError`` when it is missing or none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error


def check_files(path: Path, *, verify: bool) -> list[str]:
    """The names of a checkpoint's files; raises ``CheckpointError`` naming one that is missing or damaged.

    Sizes are compared always, hashes if ``verify``.
    """
    if not (path / MANIFEST).is_file():
        raise CheckpointError(f"{path} is not a whole checkpoint: it has no {MANIFEST}")
    manifest = read_json(path / MANIFEST)
    try:
        version = manifest["format"]
        listed = {path / name: (entry["size"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path / MANIFEST} is damaged: {error!r}") from error
    if version != FORMAT:
        raise CheckpointError(f"{path}: format must be {FORMAT}, is {version}; use another version of antmmf")
    for file, (size, digest) in listed.items():
        if not file.is_file():
            raise CheckpointError(f"{file} is missing from the checkpoint")
        if file.stat().st_size != size or (verify and _hash(file) != digest):
            raise CheckpointError(f"{file} is damaged: it is not what the manifest says")
    return [file.name for file in listed]


def _hash(file: Path) -> str:
    digest = sha256()
    with file.open("rb") as opened:
        while part := opened.read(_BLOCK):
            digest.update(part)
    return digest.hexdigest()
