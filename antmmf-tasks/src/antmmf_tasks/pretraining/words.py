"""Which words of a vocabulary are significant, and which share a lemma."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antmmf.contracts import Assets, Json, Tokenizer
from antmmf.errors import ComponentError, DataError


@dataclass(frozen=True)
class Words:
    """``significant``: ids of the words that matter most; ``mates``: for an id, the ids of other words of its lemma."""

    significant: frozenset[int]
    mates: dict[int, tuple[int, ...]]


def significant_words(
    tokenizer: Tokenizer, assets: Assets, *, table: Path | None, mates: Path | None, top_k: int
) -> Words:
    """The ``top_k`` words of a ``table``, or those that the tokenizer finds in the training texts, as an asset: those
    that a checkpoint brings count where ``top_k`` and the names of the files are the same.

    ``table`` is what ``antmmf text significant-words`` writes, or AntMMF's ``count_reprocess_*.json``; ``mates`` is
    AntMMF's ``vocab_simi_list_new.json``, where the table has none. Words that are not one token are left out.
    Raises ``DataError`` for a file that is not one of these.
    """
    if table is None and mates is not None:
        raise ComponentError(f"mates: {mates} has no names of its own; say with words which table it belongs to")

    def make(texts: Iterator[str]) -> Json:
        if table is None:
            find = getattr(tokenizer, "significant", None)
            if find is None:
                raise ComponentError(
                    f"words: must be a table of significant words, for {type(tokenizer).__name__} cannot find them; "
                    "make one with antmmf text significant-words"
                )
            return {"significant": sorted(find(texts)[:top_k]), "mates": []}
        return _read(table, mates, tokenizer, top_k)

    files = [path.name for path in (table, mates) if path is not None]
    found = assets.get(f"significant words, {', '.join([str(top_k), *files])}", make)
    return Words(frozenset(found["significant"]), {id: tuple(others) for id, others in found["mates"]})


def _read(table: Path, mates: Path | None, tokenizer: Tokenizer, top_k: int) -> Json:
    columns = _json(table, dict)
    names, counts, ranks = (columns.get(name) for name in ("name", "total_count", "rank"))
    if not (isinstance(names, list) and isinstance(counts, list) and isinstance(ranks, list)) or not (
        len(names) == len(counts) == len(ranks)
    ):
        raise DataError(f"{table}: must have the columns name, total_count and rank of equal length")
    for column, values, kind in (("name", names, str), ("total_count", counts, (int, float)), ("rank", ranks, int)):
        odd = [value for value in values if not isinstance(value, kind)]
        if odd:
            wanted = "words" if kind is str else "numbers"
            raise DataError(f"{table}: {column} must be a list of {wanted}, has {odd[0]!r}")
    lemmas = _json(mates, list) if mates is not None else columns.get("mates", [])
    if lemmas and len(lemmas) != len(names):
        raise DataError(
            f"{mates or table}: must have a list of mates for each of {len(names)} words, has {len(lemmas)}"
        )
    if not all(isinstance(row, list) and all(isinstance(word, str) for word in row) for row in lemmas):
        raise DataError(f"{mates or table}: mates must be a list of words for each word")
    ids: dict[str, int | None] = {}

    def id_of(word: str) -> int | None:
        if word not in ids:
            ids[word] = _single(word, tokenizer)
        return ids[word]

    chosen = [name for name, count, rank in zip(names, counts, ranks, strict=True) if count > 0 and rank <= top_k]
    significant = sorted({id for name in chosen if (id := id_of(name)) is not None})
    others = dict(zip(names, lemmas, strict=True)) if lemmas else {}
    pairs = []
    for name in chosen:
        id = id_of(name)
        found = {mate for word in others.get(name, []) if (mate := id_of(word)) is not None} - {id}
        if id is not None and found:
            pairs.append([id, sorted(found)])
    if not significant:
        raise DataError(f"{table}: none of its words is one token of this tokenizer; make a table for it")
    return {"significant": significant, "mates": pairs}


def _single(word: str, tokenizer: Tokenizer) -> int | None:
    """The id of a word that is one token, else None; with a space before it, as it mostly stands: byte pairs differ."""
    for text in (f" {word}", word):
        inner: Sequence[int] = [id for id in tokenizer([text])[0] if id not in tokenizer.special_ids]
        if len(inner) == 1:
            return inner[0]
    return None


def _json(path: Path, kind: type) -> Any:
    try:
        value = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: must be a table of significant words as JSON; {error}") from error
    if not isinstance(value, kind):
        raise DataError(f"{path}: must be a JSON {'object' if kind is dict else 'list'}, is a {type(value).__name__}")
    return value
