"""``antmmf data preview``: a contact sheet of what a model sees, before and after augmentation."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from antmmf.cli.options import OVERRIDES, plugin_options
from antmmf.data.media import SampleReader
from antmmf.errors import DataError
from PIL import Image, ImageDraw, ImageFont

from antmmf_vision.commands.look import planned

_GAP, _LINE = 4, 15  # pixels
_MOST_FRAMES = 16  # of a row
_INK, _PAPER, _FAINT = (20, 20, 20), (255, 255, 255), (110, 110, 110)


@click.command("preview", context_settings=OVERRIDES)
@click.argument("source")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Of this split.  [default: the first]")
@click.option("--count", type=click.IntRange(1, 200), default=8, show_default=True, help="So many samples.")
@click.option("--epochs", type=click.IntRange(1, 8), default=2, show_default=True, help="Augmentations of each.")
@click.option("--height", type=click.IntRange(16, 512), default=96, show_default=True, help="Pixels of a row.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("preview"), show_default=True)
@plugin_options
def preview(
    source: str,
    overrides: tuple[str, ...],
    split: str | None,
    count: int,
    epochs: int,
    height: int,
    out: Path,
    without_plugin: tuple[str, ...],
    plugin_files: tuple[Path, ...],
) -> None:
    """Draw what a model sees of SOURCE, before and after augmentation, as a picture and a page.

    SOURCE is a config, a recipe, or a data set's name with its parameters as KEY=VALUE. Samples are spread over the
    whole split. Writes OUT.png and OUT.html.
    """
    from antmmf.run_data import open_indexes, sample_reader

    plan = planned(source, overrides, without_plugin, plugin_files)
    name = split or next(iter(plan.datasets), None)
    if name not in plan.datasets:
        raise DataError(f"{source} has no {name} split; it has: {', '.join(plan.datasets) or 'none'}")
    index = open_indexes(plan, [name])[0][name]
    readers = [sample_reader(plan, name, index, train=train) for train in (False, True)]
    rows = np.unique(np.linspace(0, len(index) - 1, min(count, len(index))).round().astype(int))
    cards = [_card(readers, int(row), epochs, height) for row in rows]
    picture, page = out.with_suffix(".png"), out.with_suffix(".html")
    picture.parent.mkdir(parents=True, exist_ok=True)
    sheet = _stacked([card for card, _ in cards])
    sheet.save(picture)
    page.write_text(_page(f"{source}, {name}: {len(rows)} of {len(index):,} samples", cards), encoding="utf-8")
    click.echo(f"{picture} ({sheet.width} x {sheet.height}), {page}")


def _card(readers: Sequence[SampleReader], row: int, epochs: int, height: int) -> tuple[Image.Image, str]:
    """One sample: what was decoded, what evaluation makes of it, what training does; and its words."""
    evaluation, training = readers
    raw = _without_transform(evaluation)
    asked = [("decoded", raw, 0), ("evaluation", evaluation, 0)]
    asked += [(f"training {epoch}", training, epoch) for epoch in range(1, epochs + 1)]
    record = evaluation.index.record(row)
    strips = []
    for label, reader, epoch in asked:
        try:
            sample = reader.read(row, epoch=epoch)
        except DataError as error:
            strips.append((label, _words([str(error)], width=8 * height)))
            break
        frames = sample.frames.flatten(0, 1)  # (T, 3, H, W)
        size = f"{frames.shape[3]} x {frames.shape[2]}"
        text = f": {sample.texts[0]}" if reader is training and sample.texts else ""
        strips.append((f"{label}, {size}{text}", _strip(frames.permute(0, 2, 3, 1).numpy(), height)))
    title = f"{record.key}: {record.media}"
    more = [*record.texts[:3], *([record.question] if record.question else [])]
    return _labelled(title, strips), "\n".join([title, *more])


def _without_transform(reader: SampleReader) -> SampleReader:
    return SampleReader(
        reader.index,
        dataset=reader.dataset,
        reader=reader.reader,
        reader_name=reader.reader_name,
        sampler=reader.sampler,
        transform=None,
        seed=reader.seed,
        train=False,
    )


def _strip(frames: np.ndarray, height: int) -> Image.Image:
    """(T, H, W, 3) side by side, each ``height`` pixels high; of very many, some."""
    if len(frames) > _MOST_FRAMES:
        frames = frames[np.linspace(0, len(frames) - 1, _MOST_FRAMES).round().astype(int)]
    width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    width = min(width, 4 * height)
    strip = Image.new("RGB", (len(frames) * (width + _GAP) - _GAP, height), _PAPER)
    for number, frame in enumerate(frames):
        strip.paste(Image.fromarray(frame).resize((width, height)), (number * (width + _GAP), 0))
    return strip


def _labelled(title: str, strips: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    width = max(320, *(strip.width for _, strip in strips))
    card = Image.new("RGB", (width, _LINE + sum(strip.height + _LINE + _GAP for _, strip in strips)), _PAPER)
    draw, font = ImageDraw.Draw(card), _font()
    draw.text((0, 0), _drawable(title, font, width), _INK, font)
    top = _LINE
    for label, strip in strips:
        draw.text((0, top), _drawable(label, font, width), _FAINT, font)
        card.paste(strip, (0, top + _LINE))
        top += strip.height + _LINE + _GAP
    return card


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=11)


def _drawable(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """One line that fits; the built-in font knows no Chinese, which the page shows in full."""
    line = " ".join(text.split()).encode("latin-1", "replace").decode("latin-1")
    while line and font.getlength(line) > width:
        line = line[: max(0, len(line) - 5)]
    return line


def _words(lines: Sequence[str], *, width: int) -> Image.Image:
    picture = Image.new("RGB", (width, _LINE * len(lines)), _PAPER)
    draw, font = ImageDraw.Draw(picture), _font()
    for number, line in enumerate(lines):
        draw.text((0, number * _LINE), _drawable(line, font, width), (180, 0, 0), font)
    return picture


def _stacked(cards: Sequence[Image.Image]) -> Image.Image:
    sheet = Image.new(
        "RGB",
        (max(card.width for card in cards) + 2 * _GAP, sum(card.height + 2 * _GAP for card in cards)),
        _PAPER,
    )
    top = _GAP
    for card in cards:
        sheet.paste(card, (_GAP, top))
        top += card.height + 2 * _GAP
    return sheet


def _page(title: str, cards: Sequence[tuple[Image.Image, str]]) -> str:
    """A page that needs nothing else: the pictures are inside."""
    parts = []
    for card, words in cards:
        file = io.BytesIO()
        card.save(file, "PNG")
        data = base64.b64encode(file.getvalue()).decode()
        first, *rest = (html.escape(line) for line in words.splitlines())
        said = "".join(f"<li>{line}</li>" for line in rest)
        parts.append(
            f'<section><h2>{first}</h2><ul>{said}</ul><img alt="{first}" src="data:image/png;base64,{data}"></section>'
        )
    style = (
        "body{font:14px system-ui,sans-serif;margin:2em;color:#222}h2{font-size:14px;overflow-wrap:anywhere}"
        "section{border-top:1px solid #ccc;padding:.5em 0}img{max-width:100%}ul{margin:.2em 0;color:#555}"
    )
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
    return f"<!doctype html><html><head>{head}</head><body><h1>{html.escape(title)}</h1>{''.join(parts)}</body></html>"
