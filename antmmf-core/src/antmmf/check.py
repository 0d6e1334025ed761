"""What planning alone cannot tell: do the files exist, do the built parts fit together? No weights, no data, no device.

Models are built and run under torch's fake tensors: shapes are computed, memory and arithmetic are not spent.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from antmmf.assets import RunAssets
from antmmf.bind import Plan
from antmmf.checkpoint import find_checkpoint
from antmmf.config.reader import Path_, dotted
from antmmf.contracts import Encoded
from antmmf.device import choose_device
from antmmf.errors import AntmmfError, ComponentError, ConfigError, Problem
from antmmf.evaluate import metrics_faults
from antmmf.freeze import freeze
from antmmf.optim import configured_groups
from antmmf.origin import random_fault
from antmmf.plan import ENCODERS, RunPlan
from antmmf.run_folder import choose_folder
from antmmf.task import Task

T = TypeVar("T")

_FILLS = (torch.ops.aten.zero_, torch.ops.aten.fill_, torch.ops.aten.copy_)
_SOURCE_SIZE = (240, 320)
"""Height and width of the frames that transforms are tried with."""


def check_run(plan: RunPlan, *, files: bool = True) -> list[str]:
    """Check a planned run and return what was seen, a line each; raises ``ConfigError`` with every problem."""
    checker = _Checker(plan)
    checker.check_device()
    checker.check_small_parts()
    if files:
        checker.check_files()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        task = checker.check_models()
    checker.check_metrics(task.row_names if task is not None else None)
    if checker.problems:
        raise ConfigError(checker.problems)
    return checker.seen


class _Checker:
    """Tries one part after the other and collects what is wrong."""

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        is_training = "train" in plan.config.training_parameters.run_type
        self._splits = [split for split in plan.datasets if split != "train" or is_training]
        self.problems: list[Problem] = []
        self.seen: list[str] = []

    def problem(self, path: Path_, message: str, *, where: str = "") -> None:
        self.problems.append(Problem(dotted(path), where or self.plan.layers.where(path), message))

    def attempt(self, part: Plan, work: Callable[[], T], *, failed: str = "cannot be built") -> T | None:
        """The result of ``work``, or None after noting why ``part`` could not do it."""
        try:
            return work()
        except AntmmfError as error:
            place = str(Problem(dotted(part.path), part.where, ""))  # where Plan.build writes it
            self.problem(part.path, str(error).removeprefix(place), where=part.where)
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self.problem(part.path, f"{part.full_name} {failed}: {reason}", where=part.where)
        return None

    def check_device(self) -> None:
        path = ("training_parameters", "device")
        try:
            choose_device(self.plan.config.training_parameters.device, where=self.plan.layers.where(path))
        except ConfigError as error:
            self.problems += error.problems

    def check_small_parts(self) -> None:
        """Build everything that is no model."""
        plan = self.plan
        for part in (plan.inputs["reader"], plan.optimizer, plan.schedule, *plan.callbacks):
            self.attempt(part, part.build)

    def check_metrics(self, rows: Collection[str] | None) -> None:
        """Build the metrics, and see that they fit a task that gives ``rows`` and measure what is monitored."""
        metrics: list[Any] = [self.attempt(part, part.build) for part in self.plan.metrics]
        for key, fault in metrics_faults(metrics, self.plan.config.training_parameters.monitored_metric, rows):
            self.problem(tuple(key.split(".")), fault)

    def check_files(self) -> None:
        """The files of the data sets and the checkpoint to start from must be there, and ``save_dir`` must be free."""
        train = self.plan.config.training_parameters
        if train.resume_file:
            try:
                find_checkpoint(Path(train.resume_file).expanduser(), prefer="latest")
            except AntmmfError as error:
                self.problem(("training_parameters", "resume_file"), str(error))
        try:
            choose_folder(self.plan)
        except ConfigError as error:
            self.problems += error.problems
        for part in (self.plan.datasets[split] for split in self._splits):
            self.attempt(part, lambda part=part: _check_sources(part.build()))  # type: ignore[misc]

    def check_models(self) -> Task | None:
        """Build the encoders and the task, and push one batch through the encoders; returns the task, if it can."""
        plan, sampler = self.plan, self.plan.inputs["sampler"]
        picks = self.attempt(sampler, lambda: _picks(sampler.build()))
        for other in (part for key, part in plan.inputs.items() if key.startswith("sampler.")):
            self.attempt(other, lambda other=other: _picks(other.build()))  # type: ignore[misc]
        sizes = dict(self._frame_sizes())
        with FakeTensorMode(allow_non_fake_inputs=True):
            assets = RunAssets(texts=lambda: iter(["a red circle moves to the left"]), answers=lambda: iter(["red"]))
            parts = {name: plan.encoders[key] for name, key in ENCODERS.items() if key in plan.encoders}
            built: dict[str, Any] = {
                name: self.attempt(part, lambda part=part: part.build(assets=assets))  # type: ignore[misc]
                for name, part in parts.items()
            }
            if None in built.values():
                return None
            with _Drawn() as drawn:
                task = self.attempt(plan.task, lambda: plan.task.build(assets=assets, **built))
            if isinstance(task, Task):
                self._check_random(drawn.names(task))
            video = self._check_vision(parts["vision"], built["vision"], picks, sizes) if "vision" in built else None
            if "text" in built:
                self._check_text(parts, built, video)
        if isinstance(task, Task):
            self._check_parameters(task)
            count = sum(parameter.numel() for parameter in task.parameters())
            made = ", without what is made from training texts" if assets.values() else ""
            self.seen.append(f"task {plan.task.full_name}: {count / 1e6:.2f} M parameters{made}")
            return task
        if task is not None:
            self.problem(
                plan.task.path, f"{plan.task.full_name} must be a subclass of antmmf.Task", where=plan.task.where
            )
        return None

    def _check_random(self, names: list[str]) -> None:
        """Encoders without weights are the plan's affair; ``names`` are what the task adds to them at random."""
        train = self.plan.config.training_parameters
        if names and not train.resume_file and "train" not in train.run_type.split("+"):
            self.problems.append(random_fault(self.plan, names))

    def _check_parameters(self, task: Task) -> None:
        """What the config says of parameters by name must fit some."""
        train = self.plan.config.training_parameters
        for part in (lambda: freeze(task, train.freeze), lambda: configured_groups(task, train)):
            try:
                part()
            except ConfigError as error:
                key, _, reason = str(error).partition(": ")
                self.problem(tuple(key.split(".")), reason)

    def _frame_sizes(self) -> Iterator[tuple[str, tuple[int, int] | None]]:
        """(transform, height and width of the frames that it gives); None where frames come as they are."""
        frames = torch.zeros(2, 3, *_SOURCE_SIZE, dtype=torch.uint8)
        used = {"train_transform": "train" in self._splits, "eval_transform": self._splits != ["train"]}
        for name in (name for name, is_used in used.items() if is_used):
            rng = np.random.default_rng(0) if name == "train_transform" else None
            part = self.plan.inputs.get(name)
            if part is None:
                yield name, None
                continue
            moved = self.attempt(part, lambda part=part, rng=rng: part.build()(frames, rng))  # type: ignore[misc]
            if moved is not None:
                yield name, (moved.shape[-2], moved.shape[-1])

    def _check_vision(
        self, part: Plan, vision: Any, picks: tuple[int, int] | None, sizes: dict[str, tuple[int, int] | None]
    ) -> Encoded | None:
        """Run the vision encoder on frames as each transform gives them; returns the last result."""
        wanted: int | None = vision.image_size
        done: dict[tuple[int, int], Encoded | None] = {}
        for name, size in sizes.items():
            if size is None:
                size = (wanted, wanted) if wanted else _SOURCE_SIZE
            elif wanted and not (size == (wanted, wanted) or (vision.masks_padding and max(size) <= wanted)):
                given = f"{size[0]} x {size[1]}"
                message = f"must give {wanted} x {wanted} pixels, as {part.full_name} needs; gives {given}"
                self.problem(("input_attributes", name), message)
                continue
            if size not in done and picks is not None:
                shape = f"{picks[0]} clips of {picks[1]} frames of {size[0]} x {size[1]}"
                video = self.attempt(part, lambda s=size: _see(vision, picks, s), failed=f"cannot take {shape}")  # type: ignore[misc]
                done[size] = video
                if video is not None:
                    self.seen.append(f"vision: {shape} -> tokens {tuple(video.tokens.shape[1:])}")
        return next((video for video in done.values() if video is not None), None)

    def _check_text(self, parts: dict[str, Plan], built: dict[str, Any], video: Encoded | None) -> None:
        """Run the text encoder on the longest text that its tokenizer gives, and the fusion encoder after it."""
        text, fusion = built["text"], built.get("fusion")
        tokens = self.attempt(parts["text"], lambda: _tokens(text.tokenizer), failed="has a tokenizer that fails")
        if tokens is None:
            return
        length = tokens.shape[1]
        self.attempt(parts["text"], lambda: _read(text, tokens), failed=f"cannot take {length} tokens")
        self.seen.append(f"text: {length} tokens at most, dim {text.dim}")
        if video is None:
            return
        if fusion is not None:
            failed = f"cannot fuse video tokens of size {video.tokens.shape[-1]} with {length} text tokens"
            self.attempt(parts["fusion"], lambda: _fuse(fusion, tokens, len(text.tokenizer), video), failed=failed)
        elif hasattr(text, "fuse") and video.tokens.shape[-1] == text.dim:
            self.attempt(parts["text"], lambda: _fuse(text, tokens, len(text.tokenizer), video), failed="cannot fuse")


class _Drawn(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees which tensors are filled at random while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._storages: dict[int, torch.UntypedStorage] = {}  # held, so that no number comes twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and torch.Tag.nondeterministic_seeded in func.tags:
            storage = found.untyped_storage()
            self._storages[storage._cdata] = storage
        elif isinstance(found, Tensor) and func.overloadpacket in _FILLS:
            self._storages.pop(found.untyped_storage()._cdata, None)
        return found

    def names(self, task: Task) -> list[str]:
        """The tensors of ``task`` that are as they were drawn."""
        tensors = task.state_dict(keep_vars=True).items()
        return [name for name, tensor in tensors if tensor.untyped_storage()._cdata in self._storages]


def _check_sources(dataset: Any) -> None:
    if hasattr(dataset, "prepare"):
        return  # it makes what it reads
    for source in dataset.sources():
        if not Path(source).exists():
            raise ComponentError(f"reads {source}, which does not exist")


def _picks(sampler: Any) -> tuple[int, int]:
    """Clips and frames that a sampler picks from eight seconds of video."""
    picked = sampler(np.arange(64) / 8.0, None)
    if picked.ndim != 2 or picked.dtype.kind != "i":
        raise ComponentError(f"must pick (clips, frames) as integers, picks {picked.shape} {picked.dtype}")
    return picked.shape[0], picked.shape[1]


def _see(vision: Any, picks: tuple[int, int], size: tuple[int, int]) -> Encoded:
    frames = torch.zeros(2, *picks, 3, *size, dtype=torch.uint8)
    video = _encoded(vision(frames, torch.tensor([size] * 2)), rows=2, dim=vision.dim)
    if video.clips is not None and tuple(video.clips.shape) != (2, picks[0], vision.dim):
        raise ComponentError(f"clips must be (2, {picks[0]}, {vision.dim}), is {tuple(video.clips.shape)}")
    return video


def _tokens(tokenizer: Any) -> Tensor:
    """Ids (2, L) of a text that is longer than any model reads."""
    ids = tokenizer(["word " * 4096])[0]
    known = len(tokenizer)
    wrong = [number for number in (*ids, tokenizer.pad_id, tokenizer.mask_id) if not 0 <= number < known]
    if wrong:
        raise ComponentError(f"its tokenizer must give ids from 0 to {known - 1}, gives {wrong[0]}")
    return torch.tensor([ids] * 2)


def _read(text: Any, tokens: Tensor) -> None:
    _encoded(text(tokens, torch.ones_like(tokens, dtype=torch.bool)), rows=2, dim=text.dim)


def _fuse(fusion: Any, tokens: Tensor, num_words: int, video: Encoded) -> None:
    table = tuple(fusion.vocabulary.shape)
    if table[0] < num_words:
        raise ComponentError(f"must know the {num_words} words of the tokenizer, its vocabulary is {table}")
    fused = fusion.fuse(tokens, torch.ones_like(tokens, dtype=torch.bool), video)
    _encoded(fused, rows=2, dim=fusion.dim)


def _encoded(encoded: Any, *, rows: int, dim: int) -> Encoded:
    """``encoded`` if it keeps its contract; raises ``ComponentError``."""
    if not isinstance(encoded, Encoded):
        raise ComponentError(f"must return antmmf.Encoded, returns {type(encoded).__name__}")
    shape = tuple(encoded.tokens.shape[:2])
    if tuple(encoded.pooled.shape) != (rows, dim):
        raise ComponentError(f"pooled must be ({rows}, {dim}) since dim is {dim}, is {tuple(encoded.pooled.shape)}")
    if encoded.mask.dtype != torch.bool or tuple(encoded.mask.shape) != shape:
        given = f"{encoded.mask.dtype} {tuple(encoded.mask.shape)}"
        raise ComponentError(f"mask must be bool and {shape} like tokens, is {given}")
    return encoded
