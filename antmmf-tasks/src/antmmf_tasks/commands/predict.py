"""``antmmf predict``: what a trained model says of a folder of videos and a file of texts or questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from antmmf.cli.options import make_registry, plugin_options
from antmmf.contracts import Record
from antmmf.errors import DataError, did_you_mean

from antmmf_tasks.datasets.files import TABLE_SUFFIXES, lines, rows
from antmmf_tasks.datasets.folder import Folder
from antmmf_tasks.datasets.questions import kind_of

if TYPE_CHECKING:
    from antmmf import Model
    from torch import Tensor

_TEXT = ("text", "query", "caption", "question", "sentence")
_VIDEO = ("video", "media", "file", "clip_name", "key")
_NUM_SHOWN = 5


@dataclass(frozen=True)
class Asked:
    """A line of the file: a text or question; the video that it is of, where it says so; the right answer, if known."""

    text: str
    video: Record | None = None
    answer: str | None = None
    options: tuple[str, ...] = ()


@click.command("predict")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--videos", type=click.Path(path_type=Path), required=True, help="A folder of videos or pictures.")
@click.option("--texts", type=click.Path(path_type=Path), required=True, help="A .txt with one a line, or a table.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default="predictions", show_default=True)
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Videos to name for each text.")
@click.option("--batch-size", type=click.IntRange(1), help="Videos at a time.  [default: the run's]")
@click.option("--device", default="auto", show_default=True)
@plugin_options
def command(
    run: Path,
    videos: Path,
    texts: Path,
    out: Path,
    top: int,
    batch_size: int | None,
    device: str,
    without_plugin: tuple[str, ...],
    plugin_files: tuple[Path, ...],
) -> None:
    """Rank the videos for each text, or answer each question, with the model of RUN (a run's folder or a checkpoint).

    A table (.jsonl, .csv, .tsv, .parquet) has text or question, and may have video, which the text belongs to or the
    question is about (else about each), answer, and options (a list). Where texts say which video is right, or
    questions which answer, the run's metrics are printed too. Written are lines of JSON and Parquet, as run_type
    predict writes them.
    """
    if not videos.is_dir():
        raise DataError(f"--videos {videos}: there is no such folder")
    known = list(Folder(data_root_dir=videos).records())
    if not known:
        raise DataError(f"{videos}: holds no videos or pictures")
    asked = list(_asked(texts, known))
    if not asked:
        raise DataError(f"{texts}: holds no texts{' below its header' * (texts.suffix in TABLE_SUFFIXES[1:3])}")
    from antmmf.evaluate import measure
    from antmmf.inference.model import load
    from antmmf.predict import write_lines
    from antmmf.task import ContrastiveTask

    model = load(run, device=device, batch_size=batch_size, registry=make_registry(without_plugin, plugin_files))
    if isinstance(model.task, ContrastiveTask):
        found, lines = _ranked(model, known, asked, top)
        num_told = sum(one.video is not None for one in asked)
        is_labelled = num_told == len(asked)
        found = _readable(found) if is_labelled else found
        if num_told and not is_labelled:
            click.echo(f"no figures: {len(asked) - num_told:,} of {len(asked):,} texts name no video", err=True)
    else:
        found, lines = _answered(model, known, asked)
        num_told = sum(one.answer is not None for one in asked)
        is_labelled = num_told > 0
        if num_told and num_told < len(asked):
            click.echo(
                f"{len(asked) - num_told:,} of {len(asked):,} questions have no answer and do not count", err=True
            )
    path = out / f"{texts.stem}.jsonl"
    write_lines(lines, path)
    for line in lines[:_NUM_SHOWN]:
        click.echo(_shown(line))
    figures = measure([metric.build() for metric in model.plan.metrics], found) if is_labelled else {}
    for name, figure in figures.items():
        interval = "" if figure.low is None else f" [{figure.low:.2f}, {figure.high:.2f}]"
        click.echo(f"{name} {figure.value:.2f}{interval}, n = {figure.n}")
    click.echo(f"{len(lines):,} predictions: {path} and {path.with_suffix('.parquet').name}")


def _asked(path: Path, known: Sequence[Record]) -> Iterator[Asked]:
    """The lines of the file. Raises ``DataError`` with file:line for one that cannot be understood."""
    if not path.is_file():
        raise DataError(f"--texts {path}: there is no such file")
    if path.suffix not in TABLE_SUFFIXES:
        yield from (Asked(line) for _, line in lines(path))
        return
    exact = {record.key: record for record in known}
    names: dict[str, list[Record]] = defaultdict(list)
    for record in known:
        for name in {Path(record.key).stem, Path(record.key).name, record.key}:
            names[name].append(record)
    for place, row in rows(path):
        text = next((row[name] for name in _TEXT if row.get(name) is not None), "")
        if not isinstance(text, str) or not (text.strip() or row.get("options")):
            told = f"has {', '.join(row)}" if text == "" else f"got {text!r}"
            raise DataError(f"{place}: must have a {' or '.join(_TEXT)} that is not empty; {told}")
        video = next((str(row[name]) for name in _VIDEO if row.get(name)), None)
        if video is not None and video not in names:
            raise DataError(f"{place}: video {video} is not in the folder of --videos{did_you_mean(video, names)}")
        fits = [exact[video]] if video in exact else names[video] if video is not None else [None]
        if len(fits) > 1:
            keys = ", ".join(record.key for record in fits[:3] if record is not None)
            raise DataError(f"{place}: video {video} fits {len(fits)} files, {keys}: write which, with its folder")
        options = row.get("options") or ()
        if not isinstance(options, list | tuple) or not all(isinstance(option, str) for option in options):
            raise DataError(f"{place}: options must be a list of texts, got {options!r}")
        answer = str(row["answer"]) if row.get("answer") not in (None, "") else None
        if options and answer is not None and answer not in options:
            raise DataError(f"{place}: answer must be one of options, got {answer!r}")
        yield Asked(text.strip(), fits[0], answer, tuple(options))


def _ranked(
    model: Model, known: Sequence[Record], asked: Sequence[Asked], top: int
) -> tuple[Mapping[str, Tensor], list[dict[str, Any]]]:
    """Evaluation rows, and for each text the best videos, by the cross encoder where the task has one."""
    import torch
    from antmmf.distributed.world import World

    from antmmf_tasks.tasks.ranking import best, scores_of
    from antmmf_tasks.tasks.reading import TEXT, VIDEO

    seen = model.video_rows(known, skip=True)
    read = model.text_rows([one.text for one in asked])
    found = {name: seen[name] for name in ("video", "video_id", *VIDEO) if name in seen}
    found |= {name: read[name] for name in ("text", "text_hash", *TEXT) if name in read}
    place = {record.key: number for number, record in enumerate(known)}
    owners = [place[one.video.key] if one.video is not None else -1 for one in asked]
    found["text_video_id"] = torch.tensor(owners)
    with torch.no_grad():
        found = dict(model.task.evaluate_split(found, World()))
    keys = [known[number].key for number in found["video_id"].tolist()]
    lines: list[dict[str, Any]] = []
    for number, scores, places in best(scores_of(found)[0], top):
        ranked = [{"key": keys[i], "score": score} for i, score in zip(places, scores, strict=True)]
        truth = asked[number].video
        lines.append({"query": asked[number].text, "truth": truth.key if truth else None, "ranked": ranked})
    return found, lines


def _readable(found: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The rows without texts of videos that could not be read, which are counted: metrics need both sides."""
    import torch

    told = torch.isin(found["text_video_id"], found["video_id"])
    if told.all():
        return found
    click.echo(
        f"{int((~told).sum()):,} of {len(told):,} texts name a video that cannot be read, and do not count", err=True
    )
    pairs = torch.isin(found["pair_text_hash"], found["text_hash"][told]) if "pair_text_hash" in found else told
    kept = {"text": told, "pair": pairs}
    return {name: rows[kept[name[:4]]] if name[:4] in kept else rows for name, rows in found.items()}


def _answered(
    model: Model, known: Sequence[Record], asked: Sequence[Asked]
) -> tuple[Mapping[str, Tensor], list[dict[str, Any]]]:
    """Evaluation rows, and the answers to each question, about the video it names or about each."""
    records = [
        Record(
            video.key,
            video.media,
            question=one.text,
            answer=one.answer,
            options=one.options,
            extras={"kind": kind_of(one.text)},
        )
        for one in asked
        for video in ([one.video] if one.video is not None else known)
    ]
    if any(one.options for one in asked) and "option_question" not in (model.task.row_names or ("option_question",)):
        raise DataError(f"{model.source}: chooses among its own answers, so the options of questions must be left out")
    found = model.rows(records, skip=True)
    return found, [dict(line) for line in model.task.predictions(found, lambda id: records[id])]


def _shown(line: Mapping[str, Any]) -> str:
    if "query" in line:
        best = ", ".join(f"{one['key']} ({one['score']:.3f})" for one in line["ranked"][:3])
        return f"{line['query']} -> {best}"
    answers = sorted(line["answers"], key=lambda one: -one["probability"])[:3]
    return f"{line['key']}: {line['question']} -> " + ", ".join(
        f"{one['answer']} ({one['probability']:.2f})" for one in answers
    )
