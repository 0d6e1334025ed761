"""``antmmf text significant-words``: the nouns, verbs and adjectives of a data set that masking should prefer."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from antmmf.cli.options import OVERRIDES, bold, make_registry, plugin_options
from antmmf.errors import ConfigError, DataError

if TYPE_CHECKING:
    from antmmf.plan import DataPlan

    from antmmf_text.significant import WordTable
    from antmmf_text.taggers import ByLanguage, Language, TaggerName

_VOCAB_SIZE = 8000  # as small_text's default, so that it has these pieces
_NUM_PRINTED, _NUM_DRAWN = 10, 20
_READS: dict[str, Language] = {"hanta": "en", "jieba": "zh"}


@click.command("significant-words", context_settings=OVERRIDES)
@click.option("--dataset", "source", required=True, help="A data set's name, a recipe or a config.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="vocab.txt, tokenizer.json, or a folder with one of them.  [default: train pieces on the texts]",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The table, as JSON.")
@click.option("--language", type=click.Choice(["auto", "en", "zh"]), default="auto", show_default=True)
@click.option(
    "--tagger",
    type=click.Choice(["auto", "hanta", "jieba", "frequency"]),
    default="auto",
    show_default=True,
    help="hanta for English, jieba for Chinese, frequency without word classes; auto takes what is installed.",
)
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Draw the first 20 into this .svg.")
@plugin_options
def significant_words(
    source: str,
    overrides: tuple[str, ...],
    tokenizer: Path | None,
    out: Path,
    language: str,
    tagger: TaggerName,
    picture: Path | None,
    without_plugin: tuple[str, ...],
    plugin_files: tuple[Path, ...],
) -> None:
    """Count which words of a vocabulary are the nouns, verbs and adjectives of a data set's training texts.

    The data set's parameters follow as KEY=VALUE. Captions count, and transcripts, questions and options.
    """
    from antmmf.plan import plan_data

    from antmmf_text.significant import count_words, word_mates
    from antmmf_text.taggers import ByLanguage
    from antmmf_text.vocabulary import read_vocabulary

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    _check_files(out, picture)
    spoken = _language(language, tagger)
    pieces = read_vocabulary(tokenizer) if tokenizer else None
    taggers = ByLanguage(tagger, language=spoken, say=lambda line: click.echo(line, err=True))
    texts = _training_texts(plan_data(source, overrides, registry=make_registry(without_plugin, plugin_files)))
    if pieces is None:
        from antmmf_text.tokenizers import train_pieces

        pieces = train_pieces(texts(), vocab_size=_VOCAB_SIZE)
    counted = _Counted(texts())
    table = count_words(_shown(counted), pieces, tagger=taggers)
    _refuse_nothing(counted, table, source=source, pieces_of=str(tokenizer or "the texts"))
    mates = word_mates(pieces, lemmas=taggers.lemmas(pieces))
    made = _made(taggers, counted, pieces)
    _write(out, json.dumps({**table.columns(), "mates": mates, "made": made}))
    _print(table, counted)
    click.echo(f"{out}: {sum(total > 0 for total in table.totals):,} of {len(pieces):,} pieces occur")
    if picture is not None:
        from antmmf_text.commands.words_picture import draw

        _write(picture, draw(_columns(table, _NUM_DRAWN), title=f"Significant words of {source}"))
        click.echo(f"{picture}: the first {_NUM_DRAWN} of them")


class _Counted(Iterator[str]):
    """Counts the texts that pass, and how long they take."""

    def __init__(self, texts: Iterator[str]) -> None:
        self._texts, self._start = texts, time.perf_counter()
        self.num, self.seconds = 0, 0.0

    def __next__(self) -> str:
        try:
            text = next(self._texts)
        except StopIteration:
            self.seconds = time.perf_counter() - self._start
            raise
        self.num += 1
        return text


def _check_files(out: Path, picture: Path | None) -> None:
    """Refuse before the work what cannot be written after it."""
    if picture is not None and picture.suffix != ".svg":
        raise ConfigError(f"--picture {picture}: must end in .svg, which is all that can be drawn")
    for option, path in (("--out", out), ("--picture", picture)):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(f"{option} {path}: its folder must exist")


def _language(language: str, tagger: str) -> Language | None:
    """The language of all texts; None where each text's own is to be found."""
    reads = _READS.get(tagger)
    if reads and language not in ("auto", reads):
        raise ConfigError(f"--tagger {tagger}: reads {reads} only, --language is {language}")
    if reads or language == "auto":
        return reads
    return "en" if language == "en" else "zh"


def _training_texts(plan: DataPlan) -> Callable[[], Iterator[str]]:
    """Makes an iterator over the texts of the training split; of a data set without splits, of all of it."""
    from antmmf.plan import RunPlan
    from antmmf.run_data import open_indexes

    names = plan.parts("train")
    if not names and not isinstance(plan, RunPlan):
        splits = {name: str(part.saved.get("split", "train")) for name, part in plan.datasets.items()}
        names = [name for name, split in splits.items() if split.startswith("train")]
    if not names:
        raise ConfigError(f"{plan.name} has no train split; it has: {', '.join(plan.datasets)}")
    indexes, _ = open_indexes(plan, names)
    return lambda: chain.from_iterable(index.texts() for index in indexes.values())


def _shown(texts: _Counted) -> Iterator[str]:
    """``texts``, with a count of them on a terminal."""
    with click.progressbar(
        texts, label="texts", file=sys.stderr, hidden=not sys.stderr.isatty(), item_show_func=lambda _: f"{texts.num:,}"
    ) as shown:
        yield from shown


def _refuse_nothing(counted: _Counted, table: WordTable, *, source: str, pieces_of: str) -> None:
    if not counted.num:
        raise DataError(f"{source}: no record of the training split has a text")
    if not any(table.totals):
        raise DataError(
            f"{source}: no word of {counted.num:,} texts is an entry of the vocabulary of {pieces_of}; "
            "are both of the same language?"
        )


def _made(taggers: ByLanguage, counted: _Counted, pieces: Sequence[str]) -> dict[str, Any]:
    from antmmf_text.stop_words import NAME

    opened = sorted(taggers.opened.items())
    names = {tagger.name: tagger.version for _, tagger in opened}
    return {
        "tagger": "+".join(names),
        "tagger_version": "+".join(names.values()),
        "language": "+".join(language for language, _ in opened),
        "texts": counted.num,
        "pieces": len(pieces),
        "stop_words": NAME,
    }


def _write(path: Path, text: str) -> None:
    """Write beside, then rename: a table is whole or not there."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def _columns(table: WordTable, num: int) -> dict[str, list[tuple[str, int]]]:
    """Heading -> the most frequent words with their counts: of each class, or of all where there are no classes."""
    found = {
        "nouns": table.most_frequent(num, "noun"),
        "verbs": table.most_frequent(num, "verb"),
        "adjectives": table.most_frequent(num, "adj"),
    }
    return found if any(found.values()) else {"words": table.most_frequent(num)}


def _print(table: WordTable, counted: _Counted) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rate = counted.num / max(counted.seconds, 1e-9)
    click.echo(bold(f"{counted.num:,} texts in {counted.seconds:.1f} s, {rate:,.0f} a second"))
    columns = _columns(table, _NUM_PRINTED)
    shown = Table(box=box.SIMPLE_HEAD)
    for heading in columns:
        shown.add_column(heading)
        shown.add_column("count", justify="right")
    for row in range(max(map(len, columns.values()))):
        cells = [words[row] if row < len(words) else None for words in columns.values()]
        shown.add_row(*chain.from_iterable((cell[0], f"{cell[1]:,}") if cell else ("", "") for cell in cells))
    Console(highlight=False).print(shown)
