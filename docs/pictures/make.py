"""Draw one record of the miniature of each data set: ``python docs/pictures/make.py`` (for docs/datasets.md)."""

from __future__ import annotations

import tempfile
import textwrap
from pathlib import Path

import numpy as np
from antmmf.contracts import Record, Source
from antmmf.registry import Registry
from antmmf_tasks.miniatures import MINIATURES, write_miniature
from antmmf_vision.readers.auto import AutoReader
from PIL import Image, ImageDraw

WIDTH, LINE = 560, 13
NUM = 6  # frames


def main() -> None:
    """Write NAME.png beside this file for all thirteen."""
    with tempfile.TemporaryDirectory() as folder:
        for name in MINIATURES:
            root = Path(folder, name)
            write_miniature(name, root)
            component = Registry().find("datasets", name)
            assert component is not None
            dataset = component.load()(data_root_dir=root, split="test" if name == "msrvtt_mc" else "train")
            picture = drawn(next(iter(dataset.records())))
            picture.quantize(48).save(Path(__file__).with_name(f"{name}.png"), optimize=True)


def drawn(record: Record) -> Image.Image:
    """Its frames in a row and its fields below."""

    def pick(times: np.ndarray) -> np.ndarray:
        return np.unique(np.linspace(0, len(times) - 1, NUM).round().astype(int))

    frames = AutoReader().read(Source(Path(record.media)), pick).frames
    said = [line for field in fields(record) for line in textwrap.wrap(field, 92, subsequent_indent="    ")]
    picture = Image.new("RGB", (WIDTH, 72 + LINE * len(said)), "white")
    for number, frame in enumerate(frames):
        picture.paste(Image.fromarray(frame), (4 + 68 * number, 4))
    for number, line in enumerate(said):
        ImageDraw.Draw(picture).text((4, 71 + LINE * number), line, fill="black")
    return picture


def fields(record: Record) -> list[str]:
    """What the record holds beside its media, a line each."""
    spoken = [f"{line.start:g}-{line.end:g} s: {line.text}" for line in record.transcript]
    values = {
        "key": record.key,
        "texts": " | ".join(record.texts[:3]) + (f" | ... ({len(record.texts)})" if len(record.texts) > 3 else ""),
        "transcript": " | ".join(spoken[:3]) if record.language == "en" else f"{len(spoken)} lines in Chinese",
        "question": record.question,
        "options": " | ".join(record.options),
        "answer": record.answer,
    }
    shown = {**values, "transcript": values["transcript"] if spoken else None}
    return [f"{name}: {value}" for name, value in shown.items() if value]


if __name__ == "__main__":
    main()
