"""Retrieval's predictions: for every text the videos it finds, and for every video its texts, best first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from antmmf.contracts import Record
from torch import Tensor

NUM_SHOWN = 10
_CHUNK = 1024  # queries at a time


def rankings(rows: Mapping[str, Tensor], record: Callable[[int], Record]) -> Iterator[dict[str, Any]]:
    """``{query, truth, ranked: [{key, score}]}`` for each text, then ``{video, truth, ranked: [{text, key, score}]}``
    for each video; ``rows`` are those of ``Retrieval``, ``record`` gives the record with a sample id.
    """
    keys = [record(id).key for id in rows["video_id"].tolist()]
    owners = rows["text_video_id"].tolist()
    texts, seen = [], Counter[int]()
    for id in owners:  # all texts of a video, in the record's order
        texts.append(record(id).texts[seen[id]])
        seen[id] += 1
    for number, scores, found in _best(rows["text"], rows["video"]):
        ranked = [{"key": keys[i], "score": score} for i, score in zip(found, scores, strict=True)]
        yield {"query": texts[number], "truth": record(owners[number]).key, "ranked": ranked}
    for number, scores, found in _best(rows["video"], rows["text"]):
        ranked = [
            {"text": texts[i], "key": record(owners[i]).key, "score": score}
            for i, score in zip(found, scores, strict=True)
        ]
        yield {"video": keys[number], "truth": list(record(int(rows["video_id"][number])).texts), "ranked": ranked}


def _best(queries: Tensor, candidates: Tensor) -> Iterator[tuple[int, list[float], list[int]]]:
    """Each query's number with the scores and numbers of its best candidates."""
    for start in range(0, len(queries), _CHUNK):
        scores = queries[start : start + _CHUNK] @ candidates.T
        best, found = torch.topk(scores, min(NUM_SHOWN, scores.shape[1]), dim=1)
        for row, (values, places) in enumerate(zip(best.tolist(), found.tolist(), strict=True)):
            yield start + row, values, places
