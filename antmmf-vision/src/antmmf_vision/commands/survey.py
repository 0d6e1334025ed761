"""What is in a data set, and whether it can be read: every file once, several at a time."""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from statistics import median

from antmmf.contracts import Json, Sample
from antmmf.data.fetch import read_sample
from antmmf.data.index import Index
from antmmf.data.media import SampleReader
from antmmf.data.sources import UnreachableError, patiently, source_of
from antmmf.errors import DataError

_ROUND = 1024  # files handed out at a time


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one file gave: ``frames`` that were decoded, or the ``reason`` why not, with ``message``."""

    file: str
    key: str
    frames: int | None = None
    reason: str | None = None
    message: str | None = None
    facts: Mapping[str, Json] = field(default_factory=dict)


def distinct_files(index: Index) -> Iterator[int]:
    """The first row of every file that the records name."""
    seen: set[str] = set()
    for row, values in enumerate(index.columns("media")):
        if values["media"] not in seen:
            seen.add(values["media"])
            yield row


def survey(readers: Sequence[SampleReader], rows: Iterable[int], *, decode: bool = True) -> Iterator[Outcome]:
    """The outcome of each of ``rows``, in order; as many at a time as there are ``readers``, each used by one thread.

    Without ``decode`` files are opened, but no frame is decoded.
    """
    free: queue.SimpleQueue[SampleReader] = queue.SimpleQueue()
    for reader in readers:
        free.put(reader)

    def look(row: int) -> Outcome:
        reader = free.get()
        try:
            return _decoded(reader, row) if decode else _opened(reader, row)
        finally:
            free.put(reader)

    waiting = iter(rows)
    with ThreadPoolExecutor(len(readers)) as pool:
        while some := list(islice(waiting, _ROUND)):
            yield from pool.map(look, some)


def _decoded(reader: SampleReader, row: int) -> Outcome:
    found = read_sample(reader, row, epoch=0)
    if not isinstance(found, Sample):
        return Outcome(found.media, found.key, reason=found.reason, message=found.message, facts=found.facts)
    media = str(source_of(found.record.media))
    return Outcome(media, found.record.key, found.frames.shape[0] * found.frames.shape[1])


def _opened(reader: SampleReader, row: int) -> Outcome:
    record = reader.index.record(row)
    file = str(source_of(record.media))
    try:
        return Outcome(file, record.key, facts=patiently(lambda: reader.look(record), of=lambda: file))
    except UnreachableError:
        raise
    except DataError as error:
        return Outcome(file, record.key, reason=error.reason, message=str(error).removeprefix(f"{file}: "))
    except FileNotFoundError as error:
        return Outcome(file, record.key, reason="missing", message=str(error.strerror))


def spread(values: Iterable[float | None], *, total: bool = False) -> dict[str, float] | None:
    """Least, middle and most, and the sum of all if ``total``; None of nothing."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    found = {"min": min(known), "median": median(known), "max": max(known)}
    return {**found, "sum": round(sum(known), 3)} if total else found


def statistics(index: Index, outcomes: Iterable[Outcome]) -> dict[str, Json]:
    """Counts and spreads over the records of an index and the facts of its files."""
    every = list(outcomes)
    facts = [outcome.facts for outcome in every if outcome.reason is None]
    texts = [row["texts"] for row in index.columns("texts")]
    return {
        "records": len(index),
        "files": len(every),
        "unreadable": sum(outcome.reason is not None for outcome in every),
        "texts a record": spread([len(own) for own in texts], total=True),
        "characters a text": spread([len(text) for own in texts for text in own]),
        "seconds a file": spread([fact.get("seconds") for fact in facts], total=True),
        "frames a second": spread([fact.get("fps") for fact in facts]),
        "frames from key to key": spread([fact.get("key_distance") for fact in facts]),
        "bytes a file": spread([fact.get("bytes") for fact in facts], total=True),
        "sizes": _most([f"{fact['width']} x {fact['height']}" for fact in facts if "width" in fact]),
        "codecs": _most([str(fact["codec"]) for fact in facts if "codec" in fact]),
        "containers": _most([str(fact["container"]) for fact in facts if "container" in fact]),
    }


def _most(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common(8))
