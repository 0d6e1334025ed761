"""Read the vocabulary of a tokenizer's files, without the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from antmmf.errors import DataError

FILES = ("tokenizer.json", "vocab.txt")
"""What a tokenizer's folder is searched for, in this order."""

_OF_WORDS = ("WordPiece", "WordLevel")


def read_vocabulary(where: Path) -> list[str]:
    """The pieces in the order of their ids. ``where`` is a list of pieces, one a line, a tokenizer.json of words or
    word pieces, or a folder with one of ``FILES``. Raises ``DataError``."""
    path = _file(where)
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: must be UTF-8 text, is not at byte {error.start}") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    return _from_json(text, path) if path.suffix == ".json" else _from_lines(text, path)


def _file(where: Path) -> Path:
    if not where.is_dir():
        return where
    found = next((where / name for name in FILES if (where / name).is_file()), None)
    if found is None:
        raise DataError(f"{where}: must hold {' or '.join(FILES)}, has neither")
    return found


def _from_lines(text: str, path: Path) -> list[str]:
    """Only a line feed ends a line: vocabularies hold other line separators as pieces."""
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    for number, line in enumerate(lines, 1):
        if not line or " " in line or "\t" in line:
            raise DataError(f"{path}:{number}: must be one piece a line, without spaces, is {line[:60]!r}")
    return lines


def _from_json(text: str, path: Path) -> list[str]:
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: is no JSON: {error}") from error
    model = tree.get("model") if isinstance(tree, Mapping) else None
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping) or not vocabulary:
        raise DataError(f"{path}: must be a tokenizer.json with a vocabulary in model.vocab, has none")
    kind = model.get("type", "WordPiece")  # older files do not say
    if kind not in _OF_WORDS or not isinstance(vocabulary, Mapping):
        raise DataError(f"{path}: must be of type {' or '.join(_OF_WORDS)}, whose pieces are words; is {kind}")
    added = {token["content"]: token["id"] for token in tree.get("added_tokens") or ()}
    pieces = {number: piece for piece, number in {**vocabulary, **added}.items()}
    missing = set(range(len(pieces))) - set(pieces)
    if missing:
        raise DataError(f"{path}: ids must count from 0 without a gap, there is no {min(missing)}")
    return [pieces[number] for number in range(len(pieces))]
