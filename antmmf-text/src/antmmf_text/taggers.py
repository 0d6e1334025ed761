"""Who knows nouns, verbs and adjectives: HanTa for English, jieba for Chinese, and nobody, which costs nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from typing import Any, Literal, Protocol

from antmmf.errors import PluginError

from antmmf_text.significant import WordClass, is_chinese, lemma_by_suffix, tokens, untagged

Language = Literal["en", "zh"]
TaggerName = Literal["auto", "hanta", "jieba", "frequency"]
Words = tuple[tuple[str, WordClass | None], ...]

_KEPT_TEXTS = 1 << 16
_LIKELY = 5.0  # a class counts for lemmas when its log probability is no further from the likeliest one's


class LanguageTagger(Protocol):
    """Tags the texts of one language."""

    name: str
    version: str

    def __call__(self, text: str) -> Iterable[tuple[str, WordClass | None]]: ...


class HanTa:
    """English, by the Hanover Tagger. Capitals are not heeded: captions are often written Like Titles.

    Proper nouns, numbers and the auxiliaries be, have and do are no nouns and verbs. Raises ``PluginError`` where
    HanTa is not installed.
    """

    name = "hanta"
    _classes: tuple[tuple[str, WordClass], ...] = (("VV", "verb"), ("NN", "noun"), ("AJ", "adj"))

    def __init__(self) -> None:
        package = _optional("HanTa.HanoverTagger", tagger=self.name, extra="en")
        self.version = version("HanTa")
        self._model = package.HanoverTagger("morphmodel_en.pgz")
        self._words = lru_cache(_KEPT_TEXTS)(self._tag)

    def __call__(self, text: str) -> Words:
        return self._words(text)

    def lemmas(self, word: str) -> set[str]:
        """The lemma of each class that ``word`` is likely to be of: ``manned`` is an adjective, and a form of man."""
        tags: list[tuple[str, float]] = self._model.tag_word(word.lower(), casesensitive=False)
        likely = {self._class(tag): tag for tag, chance in reversed(tags) if chance >= tags[0][1] - _LIKELY}
        return {self._model.analyze(word.lower(), pos=tag)[0] for found, tag in likely.items() if found}

    def _tag(self, text: str) -> Words:
        own = tokens(text)
        tags = self._model.tag_sent(own, taglevel=0, casesensitive=False)
        found = ((word, self._class(tag)) for word, tag in zip(own, tags, strict=True))
        return tuple((word, word_class) for word, word_class in found if word_class)

    def _class(self, tag: str) -> WordClass | None:
        return next((word_class for prefix, word_class in self._classes if tag.startswith(prefix)), None)


class Jieba:
    """Chinese, by jieba. Names of people and firms are no nouns; of places they are, since jieba takes 城市 for one.

    Its dictionary is read without the cache file in the common temporary folder, which anybody could have written.
    Raises ``PluginError`` where jieba is not installed.
    """

    name = "jieba"
    _classes: tuple[tuple[str, WordClass | None], ...] = (
        ("nr", None),
        ("nt", None),
        ("v", "verb"),
        ("n", "noun"),
        ("a", "adj"),
        ("b", "adj"),
        ("z", "adj"),
    )

    def __init__(self) -> None:
        package = _optional("jieba.posseg", tagger=self.name, extra="zh")
        self.version = version("jieba")
        words = package.jieba.Tokenizer()
        words.FREQ, words.total = words.gen_pfdict(words.get_dict_file())
        words.initialized = True
        self._model = package.POSTokenizer(words)
        self._words = lru_cache(_KEPT_TEXTS)(self._tag)

    def __call__(self, text: str) -> Words:
        return self._words(text)

    def _tag(self, text: str) -> Words:
        found = ((pair.word, self._class(pair.flag)) for pair in self._model.cut(text))
        return tuple((word, word_class) for word, word_class in found if word_class)

    def _class(self, flag: str) -> WordClass | None:
        return next((word_class for prefix, word_class in self._classes if flag.startswith(prefix)), None)


class Frequency:
    """Any language, without classes: every word counts."""

    name = "frequency"
    version = "1"

    def __call__(self, text: str) -> list[tuple[str, None]]:
        return untagged(text)


class ByLanguage:
    """Tags each text by the tagger of its language, which is opened when its first text comes.

    ``language`` None: a text with a Chinese character is Chinese, any other English. Without the package that ``auto``
    wants, ``say`` gets a line and words are counted by frequency.
    """

    def __init__(self, wanted: TaggerName, *, language: Language | None, say: Callable[[str], None]) -> None:
        self.opened: dict[Language, LanguageTagger] = {}
        self._wanted, self._language, self._say = wanted, language, say
        if language is not None:
            self._open(language)

    def __call__(self, text: str) -> Iterable[tuple[str, WordClass | None]]:
        language = self._language or ("zh" if is_chinese(text) else "en")
        return (self.opened.get(language) or self._open(language))(text)

    def lemmas(self, pieces: Sequence[str]) -> Callable[[str], Iterable[str]]:
        """What gives the lemmas of one of ``pieces``: HanTa, else the rules of spelling; none without English texts."""
        tagger, known = self.opened.get("en"), frozenset(pieces)
        if tagger is None:
            return lambda _: ()
        if isinstance(tagger, HanTa):
            return tagger.lemmas
        return lambda word: (lemma_by_suffix(word.lower(), known=known),)

    def _open(self, language: Language) -> LanguageTagger:
        try:
            self.opened[language] = self._make(language)
        except PluginError as error:
            if self._wanted != "auto":
                raise
            self._say(f"{error}; words are counted by frequency, without classes")
            self.opened[language] = Frequency()
        return self.opened[language]

    def _make(self, language: Language) -> LanguageTagger:
        if self._wanted == "frequency":
            return Frequency()
        return HanTa() if language == "en" else Jieba()


def _optional(module: str, *, tagger: str, extra: str) -> Any:
    """A module of an extra's package, imported without a word. Raises ``PluginError`` where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # jieba's regular expressions are not raw strings
            return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise PluginError(f"tagger {tagger}: {package} is not installed: pip install 'antmmf-text[{extra}]'") from error
