"""Rows of a jsonl, csv or tsv file, each with the line where it starts, so that an error can say where."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from antmmf.contracts import Json
from antmmf.errors import DataError, did_you_mean

TABLE_SUFFIXES = (".jsonl", ".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Row:
    """One row; ``line`` is 1-based, the first of its lines where a quoted field spans several."""

    line: int
    values: Mapping[str, Json]


def read_table(path: Path) -> list[Row]:
    """Every row of a file in UTF-8 (a byte order mark and CRLF are fine); empty lines are passed over.

    ``DataError`` with file:line for bytes that are not UTF-8, broken JSON or quotes, and rows that do not fit the
    header.
    """
    if path.suffix not in TABLE_SUFFIXES:
        raise DataError(f"{path}: expected one of {', '.join(TABLE_SUFFIXES)}, got {path.suffix or 'no suffix'!r}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: byte {content[error.start]:#04x} is not UTF-8; save it as UTF-8") from error
    if path.suffix == ".jsonl":
        return list(_json_rows(path, text))
    return list(_csv_rows(path, text, delimiter="," if path.suffix == ".csv" else "\t"))


def find_column(path: Path, rows: Sequence[Row], *, named: str | None, usual: Sequence[str], option: str) -> str | None:
    """The column called ``named``, else the first of ``usual`` that exists, else None.

    ``DataError`` when ``named`` does not exist; ``option`` is the parameter that named it.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row.values))
    if named is not None and named not in columns:
        hint = did_you_mean(named, columns)
        raise DataError(f"{path}: {option} is {named!r}, but the columns are {', '.join(columns)}{hint}")
    return named or next((column for column in usual if column in columns), None)


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not a line of JSON ({error})") from error
        if not isinstance(values, dict):
            raise DataError(f"{path}:{number}: expected a JSON object, got {type(values).__name__}")
        yield Row(number, values)


def _csv_rows(path: Path, text: str, *, delimiter: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for fields in reader:
            line, start = start, reader.line_num + 1
            if not any(field.strip() for field in fields):
                continue
            if header is None:
                header = [field.strip() for field in fields]
                if len(set(header)) != len(header):
                    raise DataError(f"{path}:{line}: two columns have the same name: {', '.join(header)}")
                continue
            if len(fields) != len(header):
                raise DataError(f"{path}:{line}: {len(fields)} fields, the header names {len(header)}; quote the text")
            yield Row(line, dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise DataError(f"{path}:{start}: {error}") from error
