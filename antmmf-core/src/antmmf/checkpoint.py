"""Checkpoints: a folder of safetensors and JSON that is whole or not there; nothing is pickled.

A folder ``step_000123`` is written beside, synced and renamed; ``latest`` and ``best`` are text files that name one.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from antmmf.contracts import Json, RunState
from antmmf.errors import CheckpointError

Pointer = Literal["latest", "best"]
_FORMAT = 1
_ALIASES = "antmmf.aliases"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds; ``files`` are texts by name, such as the config."""

    path: Path
    state: RunState
    model: Mapping[str, Tensor]
    optimizer: dict[str, Any] | None
    callbacks: Mapping[str, Json]
    assets: Mapping[str, Json]
    files: Mapping[str, str]


class Checkpoints:
    """The checkpoints of one run; keeps the newest ``max_ckpt_num`` (None or 0: all), and always latest and best."""

    def __init__(self, folder: Path, *, max_ckpt_num: int | None = None) -> None:
        self.folder = folder
        self.max_ckpt_num = max_ckpt_num

    def save(
        self,
        state: RunState,
        *,
        model: Mapping[str, Tensor],
        optimizer: Mapping[str, Any] | None = None,
        callbacks: Mapping[str, Json] | None = None,
        assets: Mapping[str, Json] | None = None,
        files: Mapping[str, str] | None = None,
        best: bool = False,
    ) -> Path:
        """Write the checkpoint of ``state.step``, point ``latest`` (and ``best``) at it and remove old ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{state.step:06d}"
        beside = Path(tempfile.mkdtemp(prefix=f".tmp-{path.name}-", dir=self.folder))
        try:
            _write_tensors(beside / "model.safetensors", model)
            if optimizer is not None:
                structure, tensors = pack(optimizer)
                _write_tensors(beside / "optimizer.safetensors", tensors)
                _write_json(beside / "optimizer.json", structure)
            _write_json(beside / "state.json", {"run": asdict(state), "callbacks": dict(callbacks or {})})
            _write_json(beside / "assets.json", dict(assets or {}))
            for name, text in (files or {}).items():
                (beside / name).write_text(text, encoding="utf-8")
            _write_manifest(beside, state.step)
            os.chmod(beside, 0o755)
            _put(beside, path)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        if best:
            self._point("best", path)  # first: the state that latest points at names it
        self._point("latest", path)
        self._prune()
        self._remove_remains()
        return path

    def latest(self) -> Path | None:
        """The newest checkpoint, None when there is none."""
        found = self._all()
        return self._pointed("latest") or (found[-1] if found else None)

    def best(self) -> Path | None:
        """The best checkpoint on the validation split, None when none was chosen."""
        return self._pointed("best")

    def _pointed(self, pointer: Pointer) -> Path | None:
        file = self.folder / pointer
        path = self.folder / file.read_text(encoding="utf-8").strip() if file.is_file() else None
        return path if path is not None and path.is_dir() else None

    def _point(self, pointer: Pointer, path: Path) -> None:
        beside = self.folder / f".tmp-{pointer}"
        beside.write_text(path.name + "\n", encoding="utf-8")
        _sync(beside)
        os.replace(beside, self.folder / pointer)
        _sync(self.folder)

    def _all(self) -> list[Path]:
        found = [path for path in self.folder.glob("step_*") if path.name[5:].isdecimal() and path.is_dir()]
        return sorted(found, key=lambda path: int(path.name[5:]))

    def _prune(self) -> None:
        if not self.max_ckpt_num:
            return
        for path in self._all()[: -self.max_ckpt_num]:
            if path not in (self.latest(), self.best()):
                shutil.rmtree(path)

    def _remove_remains(self) -> None:
        """Remove what a process left behind that was killed while it saved."""
        for pattern in (".tmp-step_*", ".old-*"):
            for path in self.folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


def find_checkpoint(path: Path, *, prefer: Pointer) -> Path:
    """The checkpoint folder that ``path`` means: itself, a pointer file, a run's folder, or its ``checkpoints``."""
    if path.is_file() and path.name in ("latest", "best"):
        return path.parent / path.read_text(encoding="utf-8").strip()
    if (path / "manifest.json").is_file():
        return path
    for folder in (path, path / "checkpoints"):
        checkpoints = Checkpoints(folder)
        found = checkpoints.latest() if prefer == "latest" else checkpoints.best() or checkpoints.latest()
        if found is not None:
            return found
    what = "has no checkpoint" if path.exists() else "does not exist"
    raise CheckpointError(f"{path} {what}; give a run's folder or one of its checkpoints/step_...")


def load_checkpoint(path: Path, *, verify: bool = True) -> Checkpoint:
    """Read the checkpoint folder ``path`` onto the CPU; ``verify`` compares every file with the manifest's hash.

    Raises ``CheckpointError`` naming the file that is missing or damaged.
    """
    names = _check_manifest(path, verify=verify)
    state = _read_json(path / "state.json")
    optimizer = None
    if "optimizer.json" in names:
        structure = _read_json(path / "optimizer.json")
        optimizer = unpack(structure, _read_tensors(path / "optimizer.safetensors"))
    own = {"model.safetensors", "optimizer.safetensors", "optimizer.json", "state.json", "assets.json"}
    try:
        run = RunState(**state["run"])
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path / 'state.json'} does not fit this version of antmmf: {error}") from error
    return Checkpoint(
        path=path,
        state=run,
        model=_read_tensors(path / "model.safetensors"),
        optimizer=optimizer,
        callbacks=state["callbacks"],
        assets=_read_json(path / "assets.json"),
        files={name: (path / name).read_text(encoding="utf-8") for name in names if name not in own},
    )


# --- weights into a model ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Transfer:
    """Names of the tensors that were ``taken``, ``left`` in the source, and of those still ``random`` in the model."""

    taken: tuple[str, ...]
    left: tuple[str, ...]
    random: tuple[str, ...]

    def __str__(self) -> str:
        counts = f"{len(self.taken)} tensors taken, {len(self.left)} left, {len(self.random)} random"
        shown = [f"{what}: {_short(names)}" for what, names in (("left", self.left), ("random", self.random)) if names]
        return "; ".join([counts, *shown])


def take_weights(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> Transfer:
    """Copy every tensor whose name and shape the module has; raise ``CheckpointError`` when there is none."""
    own = module.state_dict()
    fitting = {name: t for name, t in tensors.items() if name in own and own[name].shape == t.shape}
    if not fitting:
        raise CheckpointError(
            f"{source}: none of its {len(tensors)} tensors fits the model; it has {_short(tuple(tensors))}, "
            f"the model needs {_short(tuple(own))}"
        )
    module.load_state_dict(fitting, strict=False)
    return Transfer(
        taken=tuple(fitting),
        left=tuple(name for name in tensors if name not in fitting),
        random=tuple(name for name in own if name not in fitting),
    )


def _short(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f", ... ({len(names)})" if len(names) > 3 else "")


# --- nested state <-> JSON and flat tensors ---------------------------------------------------------------------------


def pack(value: Any) -> tuple[Json, dict[str, Tensor]]:
    """Nested dicts, lists, tuples, tensors and plain values -> a JSON structure that names its tensors, and those."""
    tensors: dict[str, Tensor] = {}

    def visit(part: Any, place: str) -> Json:
        if isinstance(part, Tensor):
            tensors[place] = part
            return {"tensor": place}
        if isinstance(part, Mapping):
            return {
                "items": [[key, visit(item, f"{place}.{key}" if place else str(key))] for key, item in part.items()]
            }
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


# --- files ------------------------------------------------------------------------------------------------------------


def _write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Tied tensors are written once, their other names into the file's metadata: safetensors refuses shared memory."""
    first: dict[tuple[object, ...], str] = {}
    written: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    memory: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach()
        storage = plain.untyped_storage().data_ptr()
        same = (storage, plain.storage_offset(), plain.shape, plain.stride(), plain.dtype)
        if plain.numel() > 0 and same in first:
            aliases[name] = first[same]
            continue
        first[same] = name
        is_view = storage in memory  # of a tensor that is written already: safetensors wants it to own its memory
        written[name] = plain.clone(memory_format=torch.contiguous_format) if is_view else plain.contiguous()
        memory.add(storage)
    save_file(written, str(file), metadata={_ALIASES: json.dumps(aliases)})


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(str(file), framework="pt") as opened:
            tensors: dict[str, Tensor] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            aliases = json.loads((opened.metadata() or {}).get(_ALIASES, "{}"))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    return tensors | {name: tensors[first] for name, first in aliases.items()}


def _write_json(file: Path, value: Json) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def _read_json(file: Path) -> Json:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error


def _write_manifest(folder: Path, step: int) -> None:
    files = {file.name: {"size": file.stat().st_size, "sha256": _hash(file)} for file in sorted(folder.iterdir())}
    _write_json(folder / "manifest.json", {"format": _FORMAT, "step": step, "files": files})
    for file in folder.iterdir():
        _sync(file)
    _sync(folder)


def _check_manifest(path: Path, *, verify: bool) -> set[str]:
    if not (path / "manifest.json").is_file():
        raise CheckpointError(f"{path} is not a whole checkpoint: it has no manifest.json")
    manifest = _read_json(path / "manifest.json")
    if manifest.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path}: format must be {_FORMAT}, is {manifest.get('format')}; use another version of antmmf"
        )
    for name, expected in manifest["files"].items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing from the checkpoint; take another one")
        if file.stat().st_size != expected["size"] or (verify and _hash(file) != expected["sha256"]):
            raise CheckpointError(f"{file} is damaged: it is not what the manifest says; take another checkpoint")
    return set(manifest["files"])


def _put(beside: Path, path: Path) -> None:
    """Rename ``beside`` to ``path``, in place of a checkpoint of the same step."""
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=".old-", dir=path.parent))
        os.rename(path, old / path.name)
        os.rename(beside, path)
        shutil.rmtree(old)
    else:
        os.rename(beside, path)
    _sync(path.parent)


def _hash(file: Path) -> str:
    digest = sha256()
    with file.open("rb") as opened:
        while part := opened.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot sync a folder
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
