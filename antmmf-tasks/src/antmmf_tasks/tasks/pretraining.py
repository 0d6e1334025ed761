"""Video-text pre-training: the base of SNP-S3 and CNVid."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any, cast

import torch
from antmmf.batch import Batch
from antmmf.contracts import (
    Assets,
    Collator,
    ContrastiveLoss,
    Encoded,
    FusionEncoder,
    Record,
    Term,
    TextEncoder,
    VisionEncoder,
)
from antmmf.contrastive import text_shares
from antmmf.errors import ComponentError
from antmmf.recompute import recomputed
from antmmf.task import ContrastiveTask, Features, Share, TaskOutput
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from antmmf_tasks.losses.mil_nce import bag_similarity, mil_nce
from antmmf_tasks.losses.moco import Moco
from antmmf_tasks.pretraining.collator import MaskingCollator
from antmmf_tasks.pretraining.heads import ClipOrder, MaskedWords, MatchHead, clip_vectors, projections, unit
from antmmf_tasks.pretraining.masking import IGNORED, mask_attended
from antmmf_tasks.pretraining.momentum import MomentumEncoders
from antmmf_tasks.pretraining.pairs import group_videos, in_batch_recall, match_term, wrong_column
from antmmf_tasks.pretraining.settings import Masking, Matching, Weights, WordMatching
from antmmf_tasks.pretraining.words import significant_words
from antmmf_tasks.tasks.fusing import FusedPooler, fusion_of
from antmmf_tasks.tasks.ranking import rankings
from antmmf_tasks.tasks.reading import longest
from antmmf_tasks.tasks.retrieval import ROWS, EvalCollator, text_rows


class Pretraining(ContrastiveTask):
    """Losses on videos and their texts, each with a weight in ``weights``, where 0 leaves it out:

    ``contrast``    L1: videos and texts find each other by their vectors: the component ``contrast``
    ``match``       L2: the cross encoder tells a text's video among those of its group, MIL-NCE over their scores
    ``gvtm``        the cross encoder says whether a text belongs to a video, of its own and of a wrong one
    ``mlm_text``    hidden words are told from the text alone, ``mlm`` from text and video
    ``lvwm``        local vision-word matching: significant words of a text and the clips of a video as bags
    ``clip_order``  where shuffled clips belong (HERO); AntMMF has it, and no recipe of its uses it

    Without ``fusion`` the text encoder fuses (SNP); with it there are three encoders (P3E). A video's vector is the
    mean of those of its clips. Without a table of words the significant ones are the most frequent words of the
    training texts that are no stop words. ``dim`` is the size of the vectors, by default that of the vision encoder.
    Evaluation rows are those of ``retrieval``.
    """

    def __init__(
        self,
        *,
        vision: VisionEncoder,
        text: TextEncoder,
        fusion: FusionEncoder | None = None,
        contrast: ContrastiveLoss | str = "antmmf-tasks:infonce",
        weights: Weights = Weights(),  # noqa: B008  # frozen
        masking: Masking = Masking(),  # noqa: B008
        matching: Matching = Matching(),  # noqa: B008
        lvwm: WordMatching = WordMatching(),  # noqa: B008
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        dim: Annotated[int, Field(gt=0)] | None = None,
        assets: Assets,
    ) -> None:
        super().__init__()
        if isinstance(contrast, str):
            raise ComponentError(f"contrast must be a loss object here, is {contrast!r}; only a config gives its name")
        self.weights: dict[str, float] = weights.model_dump()
        if not any(self.weights.values()):
            raise ComponentError("one of the weights must be above 0, or there is nothing to learn")
        self.vision, self.text, self.fusion, self.contrast = vision, text, fusion, contrast
        self._masking, self._matching, self._word_matching = masking, matching, lvwm
        self._max_length = longest(text.tokenizer)
        hides = any(self.weights[name] for name in ("match", "gvtm", "mlm_text", "mlm"))
        self.words = (
            significant_words(
                text.tokenizer, assets, table=masking.words, mates=masking.mates, top_k=masking.words_top_k
            )
            if (masking.policy == "mssm" and hides) or weights.lvwm
            else None
        )
        self._make_heads(dim or vision.dim, dropout)

    def _make_heads(self, dim: int, dropout: float) -> None:
        vision, text = self.vision, self.text
        self.vision_projection, self.text_projection = projections(vision.dim, text.dim, dim)
        if self.weights["mlm_text"]:
            if not hasattr(text, "vocabulary"):
                raise ComponentError(f"mlm_text needs the word table of {type(text).__name__}, which has none")
            self.text_words = MaskedWords(text.dim, len(text.vocabulary))
        if self._fuses:
            if self._masking.attentive > 0 and not _gives_attention(text):
                raise ComponentError(
                    "masking.attentive above 0 needs a text encoder that gives attention, "
                    f"{type(text).__name__} gives none: set it to 0, or, for bert, "
                    "model_attributes.text_encoder.params.attention to true"
                )
            fusing = fusion_of(vision, text, self.fusion)
            self.fused_pooler = FusedPooler(fusing)
            self.match_head = MatchHead(fusing.dim, dropout=dropout) if self.weights["match"] else None
            self.gvtm_head = nn.Linear(fusing.dim, 2) if self.weights["gvtm"] else None
            self.fused_words = MaskedWords(fusing.dim, len(fusing.vocabulary)) if self.weights["mlm"] else None
            self.clip_order = ClipOrder(fusing.dim, max_clips=16) if self.weights["clip_order"] else None
        if self.weights["lvwm"] and text.dim != dim:
            raise ComponentError(f"lvwm compares words with clips: dim must be the text's {text.dim}, is {dim}")
        if isinstance(self.contrast, Moco) and self.weights["contrast"]:
            self.contrast.build(dim)
            self.keys: MomentumEncoders | None = MomentumEncoders(self)
            self.followers = ("keys",)
        else:
            self.keys = None
        self._new_keys: tuple[Tensor, Tensor] | None = None

    @property
    def _fuses(self) -> bool:
        return any(self.weights[name] for name in ("match", "gvtm", "mlm", "clip_order"))

    @property
    def row_names(self) -> Collection[str]:
        """Those of ``retrieval`` without a cross encoder."""
        return ROWS

    def collator(self, train: bool) -> Collator:
        """Training batches also hold masked copies of the texts, and what else is drawn for each."""
        if not train:
            return EvalCollator(self.text.tokenizer, shuffle_control=False)
        return MaskingCollator(self.text.tokenizer, self.words, self._masking, self._word_matching.num_words)

    def forward(self, batch: Batch) -> TaskOutput:
        """Evaluation: the rows of ``retrieval``. Training goes through ``encode``, ``relate`` and ``loss``."""
        assert not self.training, "a Step calls encode, relate and loss"
        clips = clip_vectors(self.vision_projection, self.vision(batch.frames, batch.sizes))
        vectors = unit(self.text_projection(self.text(batch.tokens, batch.token_mask).pooled))
        features = Features(unit(clips.mean(1)), vectors, batch.owner)
        return TaskOutput(rows={**text_rows(features, batch), "video": features.video, "video_id": batch.ids})

    def predictions(self, rows: Mapping[str, Tensor], record: Callable[[int], Record]) -> Iterator[dict[str, Any]]:
        """The ten best videos for each text, and the ten best texts for each video."""
        return rankings(rows, record)

    # --- one micro-batch ----------------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Features:
        """Vectors of videos, clips and texts; with them, what the cross encoder and the words need of each row."""
        video = self.vision(batch.frames, batch.sizes)
        clips = clip_vectors(self.vision_projection, video)  # (B, C, dim)
        text = self.text(batch.tokens, batch.token_mask)
        extras: dict[str, Tensor] = {"clips": clips}
        terms: dict[str, Term] = {}
        if self.weights["mlm_text"]:
            seen = self.text(batch.extras["masked"], batch.token_mask)
            table: Tensor = self.text.vocabulary  # type: ignore[attr-defined]
            term, right = self.text_words(seen.tokens, batch.extras["labels"], table)
            terms = {"mlm_text": self._weighted("mlm_text", term), "mlm_text/accuracy": right}
        if self._fuses:
            extras |= self._for_fusing(batch, text, video)
        if self.weights["lvwm"]:
            places = batch.extras["word_places"][..., None].expand(-1, -1, text.tokens.shape[2])
            extras["words"] = text.tokens.gather(1, places)  # (N, K, D)
        if self.keys is not None:
            extras["key_clips"], extras["key_text"] = self.keys(batch)
        vectors = unit(self.text_projection(text.pooled))
        return Features(unit(clips.mean(1)), vectors, batch.owner, extras, terms)

    def _for_fusing(self, batch: Batch, text: Encoded, video: Encoded) -> dict[str, Tensor]:
        tokens, labels = batch.extras["masked"], batch.extras["labels"]
        if self._masking.attentive > 0:
            assert text.attention is not None
            hidden = batch.token_mask & batch.extras["is_word"]
            noise, mask_id = batch.extras["noise"], self.text.tokenizer.mask_id
            attended, of_attended = mask_attended(
                batch.tokens, text.attention.detach(), hidden, mask_id=mask_id, share=self._masking.share, noise=noise
            )
            chosen = batch.extras["attentive"][:, None]
            tokens, labels = torch.where(chosen, attended, tokens), torch.where(chosen, of_attended, labels)
        more = (0, self._max_length - tokens.shape[1])  # so that rows of all batches can stand below each other
        return {
            "fused_tokens": pad(tokens, more, value=self.text.tokenizer.pad_id),
            "fused_labels": pad(labels, more, value=IGNORED),
            "text_mask": pad(batch.token_mask, more, value=False),
            "video_tokens": video.tokens,
            "video_mask": video.mask,
        }

    # --- pairs of the global batch ------------------------------------------------------------------------------------

    def relate(self, features: Features, share: Share) -> tuple[Mapping[str, Tensor], Mapping[str, Term]]:
        """The cross encoder on this process's texts, each with the videos it is compared with."""
        if not self._fuses:
            return {}, {}
        owner = features.owner
        size = min(self._matching.group, len(features.video))
        videos, real, is_hard = self.candidates(features, share, size)  # of all texts (N, size)
        draws = torch.rand(len(owner), size, generator=share.draws).to(owner.device)
        order = torch.rand(len(owner), features.extras["clips"].shape[1], generator=share.draws).to(owner.device)
        rows, right = share.rows, owner[share.rows] % size
        videos, real = videos[rows], real[rows]
        near = None
        if self._matching.gvtm == "hard":
            near = (features.text[rows, None] * features.video[videos]).sum(2).detach() / 0.05
        wrong = wrong_column(real, right, draws[rows], near)
        has_wrong = real.scatter(1, right[:, None], False).any(1)
        if not self.weights["match"]:  # then the own pair of each text suffices, and a wrong one for gvtm
            pair = torch.stack([owner[rows], videos.gather(1, wrong[:, None])[:, 0]], dim=1)
            videos = pair if self.weights["gvtm"] else pair[:, :1]
            right, wrong = torch.zeros_like(right), torch.ones_like(wrong)
        facts = {"right": right, "wrong": wrong, "has_wrong": has_wrong & share.real}
        facts |= {"order": order[rows], "real": share.real}
        scores, terms = self._read_together(features, rows, videos, facts, share.real)
        if not self.weights["match"]:
            return {}, terms
        return {"match_scores": scores, "match_videos": videos, "match_real": real, "match_hard": is_hard[rows]}, terms

    def candidates(self, features: Features, share: Share, size: int) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002
        """For each text of the global batch the videos to compare it with (N, size), which of them are real, and (N,)
        whether they were chosen for being hard. The text's own stands at column ``owner % size``."""
        videos, real = group_videos(features.owner, len(features.video), size)
        return videos, real, torch.zeros_like(features.owner, dtype=torch.bool)

    def _read_together(
        self, features: Features, rows: Tensor, videos: Tensor, facts: Mapping[str, Tensor], real: Tensor
    ) -> tuple[Tensor, dict[str, Term]]:
        """Scores (M, W) and terms, some texts at a time; what is in between is computed again for the gradient."""
        extras = features.extras
        length = int(extras["text_mask"].any(0).sum())
        text = {name: extras[name][rows, :length] for name in ("fused_tokens", "fused_labels", "text_mask")}
        text["fused_labels"] = text["fused_labels"].masked_fill(~real[:, None], IGNORED)
        each = max(1, self._matching.at_once // videos.shape[1])
        found = []
        for start in range(0, len(rows), each):
            part = slice(start, start + each)
            own = {name: values[part] for name, values in (*text.items(), *facts.items())}
            arguments = (extras["video_tokens"], extras["video_mask"], videos[part], own)
            if len(rows) <= each:
                found.append(self._fuse_some(*arguments))
            else:
                found.append(recomputed(self, self._fuse_some, *arguments, preserve_rng_state=True))
        scores = torch.cat([part[0] for part in found])
        sums: dict[str, Term] = {}
        for name in found[0][1]:
            parts = [part[1][name] for part in found]
            count = torch.stack([torch.as_tensor(part.count) for part in parts]).sum()
            sums[name] = Term(torch.stack([part.sum for part in parts]).sum(), count, parts[0].weight)
        return scores, sums

    def _fuse_some(
        self, video_tokens: Tensor, video_mask: Tensor, videos: Tensor, own: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Term]]:
        """A few texts (m, L), each with ``videos`` (m, W)."""
        m, width = videos.shape
        fusing = fusion_of(self.vision, self.text, self.fusion)
        tokens, mask = own["fused_tokens"], own["text_mask"]
        chosen = videos.flatten()
        seen = video_tokens[chosen]
        video = Encoded(seen, video_mask[chosen], seen[:, 0])
        fused = fusing.fuse(tokens.repeat_interleave(width, 0), mask.repeat_interleave(width, 0), video)
        pooled = self.fused_pooler(fused.pooled).view(m, width, -1)  # (m, W, D)
        states = fused.tokens.view(m, width, *fused.tokens.shape[1:])
        row = torch.arange(m, device=videos.device)
        terms: dict[str, Term] = {}
        if self.fused_words is not None:
            read = states[row, own["right"], : tokens.shape[1]]
            term, told = self.fused_words(read, own["fused_labels"], fusing.vocabulary)
            terms |= {"mlm": self._weighted("mlm", term), "mlm/accuracy": told}
        if self.gvtm_head is not None:
            both = torch.stack([pooled[row, own["right"]], pooled[row, own["wrong"]]], dim=1)
            terms |= self._gvtm(self.gvtm_head(both), own["has_wrong"])
        if self.clip_order is not None:
            own_video = videos[row, own["right"]]
            terms |= self._order(fusing, own, video_tokens[own_video], video_mask[own_video])
        scores = self.match_head(pooled) if self.match_head is not None else pooled.new_zeros(m, width)
        return scores.to(torch.promote_types(scores.dtype, torch.float32)), terms

    def _gvtm(self, logits: Tensor, counted: Tensor) -> dict[str, Term]:
        """``logits`` (m, 2, 2) of the right and the wrong pair; a text without a wrong one does not count."""
        truth = torch.tensor([1, 0], device=logits.device).expand(len(logits), 2)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="none").view(-1, 2)
        told = (logits.argmax(2) == truth) & counted[:, None]
        term = Term((losses * counted[:, None]).sum(), 2 * counted.sum())
        return {"gvtm": self._weighted("gvtm", term), "gvtm/accuracy": Term(told.sum(), 2 * counted.sum(), 0)}

    def _order(self, fusing: FusionEncoder, own: Mapping[str, Tensor], seen: Tensor, real: Tensor) -> dict[str, Term]:
        """15 % of the clips change places among themselves, and are told where they belong."""
        assert self.clip_order is not None
        draws = own["order"]  # (m, C)
        if seen.shape[1] != draws.shape[1] or seen.shape[1] > self.clip_order.max_clips:
            raise ComponentError(
                f"clip_order needs one token a clip and at most {self.clip_order.max_clips} clips, there are "
                f"{seen.shape[1]} tokens of {draws.shape[1]} clips"
            )
        moved = draws < 0.15
        places = torch.where(moved, draws, torch.inf).argsort(dim=1, stable=True)  # the moved ones first, shuffled
        target = torch.arange(draws.shape[1], device=draws.device).expand_as(draws)
        kept = torch.where(moved, target, target + draws.shape[1]).argsort(dim=1, stable=True)
        source = target.scatter(1, kept, places)  # the others stay
        shuffled = seen.gather(1, source[..., None].expand_as(seen))
        fused = fusing.fuse(own["fused_tokens"], own["text_mask"], Encoded(shuffled, real, shuffled[:, 0]))
        logits = self.clip_order(fused.tokens[:, own["fused_tokens"].shape[1] :])
        counted = moved & own["real"][:, None]
        losses = cross_entropy(logits.flatten(0, 1), source.flatten(), reduction="none").view_as(counted)
        told = Term(((logits.argmax(2) == source) & counted).sum(), counted.sum(), 0)
        term = self._weighted("clip_order", Term((losses * counted).sum(), counted.sum()))
        return {"clip_order": term, "clip_order/accuracy": told}

    # --- the global batch ---------------------------------------------------------------------------------------------

    def loss(self, features: Features) -> Mapping[str, Term]:
        """What compares all videos with all texts."""
        terms: dict[str, Term] = {}
        if self.weights["contrast"]:
            terms["contrast"] = self._weighted("contrast", self._contrast(features))
            near = features.text.detach() @ features.video.detach().T
            terms |= self._watched("contrast", near, features.owner)
        if self.weights["lvwm"]:
            terms |= self._lvwm(features)
        if self.weights["match"]:
            terms |= self._match(features)
        return terms

    def _contrast(self, features: Features) -> Term:
        video = features.extras["clips"] if getattr(self.contrast, "over_clips", False) else features.video
        if not isinstance(self.contrast, Moco):
            return self.contrast(video, features.text, features.owner)
        keys = features.extras["key_clips"], features.extras["key_text"]
        self._new_keys = keys  # they enter the queues after the step, which still reads those for its gradient
        return self.contrast.compare(video, features.text, features.owner, *keys)

    def _lvwm(self, features: Features) -> dict[str, Term]:
        words = features.extras["words"]
        if self._word_matching.temperature is not None:
            words = unit(words)
        scale = 1 / self._word_matching.temperature if self._word_matching.temperature is not None else 1.0
        similarity = bag_similarity(words, features.extras["clips"], scale=scale)
        term = Term(mil_nce(similarity, features.owner).sum(), _num_owners(features))
        watched = self._watched("lvwm", similarity.detach(), features.owner)
        return {"lvwm": self._weighted("lvwm", term), **watched}

    def _match(self, features: Features) -> dict[str, Term]:
        scores = features.extras["match_scores"].detach()
        scores = scores.masked_fill(~features.extras["match_real"], -torch.inf)
        watched = self._watched("match", scores, features.owner % scores.shape[1])
        return {"match": self._weighted("match", match_term(features, self.pair_weights(features))), **watched}

    def pair_weights(self, features: Features) -> Tensor:
        """How much each text (N,) counts in ``match``."""
        return torch.ones_like(features.text[:, 0])

    def _watched(self, name: str, similarity: Tensor, owner: Tensor) -> dict[str, Term]:
        found = in_batch_recall(similarity, owner)
        return {f"{name}/{k}": Term(values.sum(), len(values), 0) for k, values in found.items()}

    def _weighted(self, name: str, term: Term) -> Term:
        return Term(term.sum, term.count, self.weights[name])

    # --- momentum encoders --------------------------------------------------------------------------------------------

    def after_step(self) -> None:
        """The momentum encoders follow, and the keys of this step enter the queues."""
        if isinstance(self.contrast, Moco) and self.keys is not None:
            self.keys.follow(self, self.contrast.momentum)
            if self._new_keys is not None:
                self.contrast.remember(*self._new_keys)
                self._new_keys = None

    def after_load(self, taken: Collection[str]) -> None:
        """Momentum encoders that a checkpoint did not have begin as copies."""
        if self.keys is not None and not any(name.startswith("keys.") for name in taken):
            self.keys.copy(self)


@torch.no_grad()
def _gives_attention(text: TextEncoder) -> bool:
    """Asked of an empty text, without dropout: no draw is taken from what comes after."""
    tokens = torch.tensor(text.tokenizer([""]))
    if tokens.is_meta:  # nothing can be asked there, where parameters are counted
        return True
    module = cast(nn.Module, text)
    training = module.training
    module.eval()
    encoded = text(tokens, torch.ones_like(tokens, dtype=torch.bool))
    module.train(training)
    return encoded.attention is not None


def _num_owners(features: Features) -> Tensor:
    _, num_texts = text_shares(features.owner, len(features.video), features.video.dtype)
    return (num_texts > 0).sum()
