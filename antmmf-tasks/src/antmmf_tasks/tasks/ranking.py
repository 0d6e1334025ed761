"""Retrieval's predictions: for every text the videos it finds, and for every video its texts, best first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from antmmf.contracts import Record
from torch import Tensor

from antmmf_tasks.metrics.rows import Ids, as_ids
from antmmf_tasks.metrics.scores import Dots, Reranked, Scores, chunks

NUM_SHOWN = 10


def rankings(rows: Mapping[str, Tensor], record: Callable[[int], Record]) -> Iterator[dict[str, Any]]:
    """``{query, truth, ranked: [{key, score}]}`` for each text, then ``{video, texts, ranked: [{text, key, score}]}``
    for each video; ``rows`` are those of ``Retrieval``, ``record`` gives the record with a sample id.
    """
    keys = [record(id).key for id in rows["video_id"].tolist()]
    owners = rows["text_video_id"].tolist()
    texts, seen = [], Counter[int]()
    for id in owners:  # all texts of a video, in the record's order
        texts.append(record(id).texts[seen[id]])
        seen[id] += 1
    of_text, of_video = scores_of(rows)
    for number, scores, found in best(of_text):
        ranked = [{"key": keys[i], "score": score} for i, score in zip(found, scores, strict=True)]
        yield {"query": texts[number], "truth": record(owners[number]).key, "ranked": ranked}
    for number, scores, found in best(of_video):
        ranked = [
            {"text": texts[i], "key": record(owners[i]).key, "score": score}
            for i, score in zip(found, scores, strict=True)
        ]
        yield {"video": keys[number], "texts": list(record(int(rows["video_id"][number])).texts), "ranked": ranked}


def scores_of(rows: Mapping[str, Tensor]) -> tuple[Scores, Scores]:
    """Of texts with videos and of videos with texts, by the cross encoder where it read them."""
    first = Dots(rows["text"], rows["video"]), Dots(rows["video"], rows["text"])
    if "pair_score" not in rows:
        return first
    video_ids, hashes = as_ids(rows["video_id"]), as_ids(rows["text_hash"])
    order = np.argsort(video_ids)
    of_video = order[np.searchsorted(video_ids, as_ids(rows["pair_video_id"]), sorter=order)]
    text, pair = _copies(hashes, as_ids(rows["pair_text_hash"]))  # a caption that several videos have was read once
    video, way, score = of_video[pair], as_ids(rows["pair_way"])[pair], rows["pair_score"][torch.from_numpy(pair)]
    one, other = way & 1 > 0, way & 2 > 0
    return (
        Reranked(first[0], text[one], video[one], score[torch.from_numpy(one)]),
        Reranked(first[1], video[other], text[other], score[torch.from_numpy(other)]),
    )


def _copies(known: Ids, wanted: Ids) -> tuple[Ids, Ids]:
    """Every place of ``known`` (N,) that holds a value of ``wanted`` (P,), and which of ``wanted`` it is."""
    order = np.argsort(known, kind="stable")
    low, high = (np.searchsorted(known, wanted, side=side, sorter=order) for side in ("left", "right"))
    counts = high - low
    pair = np.repeat(np.arange(len(wanted)), counts)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[low[pair] + within], pair


def best(scores: Scores, num: int = NUM_SHOWN) -> Iterator[tuple[int, list[float], list[int]]]:
    """Each query's number with the scores and numbers of its best candidates."""
    for start, part in chunks(scores):
        highest, found = torch.topk(part, min(num, part.shape[1]), dim=1)
        for row, (values, places) in enumerate(zip(highest.tolist(), found.tolist(), strict=True)):
            yield start + row, values, places
