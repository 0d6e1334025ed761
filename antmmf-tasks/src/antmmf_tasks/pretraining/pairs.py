"""Which texts and videos of a batch are read together by the cross encoder, and how much each pair counts.

Groups are of consecutive videos of the GLOBAL batch, so that nothing here depends on the number of processes.
"""

from __future__ import annotations

from typing import Literal

import torch
from antmmf.contracts import Term
from antmmf.contrastive import text_shares
from antmmf.task import Features
from torch import Tensor
from torch.nn.functional import cross_entropy

from antmmf_tasks.losses.mil_nce import mil_nce

Hardest = Literal["nearest", "top_k"]


def group_videos(owner: Tensor, num_videos: int, size: int) -> tuple[Tensor, Tensor]:
    """For each text the ``size`` videos of its group, (N, size), and which of them are real: the last group may be
    smaller. The text's own video stands at column ``owner % size``."""
    size = min(size, num_videos)
    videos = owner[:, None].div(size, rounding_mode="floor") * size + torch.arange(size, device=owner.device)
    return videos.clamp(max=num_videos - 1), videos < num_videos


def hard_videos(similarity: Tensor, owner: Tensor, size: int, how: Hardest) -> Tensor:
    """For each text its own video, at column ``owner % size``, and ``size - 1`` others (N, size) that are hard to tell
    from it, by ``similarity`` (N, B) to all videos of the batch (CNVid-3.5M, section 4.2).

    ``nearest``: those whose similarity is nearest to that of the own video; ``top_k``: the most similar ones.
    """
    n, b = similarity.shape
    size = min(size, b)
    own = similarity.gather(1, owner[:, None])
    hardness = -(similarity - own).abs() if how == "nearest" else similarity
    hardness = hardness.scatter(1, owner[:, None], -torch.inf)
    others = hardness.topk(size - 1, dim=1).indices  # (N, size - 1)
    column = (owner % size)[:, None]
    places = torch.arange(size, device=owner.device).expand(n, -1)
    taken = torch.cat([others, owner[:, None]], dim=1)  # the own video is the last
    source = torch.where(places < column, places, places - 1).masked_fill(places == column, size - 1)
    return taken.gather(1, source)


def wrong_column(columns: Tensor, right: Tensor, draws: Tensor, similarity: Tensor | None = None) -> Tensor:
    """A column of each row (N,) that is real, as ``columns`` (N, G) says, and is not ``right`` (N,): any, or with
    ``similarity`` (N, G) in proportion to its softmax. ``draws`` (N, G) is uniform in (0, 1)."""
    gumbel = -torch.log(-torch.log(draws.clamp(1e-6, 1 - 1e-6)))
    score = gumbel if similarity is None else gumbel + similarity
    allowed = columns.scatter(1, right[:, None], False)
    return score.masked_fill(~allowed, -torch.inf).argmax(1)


def curriculum_rate(step: int, *, change_iter: int, change_rate: float) -> float:
    """The share of steps with hard negatives at optimizer step ``step``: min(floor(t / change_iter) x change_rate, 1)
    (CNVid-3.5M, hard sample curriculum learning)."""
    return min(step // change_iter * change_rate, 1.0)


def easy_weights(positives: Tensor, least: float = 0.2) -> Tensor:
    """How much each pair counts (N,), by the similarity d of its text to its own video: with mean mu and minimum m over
    the batch, max((mu - m) / (d - m), ``least``) where d > mu, else 1: pairs that are easy count less (CNVid-3.5M)."""
    mean, smallest = positives.mean(), positives.min()
    easy = positives > mean
    share = (mean - smallest) / torch.where(easy, positives - smallest, 1)
    return torch.where(easy, share.clamp(min=least), torch.ones_like(positives))


def match_term(features: Features, weights: Tensor | float = 1.0) -> Term:
    """L2: MIL-NCE over the cross encoder's scores of each text with the videos of its group, a mean over videos.

    ``features.extras`` hold of each text ``match_scores`` (N, G) with ``match_videos`` (N, G), which of them are
    ``match_real``, its own at column ``owner % G``, and (N,) whether they were chosen for being hard (``match_hard``):
    such a text is told from them alone, for they are no candidates of other texts. ``weights`` (N,) of the texts.
    """
    extras, owner, b = features.extras, features.owner, len(features.video)
    scores, videos, real = extras["match_scores"], extras["match_videos"], extras["match_real"]
    nothing = torch.finfo(scores.dtype).min / 4
    scores = scores.masked_fill(~real, nothing)
    share, num_texts = text_shares(owner, b, scores.dtype)
    every = scores.new_full((len(owner), b + 1), nothing)
    every = every.scatter(1, torch.where(real, videos, b), scores)[:, :b]  # (N, B)
    in_groups = mil_nce(every, owner)[owner]  # of each text's video
    alone = cross_entropy(scores, owner % scores.shape[1], reduction="none")
    losses = torch.where(extras["match_hard"], alone, in_groups)
    return Term((losses * share * weights).sum(), (num_texts > 0).sum())


def in_batch_recall(similarity: Tensor, owner: Tensor, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, Tensor]:
    """The share of texts (N,) whose own video is among the k most similar of the batch, in percent, for each of ``ks``.

    A text that shares its rank with t others counts by expectation: a model that gives every pair the same similarity
    scores chance.
    """
    own = similarity.gather(1, owner[:, None])
    better = (similarity > own).sum(1)
    equal = (similarity == own).sum(1)  # itself among them
    return {f"R{k}": 100 * ((k - better) / equal).clamp(0, 1) for k in ks}
