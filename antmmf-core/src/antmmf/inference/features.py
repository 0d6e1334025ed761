"""What a frozen encoder made of each video, stored once, in the place of decoding it and encoding it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

from antmmf.contracts import Clip, Encoded, Json, Pick, Source
from antmmf.errors import ConfigError, DataError, Problem
from antmmf.origin import Origin
from antmmf.plan import RunPlan
from antmmf.task import Task

PARTS = "features/part-*.arrow"
_ELSEWHERE = ("pretrained", "weights_dir")  # of an encoder: say where weights came from, not what they are


def fingerprint(plan: RunPlan, weights: Mapping[str, Tensor], *, assets: Mapping[str, Json] | None = None) -> str:
    """A hash of a model and of how it sees files: of the tensors named, and of what the config says.

    Without ``assets`` it is of the vision encoder alone, whose weights are those that are named ``vision.*``.
    """
    names = list(plan.encoders) if assets is not None else ["vision_encoder"]
    blocks: list[dict[str, Any]] = [plan.encoders[name].block() for name in names]
    for block in blocks:
        block["params"] = {name: value for name, value in block["params"].items() if name not in _ELSEWHERE}
    inputs = [plan.inputs[name].block() for name in ("reader", "sampler", "eval_transform") if name in plan.inputs]
    facts = [blocks, inputs, assets, plan.task.block() if assets is not None else None, "float32"]
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True, default=str).encode(), digest_size=16)
    for name in sorted(weights):
        if assets is not None or name.startswith("vision."):
            tensor = weights[name].detach().cpu().contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def seeing(vision: nn.Module, forward: Callable[[Tensor, Tensor], Encoded]) -> Iterator[None]:
    """``forward`` in the place of the vision encoder's own."""
    vision.forward = forward
    try:
        yield
    finally:
        del vision.forward


def feature_rows(ids: Sequence[Sequence[int]], encoded: Encoded, *, model: str) -> Any:
    """The table that ``StoredFeatures`` reads: of each video the ids of its samples, the real tokens, ``pooled`` and,
    where there are, ``clips``."""
    rows, dim = encoded.pooled.shape
    lengths = encoded.mask.sum(1).cpu().numpy()
    tokens = encoded.tokens[encoded.mask].float().cpu().numpy().reshape(-1)
    columns: dict[str, Any] = {
        "ids": pa.array(ids, pa.list_(pa.int64())),
        "pooled": _lists(encoded.pooled, rows),
        "tokens": pa.LargeListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths * dim)]), tokens),
    }
    if encoded.clips is not None:
        columns["clips"] = _lists(encoded.clips, rows)
    return pa.table(columns).replace_schema_metadata({"model": model})


def _lists(tensor: Tensor, rows: int) -> Any:
    flat = tensor.float().cpu().numpy().reshape(-1)
    return pa.FixedSizeListArray.from_arrays(flat, len(flat) // max(1, rows))


class StoredFeatures:
    """What ``antmmf embed --features`` wrote below ``folder``, memory-mapped, by sample id.

    To the loader it is a reader of frames: what an encoder returned travels as bytes in a frame's place, all rows as
    long as the longest, and ``unpack`` is the encoder that makes them an ``Encoded`` again. Raises ``DataError``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = sorted(folder.rglob(PARTS))
        if not paths:
            raise DataError(
                f"{folder}: holds no features; write them with: antmmf embed RUN --features --data ... --out {folder}"
            )
        self._tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all().combine_chunks() for path in paths]
        models = {table.schema.metadata[b"model"].decode() for table in self._tables}
        if len(models) > 1:
            raise DataError(f"{folder}: holds features of {len(models)} models; each needs a folder of its own")
        (self.model,) = models

    def __reduce__(self) -> tuple[type[StoredFeatures], tuple[Path]]:
        return StoredFeatures, (self.folder,)

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sorted ids, and of each its table and row."""
        lists = [table["ids"].chunk(0) for table in self._tables]
        counts = [column.value_lengths().to_numpy() for column in lists]
        ids = np.concatenate([column.flatten().to_numpy() for column in lists])
        order = np.argsort(ids, kind="stable")
        tables = np.repeat(np.arange(len(lists)), [count.sum() for count in counts])
        rows = np.concatenate([np.repeat(np.arange(len(count)), count) for count in counts])
        found = ids[order], tables[order], rows[order]
        for place in np.flatnonzero(np.diff(found[0]) == 0):  # a video of two splits
            one, other = (self._columns[found[1][i]]["pooled"][found[2][i]] for i in (place, place + 1))
            if not np.array_equal(one, other):
                raise DataError(f"{self.folder}: holds two videos of one key; name the folder of a split, embed anew")
        return found

    @cached_property
    def _columns(self) -> list[dict[str, np.ndarray]]:
        """The values of each table's columns, and where the tokens of each row end."""
        found = []
        for table in self._tables:
            parts = {name: table[name].chunk(0) for name in table.column_names if name in ("pooled", "clips", "tokens")}
            values = {name: part.values.to_numpy(zero_copy_only=True) for name, part in parts.items()}
            for name in ("pooled", "clips"):
                if name in values:
                    values[name] = values[name].reshape(len(table), -1)
            found.append({**values, "ends": parts["tokens"].offsets.to_numpy()})
        return found

    @cached_property
    def _sizes(self) -> tuple[int, int, int]:
        """Size of a vector, number of clips (0: none) and of the tokens of the longest row."""
        first = self._columns[0]
        dim = first["pooled"].shape[1]
        longest = max(int(np.diff(columns["ends"]).max(initial=0)) for columns in self._columns)
        return dim, first["clips"].shape[1] // dim if "clips" in first else 0, longest // dim

    def around(self, wrap: Callable[[Any], Any]) -> StoredFeatures:  # noqa: ARG002
        """The same: it decodes nothing, so it needs no process of its own."""
        return self

    def read(self, source: Source, pick: Pick) -> Clip:  # noqa: ARG002
        """Refuse: a file says nothing of its sample's id."""
        raise DataError(f"{source}: {self.folder} knows samples, not files")

    def packed(self, id: int, key: str) -> Tensor:
        """Of one sample ``(1, 1, 3, 1, W)`` uint8: pooled, clips, tokens and their mask as float32."""
        ids, tables, rows = self._places
        place = int(np.searchsorted(ids, id))
        if place == len(ids) or ids[place] != id:
            raise DataError(f"{key}: has no features in {self.folder}; let antmmf embed write them", reason="missing")
        columns, row = self._columns[tables[place]], rows[place]
        dim, _, longest = self._sizes
        tokens = columns["tokens"][columns["ends"][row] : columns["ends"][row + 1]]
        room = longest * dim - len(tokens)
        mask = np.arange(longest) < len(tokens) // dim
        clips = columns["clips"][row] if "clips" in columns else tokens[:0]
        parts = [columns["pooled"][row], clips, tokens, np.zeros(room, np.float32), mask.astype(np.float32)]
        content = np.concatenate(parts).view(np.uint8)
        return torch.from_numpy(np.pad(content, (0, -len(content) % 3))).view(1, 1, 3, 1, -1)

    def unpack(self, frames: Tensor, sizes: Tensor) -> Encoded:  # noqa: ARG002
        """What the encoder returned, of a batch of ``packed``."""
        dim, clips, longest = self._sizes
        lengths = [dim, clips * dim, longest * dim, longest]
        values = frames.flatten(1)[:, : 4 * sum(lengths)].contiguous().view(torch.float32)
        pooled, flat, tokens, mask = torch.split(values, lengths, dim=1)
        clip_rows = flat.reshape(-1, clips, dim) if clips else None
        return Encoded(tokens.reshape(-1, longest, dim), mask > 0, pooled, clip_rows)


def use_features(plan: RunPlan, task: Task, origin: Origin) -> list[str]:
    """Let ``input_attributes.features``, if given, stand in for the task's vision encoder; returns notes.

    They must be its own: those of the weights that it has, or will have from ``origin``. Raises ``ConfigError``, and
    ``DataError`` where there are none.
    """
    if plan.config.input_attributes.features is None:
        return []
    folder = Path(plan.config.input_attributes.features).expanduser()
    stored, vision = StoredFeatures(folder), cast(Any, task).vision
    weights = origin.checkpoint.model if origin.checkpoint and origin.exact else task.state_dict()
    fault = None
    if any(parameter.requires_grad for parameter in vision.parameters()):
        fault = "stand in for a frozen encoder only: add vision.* to training_parameters.freeze"
    elif task.followers:
        fault = f"cannot stand in for {', '.join(task.followers)}, which needs the videos themselves"
    elif stored.model != fingerprint(plan, weights):
        fault = (
            f"{folder} are those of another encoder, or of one that sees files otherwise (weights, reader, sampler, "
            "eval_transform); write them anew from the checkpoint that this run starts from"
        )
    if fault is not None:
        path = ("input_attributes", "features")
        raise ConfigError(Problem(".".join(path), plan.layers.where(path), fault))
    vision.forward = stored.unpack
    return [f"vision: features from {folder}, nothing is decoded"]
