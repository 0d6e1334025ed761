"""Row of the index -> sample: draw a text, decode the chosen frames, transform them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from antmmf.contracts import Dataset, FrameReader, Json, Record, Sample, Sampler, Source, Transform
from antmmf.data.index import Index
from antmmf.data.keyed import generator, hashed
from antmmf.data.sources import source_of
from antmmf.errors import ComponentError, DataError


class SampleReader:
    """Reads samples; picklable, so that it works in the loader's workers.

    Every draw is a function of (``seed``, epoch, sample id, what it is for), so a sample is the same whoever reads it
    and whenever. With ``train`` false nothing is drawn: samplers and transforms get no generator, all texts are taken.
    ``dataset`` is needed for its ``draw``, in training.
    In training a sample gets ``num_texts`` of its record's texts; with ``by_caption`` each text is an item of its own,
    else each record.
    """

    def __init__(
        self,
        index: Index,
        *,
        dataset: Dataset | None,
        reader: FrameReader,
        reader_name: str,
        sampler: Sampler,
        transform: Transform | None,
        seed: int,
        train: bool,
        num_texts: int = 1,
        by_caption: bool = False,
        sources: Callable[[str], Source] = source_of,
    ) -> None:
        self.index = index
        self.dataset = dataset
        self.reader = reader
        self.reader_name = reader_name
        self.sampler = sampler
        self.transform = transform
        self.seed = seed
        self.train = train
        self.num_texts = num_texts
        self.by_caption = by_caption
        self.sources = sources

    def __len__(self) -> int:
        return int(self.index.first_texts[-1]) if self.by_caption else len(self.index)

    def part(self, item: int) -> tuple[SampleReader, int]:
        """The reader that has the item, and its number there: this one."""
        return self, item

    def row(self, item: int) -> int:
        """The row of the index that the item is, or is a text of."""
        return int(np.searchsorted(self.index.first_texts, item, side="right")) - 1 if self.by_caption else item

    @property
    def blocks(self) -> npt.NDArray[np.int64]:
        """How many consecutive items lie together, as in ``Index.blocks``."""
        if not self.by_caption:
            return self.index.blocks
        ends = self.index.first_texts[np.cumsum(self.index.blocks)]
        return np.diff(ends, prepend=0)

    def read(self, item: int, *, epoch: int) -> Sample:
        """The sample of an item; raises ``DataError`` when its media cannot be used, and what a transform raises."""
        row = self.row(item)
        record = self.index.record(row)
        id = int(self.index.ids[row])
        if self.by_caption and record.texts:
            text = item - int(self.index.first_texts[row])
            record = replace(record, texts=(record.texts[text],))
            epoch = hashed(epoch, text)  # another caption is another view of the video
        elif self.train:
            record = self._draw(record, self._rng(epoch, id, "text"))
        frames = self._frames(record, epoch, id)  # (C, F, 3, H, W)
        seed = hashed(self.seed, epoch, id) if self.train else None
        return Sample(id=id, record=record, frames=frames, texts=record.texts, seed=seed)

    def _rng(self, epoch: int, id: int, purpose: str) -> np.random.Generator | None:
        return generator(self.seed, epoch, id, purpose) if self.train else None

    def _draw(self, record: Record, rng: np.random.Generator | None) -> Record:
        assert rng is not None
        own = getattr(self.dataset, "draw", None)
        if own is not None:
            drawn: Record = own(record, rng)
            return drawn
        if record.texts and self.num_texts > 1:
            chosen = rng.permutation(len(record.texts))[: self.num_texts]
            return replace(record, texts=tuple(record.texts[int(number)] for number in chosen))
        if record.texts:
            return replace(record, texts=(record.texts[int(rng.integers(len(record.texts)))],))
        if record.transcript:
            segment = record.transcript[int(rng.integers(len(record.transcript)))]
            return replace(record, texts=(segment.text,), start=segment.start, end=segment.end)
        return record

    def _frames(self, record: Record, epoch: int, id: int) -> Tensor:
        packed = getattr(self.reader, "packed", None)
        if packed is not None:  # what an encoder made of them (antmmf.features)
            if record.transcript and self.train:
                raise ComponentError(
                    "input_attributes.features cannot stand in for segments that each epoch draws anew"
                )
            stored: Tensor = packed(id, record.key)
            return stored
        shape: tuple[int, int] = (0, 0)

        def pick(times: np.ndarray) -> np.ndarray:
            nonlocal shape
            inside = _inside(times, record)
            chosen = self.sampler(times[inside], self._rng(epoch, id, "frames"))  # (C, F)
            shape = (chosen.shape[0], chosen.shape[1])
            picked: np.ndarray = inside[chosen].reshape(-1)
            return picked

        clip = self.reader.read(self.sources(record.media), pick)
        if clip.frames.dtype != np.uint8 or clip.frames.shape[0] != shape[0] * shape[1] or clip.frames.ndim != 4:
            raise DataError(
                f"{record.media}: the reader must return ({shape[0] * shape[1]}, H, W, 3) uint8 frames, "
                f"got {clip.frames.shape} {clip.frames.dtype}"
            )
        raw = torch.from_numpy(np.ascontiguousarray(clip.frames))
        frames = raw.permute(0, 3, 1, 2)  # (T, 3, H, W)
        if self.transform is not None:
            frames = self.transform(frames, self._rng(epoch, id, "pixels"))
        if frames.untyped_storage().data_ptr() == raw.untyped_storage().data_ptr():
            frames = frames.clone()  # a reader's process writes the next clip there
        return frames.reshape(*shape, *frames.shape[1:])  # (C, F, 3, h, w), as they lie: the collator copies them

    def look(self, record: Record) -> Mapping[str, Json]:
        """What can be said of a record's file without decoding it: size, time of change, what its reader knows.

        Raises ``DataError`` for a file that cannot be opened, and ``OSError``.
        """
        source = self.sources(record.media)
        own = getattr(self.reader, "facts", None)
        return {**_on_disk(source), **(own(source) if own is not None else {})}

    def facts(self, record: Record) -> Mapping[str, Json]:
        """The same of a bad file, as far as it can be had, with ``unreadable`` saying why not all."""
        try:
            return self.look(record)
        except Exception as error:  # whatever the file does to a reader is no news
            try:
                return {**_on_disk(source_of(record.media)), "unreadable": str(error)}
            except OSError:
                return {"unreadable": str(error)}


def _on_disk(source: Source) -> dict[str, Json]:
    status = source.path.stat()
    return {"bytes": source.size or status.st_size, "changed": round(status.st_mtime, 3)}


def _inside(times: np.ndarray, record: Record) -> np.ndarray:
    """Indices of the frames between the record's start and end; raises ``DataError`` when there are none."""
    keep = np.ones(len(times), dtype=bool)
    if record.start is not None:
        keep &= times >= record.start
    if record.end is not None:
        keep &= times < record.end
    inside = np.flatnonzero(keep)
    if len(inside) > 0:
        return inside
    if record.start is not None and len(times) and times[0] <= record.start <= times[-1]:
        return np.searchsorted(times, [record.start], side="right") - 1  # the frame that is on the screen then
    there = f"{times[0]:.2f} to {times[-1]:.2f} s" if len(times) else "none"
    raise DataError(
        f"{record.media}: must have frames from {record.start} to {record.end} s, has {there}", reason="outside"
    )
