from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys

import pytest
from antmmf.contracts import Tokenizer
from antmmf_text.tokenizers import SPECIAL, WordPiece, train_pieces

TEXTS = ["a red circle moves left", "the green star jumps", "a red star moves", "红色圆形向左移动", "红色方形"] * 3


@pytest.fixture
def tokenizer() -> WordPiece:
    return WordPiece(train_pieces(TEXTS, vocab_size=500), max_length=8)


def test_it_is_a_tokenizer(tokenizer: WordPiece) -> None:
    assert isinstance(tokenizer, Tokenizer)


def test_texts_stand_between_cls_and_sep(tokenizer: WordPiece) -> None:
    (ids,) = tokenizer(["a red star"])
    pieces = train_pieces(TEXTS, vocab_size=500)
    assert [pieces[i] for i in ids] == ["[CLS]", "a", "red", "star", "[SEP]"]


def test_texts_are_cut_to_the_maximum_length_with_their_sep(tokenizer: WordPiece) -> None:
    (long,) = tokenizer(["a red circle moves left " * 5])
    (short,) = tokenizer(["a"])
    assert len(long) == 8
    assert (long[0], long[-1]) == (short[0], short[-1])


def test_chinese_is_cut_into_characters(tokenizer: WordPiece) -> None:
    assert len(tokenizer(["红色方形"])[0]) == 4 + 2


def test_texts_are_not_padded(tokenizer: WordPiece) -> None:
    assert [len(ids) for ids in tokenizer(["a", "a red star"])] == [3, 5]


def test_unknown_characters_are_one_special_token(tokenizer: WordPiece) -> None:
    (ids,) = tokenizer(["a 龍 star"])
    assert ids[2] in tokenizer.special_ids
    assert len(ids) == 5


def test_capitals_are_the_same_words(tokenizer: WordPiece) -> None:
    assert tokenizer(["A Red STAR"]) == tokenizer(["a red star"])


def test_capitals_count_when_not_lowercased() -> None:
    pieces = train_pieces(["Red red"] * 3, vocab_size=100, lowercase=False)
    one, two = WordPiece(pieces, max_length=8, lowercase=False)(["Red", "red"])
    assert one != two


def test_decoding_gives_the_text_back(tokenizer: WordPiece) -> None:
    assert tokenizer.decode(tokenizer(["a green circle jumps"])[0]) == "a green circle jumps"


def test_special_ids_are_those_of_the_special_pieces(tokenizer: WordPiece) -> None:
    pieces = train_pieces(TEXTS, vocab_size=500)
    assert {pieces[i] for i in tokenizer.special_ids} == set(SPECIAL)
    assert pieces[tokenizer.pad_id] == "[PAD]"
    assert pieces[tokenizer.mask_id] == "[MASK]"
    assert len(tokenizer) == len(pieces)


def test_it_survives_pickling(tokenizer: WordPiece) -> None:
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy(["a red star", "红色"]) == tokenizer(["a red star", "红色"])
    assert (len(copy), copy.pad_id, copy.special_ids) == (len(tokenizer), tokenizer.pad_id, tokenizer.special_ids)


def test_a_vocabulary_without_special_pieces_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lacks \[PAD\]"):
        WordPiece(["a", "b"], max_length=8)


def test_the_vocabulary_is_no_larger_than_asked_for() -> None:
    assert len(train_pieces(TEXTS, vocab_size=60)) == 60


def test_every_character_is_kept_even_beyond_the_size_asked_for() -> None:
    characters = set("".join(TEXTS)) - {" "}
    assert characters <= {piece.removeprefix("##") for piece in train_pieces(TEXTS, vocab_size=6)}


def test_the_order_of_texts_does_not_change_the_vocabulary() -> None:
    assert train_pieces(TEXTS, vocab_size=60) == train_pieces(TEXTS[::-1], vocab_size=60)


def test_every_process_makes_the_same_vocabulary() -> None:
    code = (
        "import json, sys; from antmmf_text.tokenizers import train_pieces;"
        "print(json.dumps(train_pieces(json.loads(sys.argv[1]), vocab_size=60)))"
    )
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(TEXTS)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        assert json.loads(done.stdout) == train_pieces(TEXTS, vocab_size=60)


def test_a_worker_forked_after_training_is_silent_and_works() -> None:
    code = """
import multiprocessing
from antmmf_text.tokenizers import WordPiece, train_pieces
tokenizer = WordPiece(train_pieces(["a red star"] * 2000, vocab_size=50), max_length=8)
tokenizer(["a red star"] * 100)
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.apply(tokenizer, (["a red star"],)) == tokenizer(["a red star"]))
"""
    env = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env, timeout=60)
    assert done.stdout.strip() == "True"
    assert "fork" not in done.stderr


def test_training_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    train_pieces(TEXTS, vocab_size=60)
    assert "TOKENIZERS_PARALLELISM" not in os.environ
