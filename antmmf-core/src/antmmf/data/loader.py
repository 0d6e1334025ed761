"""Rows -> batches, in this process or in workers: the same batches, bit for bit, for any number of them."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
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

_TRANSIENT = (TimeoutError, ConnectionError)  # the network's fault, not the sample's: tried again, never quarantined
_TRIES = 3
_SUBSTITUTE_TRIES = 8

Request: TypeAlias = tuple[int, Rows]  # epoch and rows of one micro-batch


@dataclass(frozen=True)
class LoadedStep:
    """One step's micro-batches that have any rows, and the ``samples`` of the epoch it used up, bad ones included."""

    batches: tuple[Batch, ...]
    samples: int


class Loader:
    """Steps of ``batch_size`` samples, each split into ``micro_batches`` of consecutive rows.

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
        self.train = train
        self.seed = seed
        self.quarantine = quarantine if quarantine is not None else Quarantine()
        policy = self.quarantine.policy if train else "skip"
        fetch = _Fetch(reader, collate, policy=policy, seed=seed)
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
            _Shipped(fetch, worker_setup),
            batch_size=None,  # a request is a whole micro-batch
            sampler=self._requests,
            pin_memory=torch.device(device).type not in ("cpu", "mps"),
            generator=torch.Generator(),  # its own, so that starting a loader draws nothing from the default one
            **workers,
        )

    @property
    def steps_per_epoch(self) -> int:
        """How many steps ``epoch`` gives from the start."""
        if self.train:
            return max(1, self.num_samples // self.batch_size)
        return -(-self.num_samples // self.batch_size)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[LoadedStep]:
        """The steps of ``epoch`` from sample ``start`` on; skipping costs nothing.

        Raises ``DataError`` for a bad sample, as the quarantine's policy says, when its step is reached.
        """
        self._requests.given = self._plan(epoch, start)
        fetched = iter(self._loader)
        for rows in self._steps(epoch, start):
            batches = []
            for _ in range(self._num_parts(rows)):
                part = _next(fetched)
                if isinstance(part, AntmmfError):
                    raise part
                self.quarantine.take(part.bad, num_seen=part.num_read)
                if part.batch is not None:
                    batches.append(part.batch)
            yield LoadedStep(batches=tuple(batches), samples=len(rows))

    def keys(self, ids: Iterable[int]) -> list[str]:
        """The keys of the samples with these ``ids``, in the order of the index."""
        rows = np.flatnonzero(np.isin(self._index.ids, list(ids)))
        return [self._index.record(int(row)).key for row in rows]

    def close(self) -> None:
        """End the workers; the loader cannot be used afterwards."""
        iterator = getattr(self._loader, "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()  # torch offers no public way to end persistent workers
            self._loader._iterator = None

    def _plan(self, epoch: int, start: int) -> Iterator[Request]:
        for rows in self._steps(epoch, start):
            for part in np.array_split(rows, self._num_parts(rows)):
                yield epoch, part

    def _num_parts(self, rows: Rows) -> int:
        return min(self.micro_batches, len(rows))

    def _steps(self, epoch: int, start: int) -> Iterator[Rows]:
        n, size = self.num_samples, self.batch_size
        order = Permutation(n, seed=self.seed, epoch=epoch) if self.train else np.asarray
        for first in range(start, n, size):
            if self.train and first > 0 and first + size > n:
                return
            yield order(np.arange(first, min(first + size, n)))


def _next(fetched: Iterator[_Fetched | AntmmfError]) -> _Fetched | AntmmfError:
    try:
        return next(fetched)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise DataError(
            f"{str(error).splitlines()[0]} It was killed, mostly for want of (shared) memory: lower num_workers or "
            "batch_size, or give the container more shared memory; num_workers 0 shows an error in the reading itself"
        ) from error


@dataclass(frozen=True)
class _Fetched:
    batch: Batch | None
    bad: tuple[BadSample, ...]
    num_read: int

    def pin_memory(self) -> _Fetched:
        return _Fetched(None if self.batch is None else self.batch.pin_memory(), self.bad, self.num_read)


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
            return _Fetched(self.collate(samples) if samples else None, tuple(bad), num_read)
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


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's: it finishes the step, which needs us
    torch.set_num_threads(1)
