"""Rows -> batches, in this process or in workers: the same batches, bit for bit, for any number of them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from antmmf.batch import Batch
from antmmf.contracts import Collator, Sample
from antmmf.data.keyed import hashed
from antmmf.data.media import SampleReader
from antmmf.data.order import Permutation, Rows
from antmmf.data.quarantine import BadSample, Policy, Quarantine
from antmmf.errors import AntmmfError, DataError
from antmmf.stopping import helpers_deaf

_TRANSIENT = (TimeoutError, ConnectionError)  # the network's fault, not the sample's: tried again, never quarantined
_TRIES = 3
_SUBSTITUTE_TRIES = 8

Request: TypeAlias = tuple[int, Rows]  # epoch and rows of one micro-batch


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
    ``worker_setup`` runs in every worker before anything else is unpickled there.
    """

    def __init__(
        self,
        reader: SampleReader,
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
        worker_setup: Callable[[], None] | None = None,
    ) -> None:
        self._index = reader.index
        self.num_samples = len(reader)
        self.batch_size = batch_size
        self.micro_batches = micro_batches
        self.rank = rank
        self.num_ranks = num_ranks
        self.train = train
        self.seed = seed
        self.quarantine = quarantine if quarantine is not None else Quarantine()
        policy = self.quarantine.policy if train else "skip"
        self._fetch = _Fetch(reader, collate, policy=policy, seed=seed)
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
            _Shipped(self._fetch, worker_setup),
            batch_size=None,  # a request is a whole micro-batch
            sampler=self._requests,
            pin_memory=torch.device(device).type not in ("cpu", "mps"),
            generator=torch.Generator(),  # its own, so that starting a loader draws nothing from the default one
            **workers,
        )

    @property
    def steps_per_epoch(self) -> int:
        """How many steps ``epoch`` gives from the start, on the process that has most."""
        if self.train:
            return max(1, self.num_samples // self.batch_size)
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
        for epoch, rows, samples in self._steps_of(epochs()):
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
        rows = np.flatnonzero(np.isin(self._index.ids, list(ids)))
        return [self._index.record(int(row)).key for row in rows]

    def close(self) -> None:
        """End the workers; the loader cannot be used afterwards."""
        iterator = getattr(self._loader, "_iterator", None)
        if iterator is not None:
            workers = list(getattr(iterator, "_workers", ()))
            iterator._shutdown_workers()  # torch offers no public way to end persistent workers
            self._loader._iterator = None
            for worker in workers:
                if worker.is_alive():  # it hangs in a file and hears no signal
                    worker.kill()

    def _take(self, part: _Fetched | AntmmfError) -> _Fetched:
        if isinstance(part, AntmmfError):
            raise part
        self.quarantine.take(part.bad, num_seen=part.num_read)
        return part

    def _plan(self, epochs: Iterator[tuple[int, int]]) -> Iterator[Request]:
        for epoch, rows, _ in self._steps_of(epochs):
            for part in np.array_split(rows, max(1, self._num_parts(rows))):
                if len(part) > 0:
                    yield epoch, part

    def _num_parts(self, rows: Rows) -> int:
        return min(self.micro_batches, len(rows))

    def _steps_of(self, epochs: Iterator[tuple[int, int]]) -> Iterator[tuple[int, Rows, int]]:
        return ((epoch, *step) for epoch, start in epochs for step in self._steps(epoch, start))

    def _steps(self, epoch: int, start: int) -> Iterator[tuple[Rows, int]]:
        """This process's rows of each step, and the number of samples that the step takes from the epoch."""
        n, size = self.num_samples, self.batch_size
        if not self.train:
            own = self._own(start, n)
            for first in range(0, len(own), size):
                yield own[first : first + size], len(own[first : first + size])
            return
        order = Permutation(n, seed=self.seed, epoch=epoch)
        for first in range(start, n, size):
            if first > 0 and first + size > n:
                return
            yield order(self._own(first, min(first + size, n))), min(size, n - first)

    def _own(self, first: int, last: int) -> Rows:
        """This process's share of the positions from ``first`` to ``last``; the first processes may get one more."""
        each, more = divmod(last - first, self.num_ranks)
        begin = first + self.rank * each + min(self.rank, more)
        return np.arange(begin, begin + each + (self.rank < more))


def _next(fetched: Iterator[_Fetched | AntmmfError]) -> _Fetched | AntmmfError:
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


@dataclass(frozen=True)
class _Fetched:
    batch: Batch | None
    bad: tuple[BadSample, ...]
    num_read: int
    seconds: float

    def pin_memory(self) -> _Fetched:
        return replace(self, batch=None if self.batch is None else self.batch.pin_memory())


class _Requests(Sampler[Request]):
    """Hands the loader the requests of the epoch that was asked for last."""

    def __init__(self) -> None:
        self.given: Iterator[Request] = iter(())

    def __iter__(self) -> Iterator[Request]:
        return self.given


class _Fetch(Dataset[Any]):
    """Reads and collates one micro-batch; errors for the user are returned: raising in a worker mangles them."""

    def __init__(self, reader: SampleReader, collate: Collator, *, policy: Policy, seed: int) -> None:
        self.reader = reader
        self.collate = collate
        self.policy = policy
        self.seed = seed

    def __getitem__(self, request: Request) -> _Fetched | AntmmfError:
        epoch, rows = request
        started = time.perf_counter()
        samples: list[Sample] = []
        bad: list[BadSample] = []
        num_read = 0
        for row in rows.tolist():
            for candidate in self._candidates(row, epoch):
                num_read += 1
                found = self._read(candidate, epoch)
                if isinstance(found, Sample):
                    samples.append(found)
                    break
                bad.append(found)
        try:
            batch = self.collate(samples) if samples else None
            return _Fetched(batch, tuple(bad), num_read, time.perf_counter() - started)
        except AntmmfError as error:
            return error

    def _candidates(self, row: int, epoch: int) -> Iterator[int]:
        """The row itself, then the rows that may take its place: a function of seed, epoch and id only."""
        yield row
        if self.policy == "substitute":
            index = self.reader.index
            for attempt in range(_SUBSTITUTE_TRIES):
                yield hashed(self.seed, epoch, int(index.ids[row]), "substitute", attempt) % len(index)

    def _read(self, row: int, epoch: int) -> Sample | BadSample:
        for attempt in range(_TRIES):
            try:
                return self.reader.read(row, epoch=epoch)
            except MemoryError:
                raise
            except _TRANSIENT as error:
                if attempt == _TRIES - 1:
                    raise
                reason = error
                time.sleep(0.2 * 4**attempt)
            except Exception as error:
                return self._bad(row, error)
        raise AssertionError(reason)

    def _bad(self, row: int, error: Exception) -> BadSample:
        index, record = self.reader.index, self.reader.index.record(row)
        reason = str(error) if isinstance(error, AntmmfError) else f"{type(error).__name__}: {error}"
        reason = reason.removeprefix(f"{record.media}: ")
        return BadSample(int(index.ids[row]), record.key, record.media, self.reader.reader_name, reason)


class _Shipped(Dataset[Any]):
    """A ``_Fetch`` that reaches a worker as bytes, so that ``setup`` can import what unpickling them needs."""

    def __init__(self, fetch: _Fetch, setup: Callable[[], None] | None) -> None:
        self._fetch = fetch
        self._setup = setup

    def __getitem__(self, request: Request) -> _Fetched | AntmmfError:
        return self._fetch[request]

    def __reduce__(self) -> tuple[Callable[..., _Fetch], tuple[Callable[[], None] | None, bytes]]:
        return _open_shipped, (self._setup, pickle.dumps(self._fetch))


def _open_shipped(setup: Callable[[], None] | None, fetch: bytes) -> _Fetch:
    if setup is not None:
        setup()
    opened: _Fetch = pickle.loads(fetch)
    return opened


def _end_with_the_trainer() -> None:
    """Under a fork server torch watches that, not the trainer, and workers outlive a trainer that is killed."""
    trainer = multiprocessing.parent_process()
    if trainer is not None:
        trainer.join()
        os._exit(1)


def _start_worker(_: int) -> None:
    threading.Thread(target=_end_with_the_trainer, daemon=True).start()
    torch.set_num_threads(1)
