"""One micro-batch, in a loader's worker: read its samples, try again what may pass, note what is bad, collate."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch.utils.data import Dataset

from antmmf.batch import Batch
from antmmf.contracts import Collator, Sample
from antmmf.data.keyed import hashed
from antmmf.data.media import SampleReader
from antmmf.data.mixing import Mixed
from antmmf.data.order import Rows
from antmmf.data.quarantine import BadSample, Policy
from antmmf.data.sources import UnreachableError, patiently, source_of
from antmmf.errors import AntmmfError, DataError, PluginError

_SUBSTITUTE_TRIES = 8

Request: TypeAlias = tuple[int, Rows]  # epoch and items of one micro-batch


@dataclass(frozen=True)
class Fetched:
    """``batch`` of the samples that could be read, None without any; ``bad`` ones; how many files were tried
    (``num_read``) and the ``seconds`` that it took."""

    batch: Batch | None
    bad: tuple[BadSample, ...]
    num_read: int
    seconds: float

    def pin_memory(self) -> Fetched:
        """The same in page-locked memory; the loader calls it."""
        return replace(self, batch=None if self.batch is None else self.batch.pin_memory())


class Fetch(Dataset[Any]):
    """Reads and collates one micro-batch; errors for the user are returned: raising in a worker mangles them."""

    def __init__(self, reader: SampleReader | Mixed, collate: Collator, *, policy: Policy, seed: int) -> None:
        self.reader = reader
        self.collate = collate
        self.policy = policy
        self.seed = seed

    def __getitem__(self, request: Request) -> Fetched | AntmmfError:
        epoch, items = request
        started = time.perf_counter()
        samples: list[Sample] = []
        bad: list[BadSample] = []
        num_read = 0
        try:
            for item in items.tolist():
                reader, own = self.reader.part(item)
                for candidate in self._candidates(reader, own, epoch):
                    num_read += 1
                    found = read_sample(reader, candidate, epoch=epoch)
                    if isinstance(found, Sample):
                        samples.append(found)
                        break
                    bad.append(found)
            batch = self.collate(samples) if samples else None
            return Fetched(batch, tuple(bad), num_read, time.perf_counter() - started)
        except AntmmfError as error:
            return error

    def _candidates(self, reader: SampleReader, item: int, epoch: int) -> Iterator[int]:
        """The item itself, then those that may take its place: a function of seed, epoch and id only."""
        yield item
        if self.policy == "substitute":
            id = int(reader.index.ids[reader.row(item)])
            for attempt in range(_SUBSTITUTE_TRIES):
                yield hashed(self.seed, epoch, id, "substitute", attempt) % len(reader)


def read_sample(reader: SampleReader, item: int, *, epoch: int) -> Sample | BadSample:
    """The sample of ``item``, or what is wrong with it. Raises ``UnreachableError`` for what is no fault of it and does
    not pass, and ``PluginError`` where the reader cannot be used at all."""
    try:
        return patiently(lambda: reader.read(item, epoch=epoch), of=lambda: reader.index.record(reader.row(item)).media)
    except (MemoryError, PluginError, UnreachableError):
        raise
    except Exception as error:
        return _bad(reader, reader.row(item), error)


def _bad(reader: SampleReader, row: int, error: Exception) -> BadSample:
    record = reader.index.record(row)
    media = str(source_of(record.media))
    said = str(error) if isinstance(error, AntmmfError) else f"{type(error).__name__}: {error}"
    return BadSample(
        id=int(reader.index.ids[row]),
        key=record.key,
        media=media,
        reader=reader.reader_name,
        reason=error.reason if isinstance(error, DataError) else "defect",
        message=said.removeprefix(f"{media}: "),
        facts=reader.facts(record),
    )


class Shipped(Dataset[Any]):
    """A ``Fetch`` that reaches a worker as bytes, so that ``setup`` can import what unpickling them needs."""

    def __init__(self, fetch: Fetch, setup: Callable[[], None] | None) -> None:
        self._fetch = fetch
        self._setup = setup

    def __getitem__(self, request: Request) -> Fetched | AntmmfError:
        return self._fetch[request]

    def __reduce__(self) -> tuple[Callable[..., Fetch], tuple[Callable[[], None] | None, bytes]]:
        return _open_shipped, (self._setup, pickle.dumps(self._fetch))


def _open_shipped(setup: Callable[[], None] | None, fetch: bytes) -> Fetch:
    if setup is not None:
        setup()
    opened: Fetch = pickle.loads(fetch)
    return opened
