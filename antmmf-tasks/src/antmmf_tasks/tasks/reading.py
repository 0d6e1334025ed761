"""Pairs of a text and a video, read by a cross encoder: the second level (L2) of retrieval and pre-training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from antmmf.contracts import Encoded, FusionEncoder, TextEncoder, Tokenizer, VisionEncoder
from antmmf.distributed.world import World
from antmmf.recompute import recomputed
from torch import Tensor, nn
from torch.nn.functional import pad

from antmmf_tasks.metrics.rows import as_ids
from antmmf_tasks.tasks.fusing import fusion_of

TEXT, VIDEO = ("tokens", "token_mask"), ("video_tokens", "video_mask")


def longest(tokenizer: Tokenizer) -> int:
    """The most tokens that ``tokenizer`` makes of a text; asked once, for it reads a long one."""
    return len(tokenizer(["word " * 4096])[0])


def readable(tokens: Tensor, mask: Tensor, video: Encoded, *, length: int, pad_id: int) -> dict[str, Tensor]:
    """What ``pair_scores`` needs of texts (N, L) and videos; texts are padded to ``length``, the tokenizer's longest,
    so that those of all batches can stand below each other."""
    more = (0, length - tokens.shape[1])
    parts = pad(tokens, more, value=pad_id), pad(mask, more, value=False), video.tokens, video.mask
    return dict(zip((*TEXT, *VIDEO), parts, strict=True))


def pair_scores(
    task: nn.Module, features: Mapping[str, Tensor], text: Tensor, video: Tensor, *, at_once: int
) -> Tensor:
    """How well text ``text[i]`` fits video ``video[i]`` (P,), by the task's ``fused_pooler`` and ``match_head``.

    ``features`` are those of ``readable``, anywhere; ``at_once`` pairs are on the task's device at a time, and where
    there are more, what is in between is computed again for the gradient.
    """
    device = cast(Tensor, cast(Any, task).match_head.layers[1].weight).device
    length = int(features["token_mask"].any(0).sum())
    found = []
    for start in range(0, len(text), at_once):
        own = slice(start, start + at_once)
        parts = [features[name][text[own]][:, :length] for name in TEXT]
        parts += [features[name][video[own]] for name in VIDEO]
        arguments = [part.to(device) for part in parts]
        if torch.is_grad_enabled() and len(text) > at_once:
            found.append(recomputed(task, _read, task, *arguments, preserve_rng_state=True))
        else:
            found.append(_read(task, *arguments))
    return torch.cat(found)


def _read(task: nn.Module, tokens: Tensor, mask: Tensor, video_tokens: Tensor, video_mask: Tensor) -> Tensor:
    parts = cast(Any, task)
    fusing = fusion_of(
        cast(VisionEncoder, parts.vision), cast(TextEncoder, parts.text), cast("FusionEncoder | None", parts.fusion)
    )
    fused = fusing.fuse(tokens, mask, Encoded(video_tokens, video_mask, video_tokens[:, 0]))
    scores: Tensor = parts.match_head(parts.fused_pooler(fused.pooled))
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def read_split(
    task: nn.Module, rows: Mapping[str, Tensor], world: World, *, rerank: int | None, at_once: int
) -> dict[str, Tensor]:
    """The rows ``pair_*`` (P,) of a whole split, as the metric ``recall`` reads them: text_hash, video_id, score, way.

    Read are all pairs of the different texts and videos, or of each text the ``rerank`` best videos by their vectors
    and of each video the ``rerank`` best texts; ``way`` says which, 1 and 2, or 3 where both. Every process reads a
    share.
    """
    hashes, ids = as_ids(rows["text_hash"]), as_ids(rows["video_id"])
    _, first_text = np.unique(hashes, return_index=True)
    _, first_video = np.unique(ids, return_index=True)
    texts, videos = torch.from_numpy(first_text), torch.from_numpy(first_video)  # by hash and id, for ties of vectors
    text, video, way = _chosen(rows["text"][texts], rows["video"][videos], rerank)
    text, video = texts[text], videos[video]
    each = -(-len(text) // world.size)
    own = torch.arange(world.rank * each, (world.rank + 1) * each).clamp(max=len(text) - 1)
    scores = pair_scores(task, rows, text[own], video[own], at_once=at_once).cpu()
    every = torch.cat(world.collect(scores))[: len(text)]
    return {
        "pair_text_hash": rows["text_hash"][text],
        "pair_video_id": rows["video_id"][video],
        "pair_score": every,
        "pair_way": way,
    }


def _chosen(text: Tensor, video: Tensor, rerank: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of texts and videos of each pair to read, sorted by text, and the way that asks for it."""
    n, b = len(text), len(video)
    if rerank is None or rerank >= max(n, b):
        pairs = torch.arange(n * b)
        return pairs // b, pairs % b, torch.full_like(pairs, 3)
    of_text = _best(text, video, min(rerank, b))  # (N, k)
    of_video = _best(video, text, min(rerank, n))
    one = (torch.arange(n)[:, None] * b + of_text).flatten()
    other = (of_video * b + torch.arange(b)[:, None]).flatten()
    pairs = torch.unique(torch.cat([one, other]))
    way = torch.isin(pairs, one) + 2 * torch.isin(pairs, other)
    return pairs // b, pairs % b, way


def _best(queries: Tensor, candidates: Tensor, k: int) -> Tensor:
    """The ``k`` nearest candidates of each query (Q, k), by dot product."""
    step = max(1, (1 << 22) // max(1, len(candidates)))
    return torch.cat([(part @ candidates.T).topk(k, dim=1).indices for part in torch.split(queries, step)])
