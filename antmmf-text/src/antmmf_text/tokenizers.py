"""Texts to word-piece ids, with a vocabulary of one's own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

PAD, UNKNOWN, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class WordPiece:
    """``[CLS] pieces [SEP]`` of each text; Chinese is cut into characters, unknown characters become ``[UNK]``.

    ``pieces`` is the vocabulary in the order of its ids, as ``train_pieces`` makes it. Longer texts are cut to
    ``max_length`` ids, ``[CLS]`` and ``[SEP]`` included.
    """

    def __init__(self, pieces: Sequence[str], *, max_length: int, lowercase: bool = True) -> None:
        missing = [token for token in SPECIAL if token not in pieces]
        if missing:
            raise ValueError(f"a vocabulary must hold {', '.join(SPECIAL)}; this one lacks {', '.join(missing)}")
        ids = {piece: i for i, piece in enumerate(pieces)}
        self.pad_id, self.mask_id = ids[PAD], ids[MASK]
        self.special_ids = frozenset(ids[token] for token in SPECIAL)
        self._inner = _untrained(models.WordPiece(ids, unk_token=UNKNOWN), lowercase=lowercase)
        self._inner.post_processor = processors.TemplateProcessing(
            single=f"{CLS} $A {SEP}", special_tokens=[(CLS, ids[CLS]), (SEP, ids[SEP])]
        )
        self._inner.enable_truncation(max_length)

    def __len__(self) -> int:
        return int(self._inner.get_vocab_size())

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text; one after the other, because threads do not survive the fork of a loader's worker."""
        return [self._inner.encode(text).ids for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids`` without special tokens, lower case if the tokenizer is."""
        return str(self._inner.decode([i for i in ids if i not in self.special_ids]))


def train_pieces(texts: Iterable[str], *, vocab_size: int, lowercase: bool = True) -> list[str]:
    """The vocabulary of ``texts`` in the order of its ids; the same texts in any order give the same list.

    It holds every character of ``texts``, even when these alone are more than ``vocab_size``.
    """
    known = list(texts)
    # The trainer numbers characters in the order of a randomly seeded hash map, and merges by number: two runs differ.
    # So a first training finds the characters alone, and they enter the second one in an order of ours.
    found = _train(known, vocab_size=0, first=SPECIAL, lowercase=lowercase)
    characters = sorted(piece for piece in found if piece not in SPECIAL)
    return _train(known, vocab_size=vocab_size, first=(*SPECIAL, *characters), lowercase=lowercase)


def _train(texts: Sequence[str], *, vocab_size: int, first: Sequence[str], lowercase: bool) -> list[str]:
    """Pieces in the order of their ids, which begin with ``first``."""
    tokenizer = _untrained(models.WordPiece(unk_token=UNKNOWN), lowercase=lowercase)
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=list(first), show_progress=False)
    with _one_thread():
        tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)


def _untrained(model: models.WordPiece, *, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep the library from starting threads: it warns in every process that is forked later, and may hang there."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
