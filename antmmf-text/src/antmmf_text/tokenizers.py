"""Texts to ids: any fast tokenizer, and word pieces with a vocabulary of one's own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from antmmf.data.keyed import generator
from antmmf.errors import DataError
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from antmmf_text.significant import frequent_words, is_chinese

PAD, UNKNOWN, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Subwords:
    """The tokenizer that the text of a ``tokenizer.json`` describes.

    Texts of more than ``max_length`` ids, special ones included, lose their end; with ``random_window`` training sees a
    window of them at a drawn place instead.
    """

    def __init__(
        self, described: str, *, max_length: int, pad: str = PAD, mask: str = MASK, random_window: bool = False
    ) -> None:
        self._inner: Tokenizer = Tokenizer.from_str(described)
        self._inner.no_truncation()
        self._inner.no_padding()
        self._inner.encode_special_tokens = True  # a caption that says "[SEP]" has no second end
        found = {name: id for name in (pad, mask) if (id := self._inner.token_to_id(name)) is not None}
        lacking = [name for name in (pad, mask) if name not in found]
        if lacking:
            raise DataError(f"a tokenizer must have the tokens {pad} and {mask}, this one lacks {', '.join(lacking)}")
        self.pad_id, self.mask_id = found[pad], found[mask]
        special = [id for id, token in self._inner.get_added_tokens_decoder().items() if token.special]
        self.special_ids = frozenset([*special, self.pad_id, self.mask_id])
        self.max_length = max_length
        self.random_window = random_window

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._inner.encode_special_tokens = True  # which the inner one does not pickle

    def __len__(self) -> int:
        return int(self._inner.get_vocab_size())

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text; one after the other, because threads do not survive the fork of a loader's worker."""
        return [self._ids(text, None) for text in texts]

    def window(self, text: str, seed: int) -> list[int]:
        """Ids of ``text``, or of a window of it at a place drawn from ``seed``."""
        return self._ids(text, seed)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids`` without special tokens, lower case if the tokenizer is."""
        return str(self._inner.decode([i for i in ids if i not in self.special_ids]))

    def significant(self, texts: Iterable[str]) -> list[int]:
        """The ids of whole words in ``texts`` that are no stop words, the most frequent first."""
        return frequent_words(texts, self._words())

    @property
    def pieces(self) -> list[str]:
        """The vocabulary in the order of its ids."""
        ids = self._inner.get_vocab(with_added_tokens=True)
        return sorted(ids, key=ids.__getitem__)

    def _words(self) -> list[str]:
        """The pieces as words: other models than word pieces mark those that begin one, and the rest are parts."""
        if isinstance(self._inner.model, models.WordPiece):
            return self.pieces
        begins = ("Ġ", "▁")  # of byte pairs, and of sentence pieces
        return [piece[1:] if piece.startswith(begins) else piece if is_chinese(piece) else "" for piece in self.pieces]

    def _ids(self, text: str, seed: int | None) -> list[int]:
        encoding = self._inner.encode(text)
        ids: list[int] = encoding.ids
        too_many = len(ids) - self.max_length
        if too_many <= 0:
            return ids
        added = encoding.special_tokens_mask
        first = added.index(0)
        last = len(ids) - added[::-1].index(0)
        start = first + (int(generator(seed, "window").integers(too_many + 1)) if seed is not None else 0)
        return [*ids[:first], *ids[start : start + (last - first - too_many)], *ids[last:]]


class WordPiece(Subwords):
    """``[CLS] pieces [SEP]`` of each text; Chinese is cut into characters, unknown characters become ``[UNK]``.

    ``pieces`` is the vocabulary in the order of its ids, as ``train_pieces`` makes it or ``vocab.txt`` holds it.
    """

    def __init__(
        self, pieces: Sequence[str], *, max_length: int, lowercase: bool = True, random_window: bool = False
    ) -> None:
        super().__init__(word_piece(pieces, lowercase=lowercase), max_length=max_length, random_window=random_window)


def word_piece(pieces: Sequence[str], *, lowercase: bool = True, strip_accents: bool = False) -> str:
    """The ``tokenizer.json`` of BERT's tokenizer with these ``pieces``; raises ``ValueError`` where one is special and
    not there. BERT's own lower-case vocabularies want ``strip_accents``."""
    missing = [token for token in SPECIAL if token not in pieces]
    if missing:
        raise ValueError(f"a vocabulary must hold {', '.join(SPECIAL)}; this one lacks {', '.join(missing)}")
    ids = {piece: i for i, piece in enumerate(pieces)}
    model = models.WordPiece(ids, unk_token=UNKNOWN)
    tokenizer = _untrained(model, lowercase=lowercase, strip_accents=strip_accents)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", special_tokens=[(CLS, ids[CLS]), (SEP, ids[SEP])]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return str(tokenizer.to_str())


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


def _untrained(model: models.WordPiece, *, lowercase: bool, strip_accents: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
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
