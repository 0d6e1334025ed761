"""Significant words: which entries of a vocabulary are the nouns, verbs and adjectives of many texts.

A word counts only where it is an entry of the vocabulary, as it is written or else in lower case; special pieces and
continuations (``##ing``) are no words. Stop words, numbers and single letters never count. Chinese vocabularies hold
characters: a Chinese word counts where it is an entry, and each of its characters that is one and is no stop word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from antmmf_text.stop_words import STOP_WORDS

WordClass = Literal["verb", "noun", "adj"]
CLASSES: tuple[WordClass, ...] = ("verb", "noun", "adj")
Tagger = Callable[[str], Iterable[tuple[str, WordClass | None]]]
"""A text's words that may count, each with its class; None where the tagger knows no classes."""

_LEAST_SHARE = 0.25
_CHARACTER = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
_WORD = rf"[{_CHARACTER}]|[^\W_{_CHARACTER}]+"
_CHINESE = re.compile(f"[{_CHARACTER}]")
_ENTRY = re.compile(r"[^\W_]+")
_ENGLISH = re.compile("[A-Za-z]{2,}")
_WORDS = re.compile(rf"(?:{_WORD})(?=n['’]t\b)|(?:n['’]t|['’](?:s|re|ve|ll|d|m))\b|{_WORD}", re.IGNORECASE)
_TOKENS = re.compile(rf"{_WORDS.pattern}|[^\w\s]|_", re.IGNORECASE)


@dataclass(frozen=True)
class WordTable:
    """How often each of ``pieces`` is a significant word, in the order of ids: in all, and as verb, noun, adjective."""

    pieces: Sequence[str]
    totals: Sequence[int]
    by_class: Mapping[WordClass, Sequence[int]]

    def ranks(self) -> list[int]:
        """How many pieces are more frequent: 0 for the most frequent one, the same for the same count."""
        first: dict[int, int] = {}
        for rank, total in enumerate(sorted(self.totals, reverse=True)):
            first.setdefault(total, rank)
        return [first[total] for total in self.totals]

    def shares(self) -> dict[WordClass, list[float]]:
        """How much of a piece's count each class has; below a quarter it is nothing, and the others sum to 1."""
        shares: dict[WordClass, list[float]] = {name: [0.0] * len(self.pieces) for name in CLASSES}
        for i, total in enumerate(self.totals):
            kept = {name: self.by_class[name][i] for name in CLASSES if self.by_class[name][i] >= _LEAST_SHARE * total}
            for name, count in kept.items():
                shares[name][i] = count / max(sum(kept.values()), 1)
        return shares

    def most_frequent(self, num: int, word_class: WordClass | None = None) -> list[tuple[str, int]]:
        """At most ``num`` pieces with their counts: of all, or as a class that has its share of the piece."""
        counts = self.by_class[word_class] if word_class else self.totals
        share = self.shares()[word_class] if word_class else counts
        found = sorted((-count, i) for i, count in enumerate(counts) if count and share[i])
        return [(self.pieces[i], -count) for count, i in found[:num]]

    def columns(self) -> dict[str, Sequence[object]]:
        """AntMMF's columns, each as long as the vocabulary."""
        counts = {f"{name}_count": self.by_class[name] for name in CLASSES}
        shares = {f"{name}_percentage": share for name, share in self.shares().items()}
        ids = range(len(self.pieces))
        columns = {"id": ids, "name": self.pieces, "total_count": self.totals, **counts, "rank": self.ranks(), **shares}
        return {name: list(column) for name, column in columns.items()}


def count_words(texts: Iterable[str], pieces: Sequence[str], *, tagger: Tagger) -> WordTable:
    """Count on ``pieces`` what ``tagger`` finds in ``texts``."""
    found: Counter[tuple[str, WordClass | None]] = Counter()
    for text in texts:
        found.update(tagger(text))
    ids = {piece: i for i, piece in enumerate(pieces) if _ENTRY.fullmatch(piece)}
    totals = [0] * len(pieces)
    by_class: dict[WordClass, list[int]] = {name: [0] * len(pieces) for name in CLASSES}
    for (word, word_class), count in found.items():
        for i in _entries(word, ids):
            totals[i] += count
            if word_class is not None:
                by_class[word_class][i] += count
    return WordTable(pieces, totals, by_class)


def frequent_words(texts: Iterable[str], pieces: Sequence[str]) -> list[int]:
    """The ids of the pieces that are words of ``texts``, without stop words, the most frequent first; needs no tagger.

    Of equally frequent ones the lower id comes first; what does not occur is left out.
    """
    totals = count_words(texts, pieces, tagger=untagged).totals
    return sorted((i for i, total in enumerate(totals) if total), key=lambda i: (-totals[i], i))


def untagged(text: str) -> list[tuple[str, None]]:
    """Every word of a text, and every Chinese character, without a class."""
    return [(word, None) for word in _WORDS.findall(text)]


def tokens(text: str) -> list[str]:
    """Words, Chinese characters and punctuation in their order; ``it's`` is two, ``don't`` is ``do`` and ``n't``."""
    return _TOKENS.findall(text)


def is_chinese(text: str) -> bool:
    """Whether there is a Chinese character in it."""
    return _CHINESE.search(text) is not None


def word_mates(pieces: Sequence[str], *, lemmas: Callable[[str], Iterable[str]]) -> list[list[str]]:
    """For each piece the English words of the vocabulary that share a lemma with it, itself first; else nothing."""
    own = {i: list(lemmas(piece)) for i, piece in enumerate(pieces) if _ENGLISH.fullmatch(piece)}
    sharing: dict[str, list[int]] = {}
    for i, names in own.items():
        for name in names:
            sharing.setdefault(name, []).append(i)
    mates: list[list[str]] = [[] for _ in pieces]
    for i, names in own.items():
        others = {other for name in names for other in sharing[name]} - {i}
        if others:
            mates[i] = [pieces[i], *(pieces[other] for other in sorted(others))]
    return mates


def lemma_by_suffix(word: str, *, known: Container[str]) -> str:
    """The word of ``known`` that ``word`` is made of by s, es, ed or ing, as it is spelt; else ``word``."""
    return next((stem for stem in _stems(word) if stem in known), word)


def _stems(word: str) -> Iterator[str]:
    """What ``word`` may be made of, the likelier first; three letters or more, with a vowel."""
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= 3 and re.search("[aeiouy]", stem):
            if ending == "ed" and stem.endswith("i"):
                yield f"{stem[:-1]}y"
            yield f"{stem}e"
            yield stem
            if stem[-1] == stem[-2] and len(stem) > 3:
                yield stem[:-1]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        if word.endswith("ies"):
            yield f"{word[:-3]}y"
        yield word[:-1]
        if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
            yield word[:-2]


def _entries(word: str, ids: Mapping[str, int]) -> Iterator[int]:
    """The ids that an occurrence of ``word`` counts for."""
    lower = word.lower()
    characters = _CHINESE.findall(word)
    if lower in STOP_WORDS or word.isdecimal() or (len(word) == 1 and not characters):
        return
    own = ids.get(word, ids.get(lower))
    if own is not None:
        yield own
    if len(word) > 1:
        yield from (ids[one] for one in characters if one in ids and one not in STOP_WORDS)
