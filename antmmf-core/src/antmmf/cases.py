"""What figures are means of: the value of each case of a split, by which two runs can be compared case by case."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from antmmf.data.index import Index

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cases:
    """n queries or questions, and their values by the name of the figure that is their mean.

    ``id`` (n,) are sample ids; ``part`` (n,) tells those of one sample apart, as the hash of a caption does. The values
    are (n,). A name that is no figure's is kept for whoever draws.
    """

    id: Ids
    part: Ids
    values: Mapping[str, npt.NDArray[np.float64]]


def write_cases(cases: Sequence[Cases], index: Index, path: Path) -> None:
    """Write ``path``, Parquet with a row for each figure and case: figure, key and media of the record, part, value."""
    rows = list(index.columns("key", "media"))
    order = np.argsort(index.ids)
    entries = [(part, name) for part in cases for name in part.values]
    names = [name for _, name in entries]
    figure = np.repeat(np.arange(len(names), dtype=np.int32), [len(part.id) for part, _ in entries])
    ids = np.concatenate([part.id for part, _ in entries])
    row = order[np.searchsorted(index.ids, ids, sorter=order)].astype(np.int32)
    table = {"figure": pa.DictionaryArray.from_arrays(figure, names)}
    for name in ("key", "media"):
        table[name] = pa.DictionaryArray.from_arrays(row, pa.array([entry[name] for entry in rows]))
    table["part"] = pa.array(np.concatenate([part.part for part, _ in entries]))
    table["value"] = pa.array(np.concatenate([part.values[name] for part, name in entries]))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".tmp-{path.name}")
    pq.write_table(pa.table(table), beside, compression="zstd")
    os.replace(beside, path)
