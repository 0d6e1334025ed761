"""``antmmf text significant-words`` and what it is made of."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from antmmf.cli.main import tell
from antmmf.errors import AntmmfError, ConfigError, DataError, PluginError
from antmmf_tasks.datasets.shapes import Shapes
from antmmf_text.commands.significant_words import significant_words
from antmmf_text.commands.words_picture import draw
from antmmf_text.significant import (
    WordTable,
    count_words,
    frequent_words,
    lemma_by_suffix,
    tokens,
    untagged,
    word_mates,
)
from antmmf_text.taggers import ByLanguage, Frequency, HanTa, Jieba, TaggerName
from antmmf_text.tokenizers import SPECIAL
from click.testing import CliRunner, Result

COLUMNS = [
    *("id", "name", "total_count", "verb_count", "noun_count", "adj_count", "rank"),
    *("verb_percentage", "noun_percentage", "adj_percentage"),
]
ENGLISH = [*SPECIAL, "a", "the", "circle", "triangle", "red", "moves", "move", "left", "##s", "unseen"]
CHINESE = [*SPECIAL, *"圆形三角红色移动向左的", "圆形"]
MODULES = {"hanta": ("HanTa", "HanTa.HanoverTagger"), "jieba": ("jieba", "jieba.posseg")}


def table(verb: list[int], noun: list[int], adj: list[int]) -> WordTable:
    totals = [sum(counts) for counts in zip(verb, noun, adj, strict=True)]
    pieces = [f"word{i}" for i in range(len(totals))]
    return WordTable(pieces, totals, {"verb": verb, "noun": noun, "adj": adj})


# --- the table --------------------------------------------------------------------------------------------------------


def test_ties_share_the_lowest_rank_and_what_never_occurs_one_big_rank() -> None:
    ranks = table([0, 0, 0, 0, 0], [5, 0, 7, 5, 0], [0, 0, 0, 0, 0]).ranks()
    assert ranks == [1, 3, 0, 1, 3]


def test_shares_below_a_quarter_are_nothing_and_the_rest_sums_to_one() -> None:
    shares = table([3, 1, 0], [5, 3, 0], [2, 0, 0]).shares()
    assert shares["verb"] == [3 / 8, 1 / 4, 0]  # 2 of 10 adjectives are dropped; a quarter is kept
    assert shares["noun"] == [5 / 8, 3 / 4, 0]
    assert shares["adj"] == [0, 0, 0]


def test_the_most_frequent_words_of_a_class_have_a_share_in_it() -> None:
    counts = table([30, 2, 0], [100, 0, 7], [0, 2, 0])
    assert counts.most_frequent(5, "verb") == [("word1", 2)]  # 30 of 130 is less than a quarter
    assert counts.most_frequent(1) == [("word0", 130)]


def test_the_columns_are_those_of_antmmf_each_as_long_as_the_vocabulary() -> None:
    columns = count_words(["a red circle"], ENGLISH, tagger=untagged).columns()
    assert list(columns) == COLUMNS
    assert {len(column) for column in columns.values()} == {len(ENGLISH)}
    assert columns["name"] == ENGLISH


def test_only_entries_count_and_no_special_pieces_continuations_stop_words_letters_or_numbers() -> None:
    pieces = ["[MASK]", "##s", "the", "x", "2020", "red", "circles"]
    totals = count_words(["the red x [MASK] ##s 2020 circle reds"], pieces, tagger=untagged).totals
    assert dict(zip(pieces, totals, strict=True)) == {**dict.fromkeys(pieces, 0), "red": 1}


def test_a_word_counts_as_it_is_written_or_else_in_lower_case() -> None:
    totals = count_words(["Polish polish Red"], ["Polish", "polish", "red"], tagger=untagged).totals
    assert totals == [1, 1, 1]


def test_a_chinese_word_counts_for_itself_and_its_characters_without_stop_words() -> None:
    pieces = ["圆形", "圆", "形", "目", "的", "方"]
    tagged = {"x": (("圆形", "noun"), ("形", "noun"), ("目的", "noun"), ("的", "noun"))}
    found = count_words(["x"], pieces, tagger=tagged.__getitem__)
    assert found.totals == [1, 1, 2, 1, 0, 0]
    assert found.by_class["noun"] == found.totals


def test_frequent_words_come_in_the_order_of_their_counts_then_of_their_ids() -> None:
    texts = iter(["a red red circle moves", "the circle, a triangle: 左", "Moves"])
    pieces = [*ENGLISH, "左"]
    found = [pieces[i] for i in frequent_words(texts, pieces)]
    assert found == ["circle", "red", "moves", "triangle", "左"]


def test_contractions_are_two_words_and_punctuation_is_kept_for_taggers() -> None:
    found = tokens("It's slow-motion, DON'T move红色!")
    assert found == ["It", "'s", "slow", "-", "motion", ",", "DO", "N'T", "move", "红", "色", "!"]


# --- words that share a lemma -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "lemma"),
    [
        ("moves", "move"),
        ("moving", "move"),
        ("moved", "move"),
        ("running", "run"),
        ("boxes", "box"),
        ("cities", "city"),
        ("carried", "carry"),
        ("calling", "call"),
        ("rated", "rate"),
        ("glass", "glass"),
        ("string", "string"),
        ("king", "king"),
        ("blinks", "blinks"),
    ],
)
def test_lemmas_by_suffix(word: str, lemma: str) -> None:
    known = {"move", "run", "box", "city", "carry", "call", "rat", "rate", "glas", "str", "k"}
    assert lemma_by_suffix(word, known=known) == lemma


def test_mates_are_the_words_that_share_a_lemma_the_word_itself_first() -> None:
    pieces = ["[CLS]", "moves", "red", "move", "##moving", "moving", "左", "a"]
    mates = word_mates(pieces, lemmas=lambda word: (lemma_by_suffix(word, known=pieces),))
    assert mates[1] == ["moves", "move", "moving"]
    assert mates[5] == ["moving", "moves", "move"]
    assert [i for i, own in enumerate(mates) if own] == [1, 3, 5]


# --- taggers ----------------------------------------------------------------------------------------------------------


def test_hanta_finds_nouns_verbs_and_adjectives() -> None:
    pytest.importorskip("HanTa")
    found = dict(HanTa()("A Beautiful Woman is running in London, and two dogs wore hats."))
    nouns, adjectives = ("Woman", "dogs", "hats"), ("Beautiful",)
    assert found == {
        **dict.fromkeys(nouns, "noun"),
        **dict.fromkeys(adjectives, "adj"),
        "running": "verb",
        "wore": "verb",
    }


def test_hanta_gives_the_lemmas_of_every_likely_class() -> None:
    pytest.importorskip("HanTa")
    pieces = ["man", "men", "manned", "woman", "women", "ran", "running"]
    mates = word_mates(pieces, lemmas=HanTa().lemmas)
    men = [["man", "men", "manned"], ["men", "man", "manned"], ["manned", "man", "men"]]
    assert mates == [*men, ["woman", "women"], ["women", "woman"], ["ran", "running"], ["running", "ran"]]


def test_jieba_finds_nouns_verbs_and_adjectives() -> None:
    pytest.importorskip("jieba")
    found = dict(Jieba()("一个漂亮的女孩在城市里骑自行车"))
    assert found == {"漂亮": "adj", "女孩": "noun", "城市": "noun", "骑": "verb", "自行车": "noun"}


def test_jieba_is_silent_and_leaves_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jieba")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    list(Jieba()("红色圆形向左移动"))
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_each_text_goes_to_the_tagger_of_its_language() -> None:
    pytest.importorskip("HanTa")
    pytest.importorskip("jieba")
    taggers = ByLanguage("auto", language=None, say=pytest.fail)
    assert taggers.opened == {}
    found = [dict(taggers(text)) for text in ("a red circle", "红色圆形")]
    assert found == [{"red": "adj", "circle": "noun"}, {"红色": "noun", "圆形": "noun"}]
    assert [type(tagger) for tagger in taggers.opened.values()] == [HanTa, Jieba]


@pytest.mark.parametrize(
    ("wanted", "extra", "text"), [("hanta", "antmmf-text[en]", "a dog"), ("jieba", "antmmf-text[zh]", "狗")]
)
def test_a_tagger_that_is_not_installed(
    wanted: TaggerName, extra: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in MODULES[wanted]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PluginError, match=r"is not installed: pip install") as caught:
        ByLanguage(wanted, language="en" if wanted == "hanta" else "zh", say=pytest.fail)
    assert extra in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tell(caught.value, debug=False) == 2
    said: list[str] = []
    taggers = ByLanguage("auto", language=None, say=said.append)
    words = [*taggers(text), *taggers(text)]
    assert {word_class for _, word_class in words} == {None}
    assert [type(tagger) for tagger in taggers.opened.values()] == [Frequency]
    (line,) = said
    assert extra in line
    assert "by frequency" in line


# --- the picture ------------------------------------------------------------------------------------------------------


def test_the_picture_has_a_bar_for_each_word_as_long_as_its_count() -> None:
    picture = ElementTree.fromstring(draw({"nouns": [("圆", 8), ("<b>", 2)], "verbs": []}, title="a & b"))
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in picture.iter(f"{space}text")]
    assert texts == ["a & b", "nouns", "圆", "8", "<b>", "2", "verbs"]
    _, first, second = (float(bar.attrib["width"]) for bar in picture.iter(f"{space}rect"))
    assert first == 4 * second


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a tiny training split of `shapes` is made once."""
    folder = tmp_path_factory.mktemp("shapes")
    Shapes(split="train", root=folder, num_train=8).prepare()
    return folder


Mine = Callable[..., Result]


@pytest.fixture
def mine(root: Path, tmp_path: Path) -> Mine:
    """The command on `shapes` with a vocabulary, its table in ``tmp_path``."""

    def invoked(pieces: list[str], *arguments: str) -> Result:
        (tmp_path / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
        files = ("--tokenizer", str(tmp_path), "--out", str(tmp_path / "words.json"))
        return run("--dataset", "shapes", f"root={root}", "num_train=8", *files, *arguments)

    return invoked


def run(*arguments: str) -> Result:
    return CliRunner().invoke(significant_words, list(arguments))


def written(folder: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((folder / "words.json").read_text(encoding="utf-8"))
    return tree


def training_texts(root: Path, language: Any) -> list[str]:
    dataset = Shapes(split="train", root=root, num_train=8, language=language)
    return [text for record in dataset.records() for text in record.texts]


def test_english_words_are_counted_by_frequency(mine: Mine, root: Path, tmp_path: Path) -> None:
    done = mine(ENGLISH, "--tagger", "frequency")
    assert done.exit_code == 0, done.output
    found, texts = written(tmp_path), training_texts(root, "en")
    words = Counter(word for text in texts for word in text.replace(",", "").lower().split())
    counted = {"circle", "triangle", "red", "moves", "move", "left"}
    assert found["total_count"] == [words[piece] if piece in counted else 0 for piece in ENGLISH]
    assert sum(found["total_count"]) > 0
    assert found["rank"] == [sum(other > total for other in found["total_count"]) for total in found["total_count"]]
    assert found["noun_percentage"] == [0] * len(ENGLISH)
    assert found["mates"][ENGLISH.index("moves")] == ["moves", "move"]
    assert list(found) == [*COLUMNS, "mates", "made"]
    about = {"tagger": "frequency", "tagger_version": "1", "language": "en", "stop_words": "antmmf-1"}
    assert found["made"] == {**about, "texts": len(texts), "pieces": len(ENGLISH)}


def test_chinese_characters_are_counted_by_frequency(mine: Mine, root: Path, tmp_path: Path) -> None:
    done = mine(CHINESE, "language=zh", "--tagger", "frequency")
    assert done.exit_code == 0, done.output
    found, text = written(tmp_path), "".join(training_texts(root, "zh"))
    counted = set("圆形角红色移动左")  # 三, 向 and 的 are stop words
    assert found["total_count"] == [text.count(piece) if piece in counted else 0 for piece in CHINESE]
    assert found["made"]["language"] == "zh"
    assert not any(found["mates"])


def test_english_classes_by_hanta(mine: Mine, root: Path, tmp_path: Path) -> None:
    pytest.importorskip("HanTa")
    done = mine(ENGLISH)
    assert done.exit_code == 0, done.output
    found, words = written(tmp_path), Counter(" ".join(training_texts(root, "en")).replace(",", "").split())
    assert found["noun_count"][ENGLISH.index("circle")] == words["circle"]
    assert found["adj_percentage"][ENGLISH.index("red")] == 1
    assert found["made"]["tagger"] == "hanta"
    kinds = [found[f"{kind}_count"] for kind in ("noun", "verb", "adj")]
    assert [counts[ENGLISH.index("a")] for counts in kinds] == [0, 0, 0]
    assert [sum(counts) for counts in zip(*kinds, strict=True)] == found["total_count"]


def test_chinese_classes_by_jieba_and_a_picture(mine: Mine, tmp_path: Path) -> None:
    pytest.importorskip("jieba")
    picture = tmp_path / "words.svg"
    done = mine(CHINESE, "language=zh", "--picture", str(picture))
    assert done.exit_code == 0, done.output
    found = written(tmp_path)
    assert found["noun_percentage"][CHINESE.index("圆形")] == 1
    assert found["noun_count"][CHINESE.index("圆")] >= found["noun_count"][CHINESE.index("圆形")] > 0
    assert found["verb_percentage"][CHINESE.index("动")] == 1
    assert "圆形" in picture.read_text(encoding="utf-8")
    for heading in ("nouns", "verbs", "adjectives"):
        assert heading in done.output


def test_without_a_tokenizer_pieces_are_trained_on_the_texts(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "words.json"
    done = run("--dataset", "shapes", f"root={root}", "num_train=8", "--tagger", "frequency", "--out", str(out))
    assert done.exit_code == 0, done.output
    found = written(tmp_path)
    assert found["name"][:5] == list(SPECIAL)
    assert "circle" in found["name"]


def refused(done: Result) -> str:
    assert isinstance(done.exception, AntmmfError), done.output
    assert tell(done.exception, debug=False) == 2
    return str(done.exception)


def test_what_cannot_work_is_refused_before_the_data_is_read(root: Path, tmp_path: Path) -> None:
    data = ("--dataset", "shapes", f"root={root}", "num_train=8")
    out = ("--out", str(tmp_path / "words.json"))
    assert "reads en only" in refused(run(*data, *out, "--tagger", "hanta", "--language", "zh"))
    assert "must end in .svg" in refused(run(*data, *out, "--picture", "words.png"))
    assert "its folder must exist" in refused(run(*data, "--out", str(tmp_path / "none" / "words.json")))
    assert "has no train split; it has: val" in refused(run(*data, *out, "split=val", "--tagger", "frequency"))


def test_a_vocabulary_without_one_word_of_the_texts_is_refused(mine: Mine, tmp_path: Path) -> None:
    done = mine(CHINESE, "--tagger", "frequency")
    assert isinstance(done.exception, DataError)
    assert "are both of the same language?" in str(done.exception)
    assert not (tmp_path / "words.json").exists()


def test_no_training_records_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "captions.jsonl").write_text(json.dumps({"video": "a.mp4", "caption": "a dog", "split": "test"}))
    out = ("--out", str(tmp_path / "words.json"), "--tagger", "frequency")
    done = run("--dataset", "captions", f"data_root_dir={tmp_path}", *out)
    assert isinstance(done.exception, (ConfigError, DataError)), done.output
    assert "split" in str(done.exception)


def test_help_needs_neither_torch_nor_tokenizers() -> None:
    code = """
import sys
from antmmf_text.commands.significant_words import significant_words
significant_words(["--help"], standalone_mode=False)
print(sorted({"torch", "tokenizers", "transformers", "numpy", "HanTa", "jieba"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
