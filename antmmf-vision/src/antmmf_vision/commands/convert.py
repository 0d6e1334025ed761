"""``antmmf data convert``: any data set as lines of JSON, which ``captions`` and AntMMF itself can read."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from antmmf.cli.options import OVERRIDES, plugin_options
from antmmf.contracts import Record
from antmmf.data.index import Index
from antmmf.data.sources import file_of, is_remote
from antmmf.errors import DataError

from antmmf_vision.commands.look import planned
from antmmf_vision.commands.pack import write_splits
from antmmf_vision.readers.auto import PICTURE_NAMES


@click.command("convert", context_settings=OVERRIDES)
@click.argument("source")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--to", type=click.Choice(["jsonl", "shards"]), default="jsonl", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File for jsonl, folder for shards.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Only this split.")
@plugin_options
def convert(
    source: str,
    overrides: tuple[str, ...],
    to: str,
    out: Path,
    split: str | None,
    without_plugin: tuple[str, ...],
    plugin_files: tuple[Path, ...],
) -> None:
    """Write the records of SOURCE in another format.

    jsonl has a line for each caption, question or line of a transcript, with AntMMF's names (clip_name, caption,
    start, end, type, options, answer), media as paths and the split. shards is what `antmmf data pack` writes.
    """
    plan = planned(source, overrides, without_plugin, plugin_files)
    if split is not None and split not in plan.datasets:
        raise DataError(f"{source} has no {split} split; it has: {', '.join(plan.datasets)}")
    if to == "shards":
        write_splits(plan, out, split, max_bytes=256_000_000)
        return
    from antmmf.run_data import open_indexes

    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.part")
    with beside.open("w", encoding="utf-8") as file:
        for name in [split] if split else plan.datasets:
            index = open_indexes(plan, [name])[0][name]
            said = str(plan.datasets[name].saved.get("split", name))
            count = 0
            values: dict[str, Any] = {}
            for count, values in enumerate(_lines(index, said), 1):  # noqa: B007
                file.write(json.dumps(values, ensure_ascii=False) + "\n")
            click.echo(f"{said}: {len(index):,} records in {count:,} lines")
    os.replace(beside, out)
    task = "choice" if "options" in values else "qa" if "label" in values else None
    kind = ["antmmf_jsonl", f"annotations={out.name}", f"task={task}"]
    reader = kind if task else ["captions", f"captions={out.name}", f"split={said}"]
    command = ["antmmf", "data", "check", *reader, f"data_root_dir={out.parent}", "media_dir=/"]
    click.echo(f"{out}: {shlex.join(command)}")


def _lines(index: Index, split: str) -> Iterator[dict[str, Any]]:
    hidden = not sys.stderr.isatty()
    with click.progressbar(range(len(index)), label=split, file=sys.stderr, hidden=hidden) as rows:
        for row in rows:
            yield from _of_record(index.record(row), split)


def _of_record(record: Record, split: str) -> Iterator[dict[str, Any]]:
    if file_of(record.media) != record.media or is_remote(record.media):
        raise DataError(f"{record.media}: is no file of its own, which a line must name; --to shards can have it")
    media = record.media if os.path.isabs(record.media) else os.path.abspath(record.media)
    kind = "image" if os.path.splitext(media)[1].lower() in PICTURE_NAMES else "video"
    common: dict[str, Any] = {"clip_name": media.lstrip("/"), "type": kind, "split": split, "group": record.key}
    times = {"start": record.start, "end": record.end}
    if record.options:
        label = record.extras.get("label", record.options.index(record.answer or record.options[0]))
        yield {**common, "qid": record.key, "options": list(record.options), "answer": str(label), **times}
    elif record.question is not None:
        yield {**common, "caption": record.question, "label": record.answer, **times}
    else:
        for text in record.texts:
            yield {**common, "caption": text, **times}
        for said in record.transcript:
            yield {**common, "caption": said.text, "start": said.start, "end": said.end}
