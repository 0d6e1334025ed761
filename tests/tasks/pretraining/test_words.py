"""Tables of significant words: ours, AntMMF's, and none at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from antmmf.assets import RunAssets
from antmmf.errors import ComponentError, DataError
from antmmf_tasks.pretraining.words import significant_words
from antmmf_text.tokenizers import SPECIAL, Subwords, WordPiece

PIECES = [*SPECIAL, "man", "men", "dog", "run", "the", "##s"]
TOKENIZER = WordPiece(PIECES, max_length=8)
NAMES = ["[PAD]", "man", "men", "dog", "run", "horse"]


def assets() -> RunAssets:
    return RunAssets(texts=lambda: iter(["the dog", "the man the dog", "run"]))


def table(folder: Path, **changes: object) -> Path:
    columns = {"id": range(6), "name": NAMES, "total_count": [0, 9, 2, 7, 2, 8], "rank": [5, 0, 3, 2, 3, 1]}
    path = folder / "words.json"
    path.write_text(json.dumps({k: list(v) for k, v in {**columns, **changes}.items()}))  # type: ignore[call-overload]
    return path


def test_the_first_words_of_antmmfs_table_on_our_tokenizer(tmp_path: Path) -> None:
    mates = tmp_path / "vocab_simi_list_new.json"
    mates.write_text(json.dumps([[], ["man", "men"], ["man", "men"], [], [], []]))
    found = significant_words(TOKENIZER, assets(), table=table(tmp_path), mates=mates, top_k=2)
    assert found.significant == {PIECES.index("man"), PIECES.index("dog")}  # horse is not one token
    assert found.mates == {PIECES.index("man"): (PIECES.index("men"),)}


def test_ties_at_the_last_rank_all_count_and_absent_words_never(tmp_path: Path) -> None:
    found = significant_words(TOKENIZER, assets(), table=table(tmp_path), mates=None, top_k=5)
    assert {PIECES[id] for id in found.significant} == {"man", "men", "dog", "run"}


def test_without_a_table_they_are_the_frequent_words_of_the_training_texts() -> None:
    found = significant_words(TOKENIZER, assets(), table=None, mates=None, top_k=2)
    assert {PIECES[id] for id in found.significant} == {"dog", "man"}  # the is a stop word


def test_byte_pairs_of_a_roberta_have_words_too(tmp_path: Path) -> None:
    """A word that follows another is a token of its own there, with the space in it."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    known = ["the dog runs", "the man and the dog", "men run"]
    special = ["<s>", "<pad>", "</s>", "<mask>"]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    inner.train_from_iterator(known * 9, trainer)
    tokenizer = Subwords(inner.to_str(), max_length=20, pad="<pad>", mask="<mask>")
    dog, man = tokenizer(["the dog"])[0][1], tokenizer(["the man"])[0][1]
    for made in (table(tmp_path), None):
        texts = RunAssets(texts=lambda: iter(["the dog the man"]))
        assert {dog, man} <= significant_words(tokenizer, texts, table=made, mates=None, top_k=2).significant


def test_they_are_kept_with_the_checkpoint(tmp_path: Path) -> None:
    first = assets()
    wanted = significant_words(TOKENIZER, first, table=table(tmp_path), mates=None, top_k=3)
    saved = json.loads(json.dumps(dict(first.values())))
    again = RunAssets(saved, texts=lambda: iter(()))
    assert significant_words(TOKENIZER, again, table=Path("gone/words.json"), mates=None, top_k=3) == wanted


def test_a_table_counts_where_a_checkpoint_brings_words_of_another_one(tmp_path: Path) -> None:
    first = assets()
    significant_words(TOKENIZER, first, table=None, mates=None, top_k=1)
    again = RunAssets(dict(first.values()), texts=lambda: iter(()))
    found = significant_words(TOKENIZER, again, table=table(tmp_path), mates=None, top_k=1)
    assert {PIECES[id] for id in found.significant} == {"man"}  # by the checkpoint it would be the dog


def test_wrong_files_are_named(tmp_path: Path) -> None:
    def read(path: Path, mates: Path | None = None) -> None:
        significant_words(TOKENIZER, assets(), table=path, mates=mates, top_k=3)

    with pytest.raises(DataError, match=r"words\.json: must have the columns name, total_count and rank"):
        read(table(tmp_path, rank=[1, 2]))
    with pytest.raises(DataError, match="none of its words is one token"):
        read(table(tmp_path, name=["a1", "b2", "c3", "d4", "e5", "f6"]))
    short = tmp_path / "short.json"
    short.write_text("[[]]")
    with pytest.raises(DataError, match=r"short\.json: must have a list of mates for each of 6 words, has 1"):
        read(table(tmp_path), short)
    with pytest.raises(DataError, match=r"words\.json: name must be a list of words, has None"):
        read(table(tmp_path, name=[*NAMES[:5], None]))
    with pytest.raises(DataError, match=r"words\.json: total_count must be a list of numbers, has '9'"):
        read(table(tmp_path, total_count=[0, "9", 2, 7, 2, 8]))
    short.write_text(json.dumps([[], ["man", None], "man", [], [], []]))
    with pytest.raises(DataError, match=r"short\.json: mates must be a list of words for each word"):
        read(table(tmp_path), short)
    with pytest.raises(DataError, match="must be a JSON object, is a list"):
        read(short)
    with pytest.raises(DataError, match="must be a table of significant words"):
        read(tmp_path / "nowhere.json")


def test_mates_belong_to_a_table() -> None:
    with pytest.raises(ComponentError, match=r"mates: mates\.json has no names of its own"):
        significant_words(TOKENIZER, assets(), table=None, mates=Path("mates.json"), top_k=3)


def test_a_tokenizer_that_cannot_find_them_needs_a_table() -> None:
    class Plain:
        special_ids = frozenset({0})

    with pytest.raises(ComponentError, match="make one with antmmf text significant-words"):
        significant_words(Plain(), assets(), table=None, mates=None, top_k=3)  # type: ignore[arg-type]
