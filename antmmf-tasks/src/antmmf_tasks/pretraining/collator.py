"""Batches for pre-training: texts, their masked copies, and everything that is drawn for a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from antmmf.batch import Batch
from antmmf.contracts import Sample, Tokenizer
from antmmf.data.keyed import generator, hashed
from antmmf.errors import DataError

from antmmf_tasks.pretraining.masking import IGNORED, mask_any, mask_significant, word_places
from antmmf_tasks.pretraining.settings import Masking
from antmmf_tasks.pretraining.words import Words
from antmmf_tasks.tasks.collate import pad_frames, pad_tokens


@dataclass(frozen=True)
class MaskingCollator:
    """Every draw is a function of the sample's seed, so it depends neither on the batch nor on the process.

    In extras, of each text: ``masked`` and ``labels`` (N, L), ``is_word`` (N, L) where a token is no special one,
    ``word_places`` (N, num_words) for local matching, ``attentive`` (N,) whether the cross encoder shall see a text
    masked by attention, and ``noise`` (N, L) to draw that from. Masked and raw copy are of the same window of the text.
    """

    tokenizer: Tokenizer
    words: Words | None
    masking: Masking
    num_words: int

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        frames, sizes = pad_frames(samples)
        for sample in samples:
            if not sample.texts:
                raise DataError(f"{sample.record.key}: pre-training needs a text for each video, this has none")
        owner = [row for row, sample in enumerate(samples) for _ in sample.texts]
        texts = [(text, hashed(sample.seed or 0, n)) for sample in samples for n, text in enumerate(sample.texts)]
        seeds = [seed for _, seed in texts]
        ids = [self._ids(text, seed) for text, seed in texts]
        tokens, token_mask = pad_tokens(ids, self.tokenizer.pad_id)
        length, special = tokens.shape[1], self.tokenizer.special_ids
        masked, labels, places, noise, attentive = [], [], [], [], []
        for own, seed in zip(ids, seeds, strict=True):
            hidden, wanted = self._masked(own, generator(seed, "mask"))
            masked.append(hidden)
            labels.append(wanted)
            if self.words is not None:
                rng = generator(seed, "word places")
                places.append(word_places(own, words=self.words, special=special, count=self.num_words, rng=rng))
            rng = generator(seed, "attentive")
            attentive.append(bool(rng.random() < self.masking.attentive))
            noise.append(np.pad(rng.random(len(own), dtype=np.float32), (0, length - len(own))))
        extras = {
            "masked": pad_tokens(masked, self.tokenizer.pad_id)[0],
            "labels": pad_tokens(labels, IGNORED)[0],
            "is_word": torch.tensor([[id not in special for id in row] for row in tokens.tolist()], dtype=torch.bool),
            "attentive": torch.tensor(attentive, dtype=torch.bool),
            "noise": torch.from_numpy(np.stack(noise)),
        }
        if self.words is not None:
            extras["word_places"] = torch.tensor(places, dtype=torch.int64)
        return Batch(
            ids=torch.tensor([sample.id for sample in samples], dtype=torch.int64),
            frames=frames,
            sizes=sizes,
            tokens=tokens,
            token_mask=token_mask,
            owner=torch.tensor(owner, dtype=torch.int64),
            extras=extras,
        )

    def _ids(self, text: str, seed: int) -> list[int]:
        if getattr(self.tokenizer, "random_window", False):
            ids: list[int] = self.tokenizer.window(text, seed)  # type: ignore[attr-defined]
            return ids
        return self.tokenizer([text])[0]

    def _masked(self, ids: list[int], rng: np.random.Generator) -> tuple[list[int], list[int]]:
        special, mask_id, share = self.tokenizer.special_ids, self.tokenizer.mask_id, self.masking.share
        if self.masking.policy == "mlm" or self.words is None:
            num = len(self.tokenizer)
            return mask_any(ids, special=special, mask_id=mask_id, num_words=num, share=share, rng=rng)
        return mask_significant(ids, words=self.words, special=special, mask_id=mask_id, share=share, rng=rng)
