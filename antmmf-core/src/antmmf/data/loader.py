"""Rows -> batches, in this process or in workers: the same batches, bit for bit, for any number of them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from antmmf.batch import Batch
from antmmf.contracts import Collator
from antmmf.data.fetch import Fetch, Fetched, Request, Shipped
from antmmf.data.media import SampleReader
from antmmf.data.mixing import Mixed, MixedOrder, Order
from antmmf.data.order import BlockPermutation, Permutation, Rows
from antmmf.data.quarantine import Quarantine
from antmmf.data.sources import file_of
from antmmf.errors import AntmmfError, DataError
from antmmf.stopping import helpers_deaf


@dataclass(frozen=True)
class LoadedStep:
    """This process's micro-batches of one step that have any rows, the ``samples`` of the epoch that the step used up
    (over all processes, bad ones included), and the ``seconds`` that reading took, wherever it was done."""

    batches: tuple[Batch, ...]
    samples: int
    epoch: int
    seconds: float = 0.0


class Loader:
    """Steps of ``batch_size`` samples: process ``rank`` of ``num_ranks`` gets consecutive rows of each, in
    ``micro_batches`` of consecutive rows. In evaluation it gets consecutive rows of the whole split instead.

    Training: a permutation of its own for each epoch and only full steps; the rest of an epoch is left out (others in
    every epoch), and a data set smaller than ``batch_size`` gives one short step. Evaluation: every sample once, in
    the order of the index. ``on_bad_sample: substitute`` replaces in training only; evaluation leaves out.
    ``shuffle: blocks`` keeps to a few blocks of the index at a time, whose files, and those of the next few,
    ``prefetch`` is told. Of several data sets each step reads one (``MixedOrder``), in the shares that ``weights`` say.
    ``worker_setup`` runs in every worker before anything else is unpickled there.
    """

    def __init__(
        self,
        reader: SampleReader | Mixed,
        collate: Collator,
        *,
        batch_size: int,
        train: bool,
        seed: int,
        quarantine: Quarantine | None = None,
        micro_batches: int = 1,
        rank: int = 0,
        num_ranks: int = 1,
        num_workers: int = 0,
        device: torch.device | str = "cpu",
        multiprocessing_context: Literal["forkserver", "spawn"] = "forkserver",
        prefetch_factor: int = 2,
        shuffle: Literal["full", "blocks"] = "full",
        prefetch: Callable[[list[str]], None] | None = None,
        weights: Sequence[float] | None = None,
        worker_setup: Callable[[], None] | None = None,
    ) -> None:
        self.parts = reader.parts if isinstance(reader, Mixed) else [reader]
        self.weights = weights
        self.num_samples = len(reader)
        self.batch_size = batch_size
        self.micro_batches = micro_batches
        self.rank = rank
        self.num_ranks = num_ranks
        self.train = train
        self.seed = seed
        self.shuffle, self._prefetch = shuffle, prefetch
        self._windows: dict[int, tuple[int, int]] = {}  # epoch and window of blocks that each part asked for last
        self.quarantine = quarantine if quarantine is not None else Quarantine()
        policy = self.quarantine.policy if train else "skip"
        self._fetch = Fetch(reader, collate, policy=policy, seed=seed)
        self._requests = _Requests()
        workers: dict[str, Any] = {}
        if num_workers > 0:
            context = multiprocessing.get_context(multiprocessing_context)
            if multiprocessing_context == "forkserver":  # import torch once in the server, not once a worker
                context.set_forkserver_preload([__name__])
            workers = {
                "num_workers": num_workers,
                "multiprocessing_context": context,
                "persistent_workers": train,  # those of an evaluation make room for the next epoch of training
                "prefetch_factor": prefetch_factor,
                "worker_init_fn": _start_worker,
            }
        self._loader = DataLoader(
            Shipped(self._fetch, worker_setup),
            batch_size=None,  # a request is a whole micro-batch
            sampler=self._requests,
            pin_memory=torch.device(device).type not in ("cpu", "mps"),
            generator=torch.Generator(),  # its own, so that starting a loader draws nothing from the default one
            **workers,
        )

    @property
    def micro_batch_size(self) -> int:
        """Samples of the largest micro-batch of any process."""
        return -(-self.batch_size // (self.num_ranks * self.micro_batches)) if self.train else self.batch_size

    @property
    def shares(self) -> list[int]:
        """How many steps of an epoch of training are from each data set."""
        return list(self._mixed_order(1).shares)

    @property
    def steps_per_epoch(self) -> int:
        """How many steps ``epoch`` gives from the start, on the process that has most."""
        if self.train:
            return sum(self.shares)
        return -(-self.num_samples // (self.num_ranks * self.batch_size))

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[LoadedStep]:
        """The steps of ``epoch`` from sample ``start`` on; skipping costs nothing.

        Raises ``DataError`` for a bad sample, as the quarantine's policy says, when its step is reached.
        """
        return self._load(lambda: iter([(epoch, start)]))

    def stream(self, epoch: int, *, start: int = 0) -> Iterator[LoadedStep]:
        """The steps of ``epoch`` and of all that come after it: workers need not wait for an epoch to end."""
        return self._load(lambda: chain([(epoch, start)], ((later, 0) for later in count(epoch + 1))))

    def _load(self, epochs: Callable[[], Iterator[tuple[int, int]]]) -> Iterator[LoadedStep]:
        self._requests.given = self._plan(epochs())
        with helpers_deaf():
            fetched = iter(self._loader)
        for epoch, _, rows, samples in self._steps_of(epochs()):
            batches, seconds = [], 0.0
            for _ in range(self._num_parts(rows)):
                part = self._take(_next(fetched))
                seconds += part.seconds
                if part.batch is not None:
                    batches.append(part.batch)
            yield LoadedStep(tuple(batches), samples, epoch, seconds)

    def any_batch(self) -> Batch:
        """A batch of one good sample, for a process that must take part in a step without a sample of its own.

        Raises ``DataError`` when no sample can be read.
        """
        for row in range(self.num_samples):
            part = self._take(self._fetch[0, np.array([row])])
            if part.batch is not None:
                return part.batch
        raise DataError(f"not one sample could be read: {self.quarantine.summary()}")

    def keys(self, ids: Iterable[int]) -> list[str]:
        """The keys of the samples with these ``ids``, in the order of the index."""
        wanted = list(ids)
        found = ((part.index, np.flatnonzero(np.isin(part.index.ids, wanted))) for part in self.parts)
        return [index.record(int(row)).key for index, rows in found for row in rows]

    def close(self) -> None:
        """End the workers; the loader cannot be used afterwards."""
        for part in self.parts:
            close = getattr(part.sources, "close", None)
            if close is not None:
                close()  # downloads that have not begun would keep the interpreter from ending
        iterator = getattr(self._loader, "_iterator", None)
        if iterator is not None:
            workers = list(getattr(iterator, "_workers", ()))
            iterator._shutdown_workers()  # torch offers no public way to end persistent workers
            self._loader._iterator = None
            for worker in workers:
                if worker.is_alive():  # it hangs in a file and hears no signal
                    worker.kill()

    def _take(self, part: Fetched | AntmmfError) -> Fetched:
        if isinstance(part, AntmmfError):
            raise part
        self.quarantine.take(part.bad, num_seen=part.num_read)
        return part

    def _plan(self, epochs: Iterator[tuple[int, int]]) -> Iterator[Request]:
        for _, own_epoch, items, _ in self._steps_of(epochs, ahead=True):
            for part in np.array_split(items, max(1, self._num_parts(items))):
                if len(part) > 0:
                    yield own_epoch, part

    def _num_parts(self, items: Rows) -> int:
        return min(self.micro_batches, len(items))

    def _steps_of(
        self, epochs: Iterator[tuple[int, int]], *, ahead: bool = False
    ) -> Iterator[tuple[int, int, Rows, int]]:
        return ((epoch, *step) for epoch, start in epochs for step in self._steps(epoch, start, ahead=ahead))

    def _steps(self, epoch: int, start: int, *, ahead: bool) -> Iterator[tuple[int, Rows, int]]:
        """Of each step: the epoch of the data set that it reads, this process's items, and the number of samples that
        it takes from the epoch; ``ahead`` has the files of what comes next fetched."""
        n, size = self.num_samples, self.batch_size
        if not self.train:
            own = self._own(start, n)
            for first in range(0, len(own), size):
                yield epoch, own[first : first + size], len(own[first : first + size])
        elif len(self.parts) > 1:
            mixed = self._mixed_order(epoch)
            for first in range(start // size * size, len(mixed), size):
                positions = self._own(first, first + size)
                source, own_epoch, begin = mixed.step(first)
                inside = begin + positions - first
                self._look_ahead(source, own_epoch, mixed.order_of(source, own_epoch), inside, ahead=ahead)
                yield own_epoch, mixed.items(source, own_epoch, inside), size
        else:
            order = self._order(0, epoch)
            for first in range(start, n, size):
                if first > 0 and first + size > n:
                    return
                positions = self._own(first, min(first + size, n))
                self._look_ahead(0, epoch, order, positions, ahead=ahead)
                yield epoch, order(positions), min(size, n - first)

    def _order(self, part: int, epoch: int) -> Order:
        reader = self.parts[part]
        if self.shuffle == "full":
            return Permutation(len(reader), seed=self.seed, epoch=epoch)
        return BlockPermutation(reader.blocks, seed=self.seed, epoch=epoch)

    def _mixed_order(self, epoch: int) -> MixedOrder:
        return MixedOrder(
            [len(part) for part in self.parts],
            weights=self.weights,
            batch_size=self.batch_size,
            seed=self.seed,
            epoch=epoch,
            order=self._order,
        )

    def _look_ahead(self, part: int, epoch: int, order: Order, positions: Rows, *, ahead: bool) -> None:
        """Have the files of the window of blocks of these positions, and of the one after it, fetched."""
        if not ahead or self._prefetch is None or not isinstance(order, BlockPermutation) or len(positions) == 0:
            return
        window = int(order.window_of(positions[-1:])[0])
        if self._windows.get(part) == (epoch, window):
            return
        self._windows[part] = epoch, window
        following = order.blocks_of(window + 1)
        if len(following) == 0:
            after = self._order(part, epoch + 1)
            assert isinstance(after, BlockPermutation)
            following = after.blocks_of(0)
        index = self.parts[part].index
        starts = np.concatenate([[0], np.cumsum(index.blocks)])
        rows = starts[np.concatenate([order.blocks_of(window), following])]
        self._prefetch([file_of(index.record(int(row)).media) for row in rows])

    def _own(self, first: int, last: int) -> Rows:
        """This process's share of the positions from ``first`` to ``last``; the first processes may get one more."""
        each, more = divmod(last - first, self.num_ranks)
        begin = first + self.rank * each + min(self.rank, more)
        return np.arange(begin, begin + each + (self.rank < more))


def _next(fetched: Iterator[Fetched | AntmmfError]) -> Fetched | AntmmfError:
    try:
        return next(fetched)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise DataError(
            f"{str(error).splitlines()[0].rstrip('. ')}; it was killed, mostly for want of (shared) memory: lower "
            "num_workers or batch_size, or give the container more shared memory; num_workers 0 shows an error "
            "in the reading itself"
        ) from error


class _Requests(Sampler[Request]):
    """Hands the loader the requests of the epoch that was asked for last."""

    def __init__(self) -> None:
        self.given: Iterator[Request] = iter(())

    def __iter__(self) -> Iterator[Request]:
        return self.given


def _end_with_the_trainer() -> None:
    """Under a fork server torch watches that, not the trainer, and workers outlive a trainer that is killed."""
    trainer = multiprocessing.parent_process()
    if trainer is not None:
        trainer.join()
        os._exit(1)


def _start_worker(_: int) -> None:
    threading.Thread(target=_end_with_the_trainer, daemon=True).start()
    torch.set_num_threads(1)
