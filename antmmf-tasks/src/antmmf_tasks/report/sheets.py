"""Contact sheets: a few of the frames that the model saw of a clip, as one small JPEG."""

from __future__ import annotations

import base64
import time
from fractions import Fraction
from pathlib import Path

import av
import torch
from antmmf.errors import AntmmfError
from antmmf.plan import plan_run
from antmmf.registry import Registry
from antmmf.run_data import open_indexes, sample_reader
from torch import Tensor
from torch.nn.functional import interpolate

_NUM_FRAMES, _HEIGHT, _MAX_WIDTH = 4, 88, 176  # of a sheet; of a frame, in pixels


class Sheets:
    """Draws the clips of a split by their keys, as the run's evaluation read them.

    After ``max_seconds`` no more files are opened. Raises ``AntmmfError`` where the run's data cannot be planned here.
    """

    def __init__(self, config: Path, split: str, *, registry: Registry, max_seconds: float | None = None) -> None:
        arguments = ["input_attributes.features=null"] if "\n  features:" in config.read_text("utf-8") else []
        plan = plan_run(str(config), arguments, registry=registry)
        name = plan.parts(split)[0]
        self.index = open_indexes(plan, [name])[0][name]
        self._rows = {entry["key"]: row for row, entry in enumerate(self.index.columns("key"))}
        self._reader = sample_reader(plan, name, self.index, train=False)
        self._ends = None if max_seconds is None else time.monotonic() + max_seconds
        self._drawn: dict[str, str] = {}

    def sheet(self, key: str) -> str:
        """The clip's frames as a ``data:`` address; where there are none, words that say why not."""
        if key not in self._drawn:
            self._drawn[key] = self._draw(key)
        return self._drawn[key]

    def close(self) -> None:
        """End the reader's process."""
        close = getattr(self._reader.reader, "close", None)
        if close is not None:
            close()

    def _draw(self, key: str) -> str:
        if key not in self._rows:
            return "not in the data set"
        if self._ends is not None and time.monotonic() > self._ends:
            return "not drawn, to save time; antmmf report RUN draws all"
        try:
            frames = self._reader.read(self._rows[key], epoch=0).frames.flatten(0, 1)  # (T, 3, H, W)
        except (AntmmfError, OSError) as error:
            return f"cannot be read: {error}"
        return "data:image/jpeg;base64," + base64.b64encode(jpeg(side_by_side(frames))).decode()


def side_by_side(frames: Tensor) -> Tensor:
    """Up to four of the frames (T, 3, H, W) uint8, evenly chosen and made small, in one row: (3, h, w)."""
    places = torch.linspace(0, len(frames) - 1, min(_NUM_FRAMES, len(frames))).round().long()
    width = min(_MAX_WIDTH, max(2, round(frames.shape[3] * _HEIGHT / frames.shape[2])))
    small = interpolate(frames[places].float(), (_HEIGHT, width + width % 2), mode="bilinear", antialias=True)
    return torch.cat(list(small.round().clamp(0, 255).byte()), dim=2)


def jpeg(picture: Tensor) -> bytes:
    """A picture (3, H, W) uint8 of even height and width as a JPEG file."""
    codec = av.CodecContext.create("mjpeg", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.height, codec.width = picture.shape[1:]
    codec.pix_fmt, codec.time_base = "yuvj420p", Fraction(1)
    codec.options = {"qmin": "4", "qmax": "4"}
    frame = av.VideoFrame.from_ndarray(picture.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
    packets = [*codec.encode(frame.reformat(format="yuvj420p")), *codec.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
