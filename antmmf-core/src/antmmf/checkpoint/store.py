"""The checkpoints of one run: written beside, synced, renamed; by all processes together, in the background if wanted.

A folder ``step_000123`` is whole or not there; ``latest`` and ``best`` are text files that name one. Saving a step once
more makes ``step_000123-2``, moves the pointers to it, and only then removes the first.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from antmmf.checkpoint import files as disk
from antmmf.checkpoint.loading import Pointer, latest, newest_whole, pointed
from antmmf.checkpoint.shards import Part, own_part, pack
from antmmf.contracts import Json, RunState
from antmmf.distributed.world import World
from antmmf.errors import CheckpointError

T = TypeVar("T")


@dataclass(frozen=True)
class _Save:
    """What one save writes, and where; nothing in it moves along with the run."""

    path: Path
    state: RunState
    parts: list[Part]
    texts: dict[str, str]
    best: bool


class Checkpoints:
    """The checkpoints of one run; keeps the newest ``max_ckpt_num`` (None or 0: all), and always latest and best.

    All processes of ``world`` make one and call ``save`` and ``newest_whole`` together, on a ``folder`` that all see;
    they talk in a group of their own. ``longest_stall`` is how long the longest ``save`` kept its caller, in seconds.
    """

    def __init__(self, folder: Path, *, max_ckpt_num: int | None = None, world: World | None = None) -> None:
        self.folder = folder
        self.max_ckpt_num = max_ckpt_num
        self.world = world or World()
        self.longest_stall = 0.0
        self._group = dist.new_group(backend="gloo") if self.world.size > 1 else None
        self._copies: dict[tuple[str, str], Tensor] = {}
        self._pending: tuple[RunState, Future[Path]] | None = None
        self._finished: list[tuple[RunState, Path]] = []

    def save(
        self,
        state: RunState,
        *,
        model: Mapping[str, Tensor],
        optimizer: Mapping[str, Any] | None = None,
        ema: Mapping[str, Tensor] | None = None,
        callbacks: Mapping[str, Json] | None = None,
        assets: Mapping[str, Json] | None = None,
        files: Mapping[str, str] | None = None,
        best: bool = False,
        in_background: bool = False,
    ) -> Path:
        """Write the checkpoint of ``state.step``, point ``latest`` (and ``best``) at it and remove old ones.

        ``in_background`` copies the tensors and returns while they are written; the next save waits for that first.
        Raises ``CheckpointError`` saying why this one, or the one before it, could not be written.
        """
        started = perf_counter()
        self.wait()
        _refuse_wrapped(model)
        sets = {"model": model} if ema is None else {"model": model, "ema": ema}
        texts = dict(files or {})
        texts["state.json"] = disk.as_json({"run": asdict(state), "callbacks": dict(callbacks or {})})
        texts["assets.json"] = disk.as_json(dict(assets or {}))
        if optimizer is not None:
            structure, sets["optimizer"] = pack(optimizer)
            texts["optimizer.json"] = disk.as_json(structure)
        parts = [own_part(name, tensors, rank=self.world.rank) for name, tensors in sets.items()]
        save = _Save(disk.step_folder(self.folder, state.step), replace(state), parts, texts, best)
        if in_background:
            self._copy(parts)
            self._start(save)
        else:
            self._finished.append((save.state, self._write(save)))
        self.longest_stall = max(self.longest_stall, perf_counter() - started)
        return save.path

    def mark(self, state: RunState, *, best: bool) -> None:
        """Note at the checkpoint of ``state.step``, the latest, what its evaluation found after it was saved."""
        self.wait()

        def write() -> None:
            path = self.latest()
            assert path is not None
            if best:
                self._point("best", path, note=_said(state.best_value))
            if state.ended:
                self._point("latest", path, note="ended")
            self._remove_old()

        self._on_first(write)

    def wait(self) -> None:
        """Return when nothing is being written any more; raises the ``CheckpointError`` that writing ended with."""
        if self._pending is None:
            return
        state, written = self._pending
        error = written.exception()
        self._pending = None
        if error is not None:
            raise error
        self._finished.append((state, written.result()))

    def finished(self) -> list[tuple[RunState, Path]]:
        """The checkpoints that became whole since the last call, each with its state; raises as ``wait`` does."""
        if self._pending is not None and self._pending[1].done():
            self.wait()
        found, self._finished = self._finished, []
        return found

    def latest(self) -> Path | None:
        """The newest checkpoint, None when there is none."""
        return latest(self.folder)

    def best(self) -> Path | None:
        """The best checkpoint on the validation split, None when none was chosen."""
        return pointed(self.folder, "best")

    def newest_whole(self) -> Path | None:
        """The newest checkpoint whose files have the hashes of its manifest, None when there is none at all.

        Every damaged one that is passed over is logged; raises ``CheckpointError`` when no other is left.
        """
        return self._on_first(lambda: newest_whole(self.folder))

    # --- one save -----------------------------------------------------------------------------------------------------

    def _copy(self, parts: list[Part]) -> None:
        """Replace the tensors by copies on the CPU, in memory that is kept from save to save; pinned for CUDA."""
        kept: dict[tuple[str, str], Tensor] = {}
        moved = False
        for part in parts:
            for name, tensor in part.tensors.items():
                copy = self._copies.get((part.name, name))
                if copy is None or (copy.shape, copy.dtype) != (tensor.shape, tensor.dtype):
                    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
                part.tensors[name] = kept[part.name, name] = copy.copy_(tensor, non_blocking=True)
                moved = moved or tensor.device.type != "cpu"
        self._copies = kept
        if moved:
            torch.accelerator.synchronize()

    def _start(self, save: _Save) -> None:
        written: Future[Path] = Future()

        def write() -> None:
            try:
                written.set_result(self._write(save))
            except BaseException as error:
                written.set_exception(error)

        # Alone, the interpreter waits for it at its end; with others it could wait for ever.
        Thread(target=write, name="checkpoint", daemon=self.world.size > 1).start()
        self._pending = (save.state, written)

    def _write(self, save: _Save) -> Path:
        """All processes write their parts, then rank 0 the rest."""
        beside = self.folder / f".tmp-{save.path.name}"
        rank, size = self.world.rank, self.world.size
        try:
            beside = self._on_first(lambda: self._make(beside))
            own = self._together(lambda: [part.write(beside, rank=rank, num_ranks=size) for part in save.parts])
            entries = {name: entry for written in own for files in written for name, entry in files.items()}
            return self._on_first(lambda: self._complete(save, beside, entries))
        except BaseException as error:
            if self.world.is_first:
                shutil.rmtree(beside, ignore_errors=True)
            if isinstance(error, OSError):
                raise CheckpointError(self._why_not(save, error)) from error
            raise

    def _make(self, beside: Path) -> Path:
        """The folder to write into; what killed saves left behind is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for remains in (*self.folder.glob(".tmp-step_*"), *self.folder.glob(".old-*")):
            shutil.rmtree(remains)
        beside.mkdir()
        return beside

    def _complete(self, save: _Save, beside: Path, entries: dict[str, Json]) -> Path:
        """Write the rest, the manifest last, and move everything to its place."""
        indexes = {part.name: {"shapes": part.shapes, "aliases": part.aliases} for part in save.parts}
        texts = save.texts | {f"{name}.index.json": disk.as_json(index) for name, index in indexes.items()}
        entries |= {name: disk.write_file(beside / name, [text.encode()]) for name, text in texts.items()}
        manifest = {"format": disk.FORMAT, "step": save.state.step, "files": entries}
        disk.write_file(beside / disk.MANIFEST, [disk.as_json(manifest).encode()])
        disk.sync_folder(beside)
        os.rename(beside, save.path)
        disk.sync_folder(self.folder)
        if save.best:
            self._point("best", save.path, note=_said(save.state.best_value))
        self._point("latest", save.path)  # last: the state that it points at names the best
        self._remove_old()
        return save.path

    def _point(self, pointer: Pointer, path: Path, *, note: str = "") -> None:
        beside = self.folder / f".tmp-{pointer}"
        disk.write_file(beside, [f"{path.name}\n{note}\n".replace("\n\n", "\n").encode()])
        os.replace(beside, self.folder / pointer)
        disk.sync_folder(self.folder)

    def _remove_old(self) -> None:
        """Remove what was saved once more since, and all but the newest; never what a pointer names."""
        found = disk.step_folders(self.folder)
        newest = {step: path for path, (step, _) in found.items()}
        kept = [*list(newest.values())[-(self.max_ckpt_num or 0) :], self.latest(), self.best()]
        for path in (path for path in found if path not in kept):
            old = self.folder / f".old-{path.name}"
            os.rename(path, old)  # first, or a kill would leave a damaged one
            shutil.rmtree(old)

    def _why_not(self, save: _Save, error: OSError) -> str:
        place = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.is_dir())
        needed, free = sum(part.size for part in save.parts) / 1e6, shutil.disk_usage(place).free / 1e6
        before = latest(self.folder)
        rest = f"{before.name} is there to go on from" if before else "there is no checkpoint before it"
        reason = error.strerror or error
        return f"{save.path} could not be written: {reason}; it needs {needed:,.1f} MB, {free:,.1f} MB are free; {rest}"

    # --- processes ----------------------------------------------------------------------------------------------------

    def _together(self, act: Callable[[], T]) -> list[T]:
        """What ``act`` returns on each rank; what it raises on one is raised on all."""
        if self._group is None:
            return [act()]
        outcome: T | Exception
        try:
            outcome = act()
        except Exception as error:
            outcome = error
        outcomes: list[Any] = [None] * self.world.size
        dist.all_gather_object(outcomes, outcome, group=self._group)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return outcomes

    def _on_first(self, act: Callable[[], T]) -> T:
        """What ``act`` returns on rank 0, where alone it is called."""
        return self._together(act if self.world.is_first else lambda: None)[0]  # type: ignore[return-value]


def _said(value: float | None) -> str:
    return "" if value is None else repr(value)


def _refuse_wrapped(names: Mapping[str, Tensor]) -> None:
    """A wrapper's prefix fits no other run: DDP's ``module.``, a compiled module's, that of the training step."""
    for prefix in ("module.", "task."):
        assert not names or not all(name.startswith(prefix) for name in names), f"all names start with {prefix}"
    wrapped = [name for name in names if "_orig_mod" in name.split(".")]
    assert not wrapped, f"{wrapped} carry torch.compile's prefix"
