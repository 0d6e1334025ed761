from __future__ import annotations

import json
from pathlib import Path

import pytest
from antmmf.errors import DataError
from antmmf_text.vocabulary import read_vocabulary


def test_a_vocabulary_is_a_list_a_tokenizer_json_or_a_folder_with_one(tmp_path: Path) -> None:
    lines = tmp_path / "mine.txt"
    lines.write_bytes("[PAD]\r\nred\r\n\u2028\r\n红\r\n".encode())
    assert read_vocabulary(lines) == ["[PAD]", "red", "\u2028", "红"]
    tree = {
        "model": {"type": "WordPiece", "vocab": {"red": 1, "[PAD]": 0}},
        "added_tokens": [{"id": 2, "content": "<video>"}, {"id": 0, "content": "[PAD]"}],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    assert read_vocabulary(tmp_path) == ["[PAD]", "red", "<video>"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.txt", None, "No such file"),
        ("vocab.txt", b"", r"vocab.txt:1: must be one piece a line.*is ''"),
        ("vocab.txt", b"red\na whole caption\n", r"vocab.txt:2: must be one piece a line.*'a whole caption'"),
        ("vocab.txt", b"red\n\xff\n", "must be UTF-8 text, is not at byte 4"),
        ("tokenizer.json", b"{", "is no JSON"),
        ("tokenizer.json", b"[]", "must be a tokenizer.json"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {"a": 0}}}', "must be of type WordPiece.*is BPE"),
        ("tokenizer.json", b'{"model": {"type": "WordLevel", "vocab": {"a": 0, "b": 2}}}', "there is no 1"),
        ("other.txt", b"red\n", r"must hold tokenizer.json or vocab.txt, has neither"),
    ],
)
def test_a_bad_vocabulary_is_one_clear_line(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_vocabulary(tmp_path if name == "other.txt" else tmp_path / name)
    assert "\n" not in str(caught.value)
