"""What the parts promise each other: dataclasses for what flows, Protocols for what is accepted.

Shape letters, everywhere: B videos, C clips of F frames, N texts, L tokens, D = an encoder's ``dim``, V = vocabulary,
T = frames of one video, H and W = pixels. Masks are bool and True where real.
This module imports no torch, so that the command line can read a component's signature without it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, runtime_checkable

from antmmf.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from antmmf.batch import Batch

Json = Any  # what json.dumps takes; the one place where an untyped value may travel


# --- data -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Segment:
    """One line of a transcript; ``start`` and ``end`` in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One (media, start, end) with ALL its texts; for question answering, one question.

    ``key`` is unique within its data set and stable over time (never a row number). ``media`` is a file's path.
    ``start``/``end`` are seconds, None for the whole file. ``negatives`` are texts known to be false for this media:
    they join a training batch as texts that nobody owns, and an evaluation as the wrong choices.
    """

    key: str
    media: str
    start: float | None = None
    end: float | None = None
    texts: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    transcript: tuple[Segment, ...] = ()
    question: str | None = None
    answer: str | None = None
    options: tuple[str, ...] = ()
    language: str = "en"
    extras: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """A record after decoding: ``frames`` (C, F, 3, H, W) uint8 and the texts that were drawn.

    ``id`` is the 64-bit hash of data set name and key (signed, so that it fits a tensor). ``seed`` is what a collator
    draws from, other in every epoch: f(the run's seed, epoch, id); None in evaluation, where nothing is drawn.
    """

    id: int
    record: Record
    frames: Tensor
    texts: tuple[str, ...]
    seed: int | None = None


@runtime_checkable
class Dataset(Protocol):
    """A generator of records; indexing, order, decoding, augmentation and quarantine are the core's.

    Optional: ``blocks() -> Iterable[int]``, how many consecutive records lie together (in one shard), in their order;
    ``prepare() -> None`` makes what ``records`` reads (called once, by one process, before ``sources``), and
    ``draw(record, rng) -> Record``, pure, runs in the worker in training only (default: one of the texts).
    """

    def sources(self) -> Sequence[Path]:
        """Files that ``records`` reads: the index is rebuilt when their size or time changes."""
        ...

    def records(self) -> Iterator[Record]:
        """Yield every record of the split, in a stable order; raise ``DataError`` with file:line on a broken one."""
        ...


@dataclass(frozen=True, slots=True)
class Source(os.PathLike[str]):
    """The bytes that a reader decodes: a file or folder at ``path``; or ``size`` bytes of it from ``offset`` on, as a
    member of a shard; or ``content``, where they are in no file. It is shown as ``name``, by default the path.

    A reader that only knows files may use it as a path; that raises ``DataError`` for what is no file of its own.
    """

    path: Path
    name: str = ""
    offset: int = 0
    size: int | None = None
    content: bytes | None = None

    def __str__(self) -> str:
        return self.name or str(self.path)

    def __fspath__(self) -> str:
        if self.is_file:
            return str(self.path)
        raise DataError(f"{self}: this reader needs a file of its own, not a part of one", reason="unsupported")

    @property
    def is_file(self) -> bool:
        """Whether it is all of ``path``."""
        return self.size is None and self.content is None

    @property
    def suffix(self) -> str:
        """The ending of its name in lower case, such as ``.mp4``."""
        return Path(str(self)).suffix.lower()

    def open(self) -> BinaryIO:
        """Its bytes, from the first; a part of a file is read into memory whole. Raises ``OSError``."""
        if self.content is not None:
            return io.BytesIO(self.content)
        if self.size is None:
            return self.path.open("rb")
        file = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # in a third of the time of a Python file
        try:
            os.lseek(file, self.offset, os.SEEK_SET)
            content = os.read(file, self.size)
        finally:
            os.close(file)
        if len(content) != self.size:
            raise DataError(f"{self}: only {len(content)} of its {self.size} bytes are there", reason="truncated")
        return io.BytesIO(content)


@dataclass(frozen=True, slots=True)
class Clip:
    """What a reader returns: ``frames`` (T, H, W, 3) uint8 RGB, upright, in the order that was picked."""

    frames: np.ndarray
    num_total: int


Pick = Callable[["np.ndarray"], "np.ndarray"]
"""Presentation times in seconds (T,) float64 -> indices (K,) int64 into them; may repeat, need not be sorted."""


@runtime_checkable
class FrameReader(Protocol):
    """Decodes the picked frames of one file and no more; raises ``DataError`` with the reason when it cannot.

    It works in a process of its own (``input_attributes.read_timeout``), which may be killed at any time. Optional:
    ``facts(source) -> Mapping[str, Json]``, what the file says of itself (container, codec, ...), without decoding; and
    an attribute ``empty``, which makes the array of bytes for the frames (``np.empty`` if nobody sets another);
    ``around(wrap) -> FrameReader``, for a reader that has another one inside and needs protection only there: the same
    reader with ``wrap(inner)`` in the place of the inner one; and a class method ``probe() -> str``, the versions of
    what it decodes with, which raises ``PluginError`` where that cannot be used: for ``antmmf doctor`` and the lock.
    """

    def read(self, source: Source, pick: Pick) -> Clip: ...


@runtime_checkable
class Sampler(Protocol):
    """Chooses frames: times (T,) in seconds -> indices (C, F); a pure function, ``rng`` is None in evaluation."""

    def __call__(self, times: np.ndarray, rng: np.random.Generator | None) -> np.ndarray: ...


@runtime_checkable
class Transform(Protocol):
    """Changes pixels, alike in all frames: (T, 3, H, W) uint8 -> (T, 3, h, w) uint8; ``rng`` is None in evaluation."""

    def __call__(self, frames: Tensor, rng: np.random.Generator | None) -> Tensor: ...


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Encoded:
    """What every encoder returns; R is B for videos and N for texts.

    ``tokens`` (R, L, D), ``mask`` (R, L) True where real, ``pooled`` (R, D), ``clips`` (R, C, D) for videos,
    ``attention`` (R, L) the attention each token received, where an encoder offers it.
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor
    clips: Tensor | None = None
    attention: Tensor | None = None


@runtime_checkable
class VisionEncoder(Protocol):
    """Encodes ``frames`` (B, C, F, 3, H, W) uint8 whose real ``sizes`` are (B, 2); normalises on the device."""

    dim: int
    image_size: int | None
    masks_padding: bool

    def __call__(self, frames: Tensor, sizes: Tensor) -> Encoded: ...

    def blocks(self) -> Sequence[nn.Module]:
        """The repeated blocks, for sharding and activation checkpointing."""
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """Turns texts into ids; picklable, so that it runs in the loader's workers.

    Optional: ``window(text, seed) -> list[int]``, as a call with one text, but of a text that is too long the ids of a
    window at a place drawn from ``seed``; it is called in training where the attribute ``random_window`` is True. And
    ``significant(texts) -> list[int]``, the ids of the words that say most of what ``texts`` show, best first.
    """

    pad_id: int
    mask_id: int
    special_ids: frozenset[int]

    def __len__(self) -> int: ...

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text with its special tokens, cut to the maximum length, not padded."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Turns ``tokens`` (N, L) int64 with ``mask`` (N, L) into ``Encoded``."""

    dim: int
    tokenizer: Tokenizer

    def __call__(self, tokens: Tensor, mask: Tensor) -> Encoded: ...

    def blocks(self) -> Sequence[nn.Module]: ...


@runtime_checkable
class FusionEncoder(Protocol):
    """Reads a text together with a video, text first; ``vocabulary`` (V, D) is the word table, for tied heads."""

    dim: int

    @property
    def vocabulary(self) -> Tensor: ...

    def fuse(self, tokens: Tensor, mask: Tensor, video: Encoded) -> Encoded:
        """Row i of ``tokens`` (N, L) with row i of ``video`` (N, K, D); returns N rows of L + K tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Term:
    """One part of the loss: ``weight * sum / count``, where sums and counts are added over micro-batches and ranks.

    With ``weight`` 0 it is a figure to watch: ``sum / count`` is logged, and is no part of the loss.
    """

    sum: Tensor
    count: Tensor | float
    weight: float = 1.0


class ContrastiveLoss(Protocol):
    """Pulls a video to its texts; ``video`` (B, D), ``text`` (N, D) of unit length, ``owner`` (N,), -1: nobody's."""

    def __call__(self, video: Tensor, text: Tensor, owner: Tensor) -> Term: ...


class Collator(Protocol):
    """Samples to one batch; picklable and without weights, because it runs in the loader's workers."""

    def __call__(self, samples: Sequence[Sample]) -> Batch: ...


@runtime_checkable
class Metric(Protocol):
    """Reads the rows of a whole split and returns named figures; each sample counts once.

    Optional: ``names(rows: Collection[str] | None) -> list[str]``, the figures it can return of a task's ``row_names``
    (None: of any task's), so that ``antmmf check`` knows ``monitored_metric``; raises ``ComponentError`` where it needs
    other rows;
    ``cases() -> list[antmmf.cases.Cases]``, asked after ``compute``: what its figures are means of.
    """

    def update(self, rows: Mapping[str, Tensor]) -> None: ...

    def compute(self) -> dict[str, Figure]: ...

    def reset(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value with its 95 % interval (None where it has none), over ``n`` cases."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


class Optimizer(Protocol):
    """Builds a torch optimizer for parameter groups; torch's own signatures cannot be read as a schema."""

    def __call__(self, groups: list[dict[str, Any]]) -> Any: ...


class Schedule(Protocol):
    """Factor on the learning rate at ``step`` (0-based) of ``max_steps``."""

    def __call__(self, step: int, max_steps: int) -> float: ...


class Assets(Protocol):
    """Things made from training data that a model cannot do without: a vocabulary, an answer list.

    They are saved in every checkpoint; a model that is loaded gets the saved ones and never reads training data.
    """

    def get(self, name: str, make: Callable[[Iterator[str]], Json]) -> Json:
        """The saved asset, else ``make(training texts)``, which is then saved. JSON values only."""
        ...

    def of_answers(self, make: Callable[[Iterator[str]], Json]) -> Json:
        """The same of the asset ``answers``, made from those of the training questions."""
        ...

    def restored(self, name: str) -> bool:
        """Whether a checkpoint brought the asset: then it also brings the weights of the model that it is part of."""
        ...


# --- a run ------------------------------------------------------------------------------------------------------------


@dataclass
class RunState:
    """Everything that moves during a run; all of it is in the checkpoint.

    ``step`` optimizer steps done; ``epoch`` 1-based; ``position`` samples of this epoch already consumed;
    ``best_value``/``best_step`` of the monitored metric; ``bad_samples`` seen so far; ``micro_batches`` of a step,
    where they were found by trying; ``ended`` before the last step, by patience or a plugin.
    """

    step: int = 0
    epoch: int = 1
    position: int = 0
    best_value: float | None = None
    best_step: int | None = None
    bad_samples: int = 0
    micro_batches: int | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is known when a run starts: its ``recipe``, folder, lengths, and the resolved config as plain values."""

    recipe: str
    save_dir: Path
    max_steps: int
    steps_per_epoch: int
    batch_size: int
    device: str
    notes: tuple[str, ...]
    config: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimizer step in floats: total ``loss``, its ``terms`` and what else a task has watched by name, ``lr``,
    ``grad_norm``, ``seconds`` by part, which add up to the step, and the seconds that loader processes spent reading
    and decoding beside it (``decode``).
    """

    loss: float
    terms: Mapping[str, float]
    lr: float
    grad_norm: float | None
    samples: int
    seconds: Mapping[str, float]
    decode: float = 0.0
