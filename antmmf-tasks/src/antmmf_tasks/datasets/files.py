"""Annotation files, read record by record at any size; every error says in which file and line."""

from __future__ import annotations

import csv
import json
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from antmmf.contracts import Json
from antmmf.errors import DataError
from pydantic_core import from_json

TABLE_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")

Rows = Iterator[tuple[str, dict[str, Json]]]
"""Place (``file:line``) and fields of each row; of a row that spans several lines the first counts."""

_PART = 1 << 22  # characters read at a time
_LONGEST_FIELD = 1 << 24
_LONGEST_NUMBER = 64


def rows(path: Path, *, header: tuple[str, ...] = (), quoted: bool = True) -> Rows:
    """The rows of a jsonl, csv, tsv or parquet file in UTF-8 (a byte order mark and CRLF are fine), without empty ones.

    ``header`` names the columns of a csv or tsv file that has no line for them; with ``quoted`` false a quotation mark
    in it is a character like others. Raises ``DataError`` for bytes that are not UTF-8, broken JSON or quotes, and rows
    that do not fit the header.
    """
    kind = path.suffix.lower()
    if kind not in TABLE_SUFFIXES:
        raise DataError(f"{path}: expected one of {', '.join(TABLE_SUFFIXES)}, got {path.suffix or 'no suffix'!r}")
    try:
        if kind == ".parquet":
            yield from _parquet_rows(path)
        elif kind == ".jsonl":
            yield from _json_rows(path)
        else:
            yield from _csv_rows(path, "," if kind == ".csv" else "\t", list(header), quoted)
    except UnicodeDecodeError:
        _refuse_bytes(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})", reason="missing") from error


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Place and text of each line that is not empty. Raises ``DataError``."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", line.strip()
    except UnicodeDecodeError:
        _refuse_bytes(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})", reason="missing") from error


def json_file(path: Path) -> Json:
    """All of a JSON file. Raises ``DataError``."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=lambda pairs: unique(pairs, path))
    except UnicodeDecodeError:
        _refuse_bytes(path)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{getattr(error, 'lineno', 1)}: is no JSON ({error}); is it all there?") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})", reason="missing") from error


def unique(pairs: Sequence[tuple[str, Json]], path: Path) -> dict[str, Json]:
    """``pairs`` of names and values. Raises ``DataError`` where a name is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise DataError(f"{path}: {name!r} is there twice; each must be there once")
    return found


def json_items(path: Path) -> Iterator[tuple[str, str, Json]]:
    """Place, key and value of each member of a JSON array or object; one at a time is in memory.

    The key of a member of an array is empty. Raises ``DataError``, also for a file that ends too early or goes on.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _Members(path, file)
    except UnicodeDecodeError:
        _refuse_bytes(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})", reason="missing") from error


def plain_pickle(path: Path) -> Any:
    """What a pickle of dicts, lists, numbers and texts holds; one that names anything else is refused unread."""
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})", reason="missing") from error
    except Exception as error:  # bytes that are no pickle can make it raise anything
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: is no pickle of plain values ({said})") from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it holds a {module}.{name}, which could run code")


class _Members:
    """Iterates over the members of one JSON array or object of a text file."""

    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file = path, file
        self._text, self._at, self._line = "", 0, 1
        self._decode = json.JSONDecoder().raw_decode

    def __iter__(self) -> Iterator[tuple[str, str, Json]]:
        opening = self._next_mark()
        if opening not in ("[", "{"):
            raise self._fault("must be a JSON array or object")
        closing = "]" if opening == "[" else "}"
        mark = self._peek()
        if mark == closing:
            self._next_mark()
        while mark != closing:
            place = f"{self._path}:{self._line}"
            key = ""
            if opening == "{":
                key = self._value()
                if not isinstance(key, str) or self._next_mark() != ":":
                    raise self._fault("a name and a colon must stand here")
            yield place, key, self._value()
            mark = self._next_mark()
            if mark not in (",", closing):
                raise self._fault(f"a comma or {closing} must stand here")
            if mark == ",":
                self._peek()
        if not self._is_over():
            raise self._fault(f"there is more behind the {closing}")

    def _value(self) -> Json:
        while True:
            self._peek()
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._more():
                    self._move(error.pos)
                    raise self._fault(f"{error.msg}; is the file all there?") from error
                continue
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
                raise self._fault(str(error)) from error
            if isinstance(value, int | float) and len(self._text) - end < _LONGEST_NUMBER and self._more():
                continue  # a number may go on
            self._move(end)
            return value

    def _peek(self) -> str:
        """The next character that is no space, which is then the current one."""
        if self._is_over():
            raise self._fault("the file ends too early")
        return self._text[self._at]

    def _is_over(self) -> bool:
        """Whether nothing but space is left; else the next character that is none is the current one."""
        while True:
            end = self._at
            while end < len(self._text) and self._text[end] in " \t\r\n":
                end += 1
            self._move(end)
            if end < len(self._text):
                return False
            if not self._more():
                return True

    def _next_mark(self) -> str:
        mark = self._peek()
        self._move(self._at + 1)
        return mark

    def _move(self, end: int) -> None:
        self._line += self._text.count("\n", self._at, end)
        self._at = end

    def _more(self) -> bool:
        part = self._file.read(max(_PART, len(self._text) - self._at))  # a large member is not begun ever again
        if part:
            self._text, self._at = self._text[self._at :] + part, 0
        return bool(part)

    def _fault(self, message: str) -> DataError:
        return DataError(f"{self._path}:{self._line}: {message}")


def _json_rows(path: Path) -> Rows:
    name = str(path)
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            try:
                values = from_json(line, cache_strings="keys")
            except ValueError:
                if not line.strip():
                    continue
                values = _json_line(f"{name}:{number}", line)
            if type(values) is not dict:
                raise DataError(f"{name}:{number}: expected a JSON object, got a {type(values).__name__}")
            yield f"{name}:{number}", values


def _json_line(place: str, line: str) -> Json:
    """What pydantic's reader, twice as fast as Python's, does not take: halves of characters, deep lists, mistakes."""
    text = line.strip()
    try:
        values, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not a line of JSON ({error})") from error
    if end != len(text):
        raise DataError(f"{place}: expected a JSON object, got more behind it: {text[end:][:40]!r}")
    return values


def _csv_rows(path: Path, delimiter: str, header: list[str], quoted: bool) -> Rows:
    csv.field_size_limit(_LONGEST_FIELD)
    start = 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(
            file, delimiter=delimiter, strict=True, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        )
        try:
            for fields in reader:
                line, start = start, reader.line_num + 1
                if not any(fields):
                    continue
                if not header:
                    header = [field.strip() for field in fields]
                    if len(set(header)) != len(header):
                        raise DataError(f"{path}:{line}: two columns have the same name: {', '.join(header)}")
                    continue
                if len(fields) != len(header):
                    raise DataError(
                        f"{path}:{line}: {len(fields)} fields, there should be {len(header)} ({', '.join(header)}); "
                        "quote the text"
                    )
                yield f"{path}:{line}", dict(zip(header, fields, strict=True))
        except csv.Error as error:
            raise DataError(f"{path}:{start}: {error}") from error


def _parquet_rows(path: Path) -> Rows:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", values
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: {str(error).splitlines()[0]}") from error


def _refuse_bytes(path: Path) -> NoReturn:
    """Say where the file is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}:{number}: byte {line[error.start]:#04x} is not UTF-8; save the file as UTF-8"
                ) from None
    raise DataError(f"{path}: is not UTF-8; save it as UTF-8")
