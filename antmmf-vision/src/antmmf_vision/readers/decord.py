"""Read a video through decord: Linux x86-64 only, ignores edit lists, but applies rotation by itself."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from antmmf.contracts import Clip, Pick
from antmmf.errors import DataError, PluginError

from antmmf_vision.readers.picking import picked


class DecordReader:
    """Raises ``PluginError`` at construction where decord is not installed."""

    def __init__(self) -> None:
        if find_spec("decord") is None:
            raise PluginError(
                "decord is not installed: pip install decord (Linux x86-64 only), or use reader pyav instead"
            )

    def read(self, source: Path, pick: Pick) -> Clip:
        """Raise ``DataError`` when decord cannot open the file or decode a picked frame."""
        import decord  # type: ignore[import-untyped]

        if not source.is_file():
            raise DataError(f"{source}: no such file (reader decord)")
        try:
            video = decord.VideoReader(str(source), num_threads=1)
            starts = np.asarray(video.get_frame_timestamp(range(len(video))), dtype=np.float64)[:, 0]
            indices = picked(pick, starts - starts[0], source)
            return Clip(frames=video.get_batch(indices).asnumpy(), num_total=len(video))
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise DataError(f"{source}: {reason[0]} (reader decord)") from error
