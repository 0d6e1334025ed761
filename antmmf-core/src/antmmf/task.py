"""A task is the module that is trained: encoders, head and loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Generator, Tensor, nn

from antmmf.batch import Batch
from antmmf.contracts import Collator, Json, Record, Term
from antmmf.distributed.world import World
from antmmf.errors import ComponentError


@dataclass(frozen=True)
class TaskOutput:
    """What a forward pass returns.

    ``terms`` are the parts of the loss by name (training; empty in evaluation). ``rows`` are what metrics read, one
    tensor a name; the rows of all batches of a split are concatenated, so every name has one meaning of its first
    dimension (videos or texts) in the whole split.
    """

    terms: Mapping[str, Term] = field(default_factory=dict)
    rows: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Features:
    """What a contrastive loss compares; the run puts together those of all micro-batches and all ranks.

    ``video`` (B, D), ``text`` (N, D), ``owner`` (N,) row of ``video`` that each text belongs to, -1: nobody's.
    ``extras`` are further tensors of rows. ``terms`` are parts of the loss that need no other rows (masked words);
    they stay on their rank and are added up. ``step`` is the optimizer step, 0-based, which the run fills in.
    """

    video: Tensor
    text: Tensor
    owner: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    terms: Mapping[str, Term] = field(default_factory=dict)
    step: int = 0


@dataclass(frozen=True)
class Share:
    """The texts of the global batch that one process relates to videos.

    ``rows`` (M,) are their numbers; M is the same on every process, so where there are not enough the last text is
    there again, and ``real`` (M,) is False. ``draws`` is a CPU generator that is the same on all processes: f(seed,
    step); what it draws must be for the whole batch.
    """

    rows: Tensor
    real: Tensor
    draws: Generator


class Task(nn.Module, ABC):
    """Base of all tasks. The encoders are called ``vision`` and ``text`` in every task, so that any task's checkpoint
    can start any other. The constructor's keyword parameters are the config schema; ``vision``, ``text``, ``fusion``
    and ``assets`` are filled from ``model_attributes`` and by the run, never from ``params``.
    """

    frozen: tuple[str, ...] = ()
    """Names of submodules that stay in evaluation mode while the rest is trained."""

    followers: tuple[str, ...] = ()
    """Names of submodules that follow others, such as momentum encoders: a checkpoint need not have them."""

    @property
    def row_names(self) -> Collection[str] | None:
        """Names of the rows that evaluation may give in the end; None where they are not known before."""
        return None

    @abstractmethod
    def collator(self, train: bool) -> Collator:
        """A picklable function from samples to a batch; it holds no weights."""

    @abstractmethod
    def forward(self, batch: Batch) -> TaskOutput:
        """Training (``self.training``): the terms of the loss. Evaluation: the rows that metrics read."""

    def evaluate_split(self, rows: Mapping[str, Tensor], world: World) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Called once a split, on every process of ``world``, with the rows of all its batches (on the CPU), for what
        needs the model again (cross encoder). Must return the same rows on all; they may share the work."""
        return rows

    def predictions(
        self,
        rows: Mapping[str, Tensor],  # noqa: ARG002
        record: Callable[[int], Record],  # noqa: ARG002
    ) -> Iterator[Mapping[str, Json]]:
        """For ``run_type: predict``: a line for each prediction, from the rows of a whole split; ``record`` gives the
        record with a sample id. Raises ``ComponentError`` where a task offers none.
        """
        raise ComponentError(f"run_type predict: the task {type(self).__name__} has no predictions; take it out")

    def after_step(self) -> None:
        """Called without gradients after each optimizer step, for weights that follow others (momentum encoders)."""

    def fitting(self, tensors: Mapping[str, Tensor], assets: Mapping[str, Json]) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Those ``tensors`` of another run's checkpoint that mean here what they meant there, where ``assets`` are what
        its model was made from."""
        return tensors

    def after_load(self, taken: Collection[str]) -> None:
        """Called when weights came from another run's checkpoint, with the names of those that were ``taken``."""

    def train(self, mode: bool = True) -> Task:
        """Training mode for everything that is not frozen."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self


class ContrastiveTask(Task):
    """A task whose loss compares rows: in training the run calls ``encode`` on every micro-batch of every rank and
    ``loss`` on what all of them gave, so that accumulation and the number of processes change no negatives.

    Between the two it calls ``relate``, where the task has that, on what all of them gave: for work on pairs of rows
    (a cross encoder) that is too much for every process to do all of. ``relate(features, share)`` returns tensors with
    a row for each text of its ``share``, which become ``extras`` of the features that ``loss`` sees, and terms of the
    share's real rows alone.
    """

    relate: Callable[[Features, Share], tuple[Mapping[str, Tensor], Mapping[str, Term]]] | None = None

    @abstractmethod
    def encode(self, batch: Batch) -> Features:
        """The features of one micro-batch, before anything is compared; no random draw may depend on other rows.

        With accumulation it is computed twice. What it writes must be buffers; weights (momentum encoders) move in
        ``after_step``.
        """

    @abstractmethod
    def loss(self, features: Features) -> Mapping[str, Term]:
        """The terms over all rows of the global batch; every rank computes the same."""


def encoders_of(task: nn.Module) -> list[nn.Module]:
    """The encoders of a task, each once; they offer ``blocks()``, the repeated modules inside."""
    found = (getattr(task, name, None) for name in ("vision", "text", "fusion"))
    return list({id(module): module for module in found if isinstance(module, nn.Module)}.values())
