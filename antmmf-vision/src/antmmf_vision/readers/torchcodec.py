"""Read a video through torchcodec: it needs FFmpeg's libraries on the system, and a torch that fits."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
from antmmf.errors import PluginError

from antmmf_vision.readers.video import Video, VideoReader

_INSTEAD = "or use reader pyav instead"


class TorchcodecReader(VideoReader):
    """Frames are asked for by their time; refuses files of which torchcodec is known to give other pictures
    (``Video.pitfalls``). Raises ``PluginError`` at construction where torchcodec cannot be used.
    """

    name = "torchcodec"

    def __init__(self) -> None:
        self.probe()

    @classmethod
    def probe(cls) -> str:
        """torchcodec's version; raise ``PluginError`` where it is not installed or does not load."""
        if find_spec("torchcodec") is None:
            raise PluginError(f"torchcodec is not installed: pip install torchcodec, {_INSTEAD}")
        try:
            import_module("torchcodec.decoders")
        except Exception as error:  # it raises whatever the loader of a library says
            said = str(error).strip().splitlines()
            reason = said[0] if said else type(error).__name__
            raise PluginError(
                f"torchcodec is installed but does not load ({reason[:120]}): it needs FFmpeg 4 to 8 on the system and "
                f"the torch that it was built for; {_INSTEAD}"
            ) from error
        return version("torchcodec")

    def _decode(self, video: Video, indices: np.ndarray) -> np.ndarray:
        return decode(video, indices)


def decode(video: Video, indices: np.ndarray) -> np.ndarray:
    """The shown frames at ``indices`` (K,): (K, H, W, 3) uint8, upright. Raises ``DataError``."""
    TorchcodecReader.probe()
    source, pitfall = video.source, next(video.pitfalls(), None)
    if not video.stores_times:
        pitfall = "it stores no times of its frames"
    if pitfall is not None:
        raise video.fault(pitfall, reason="unsupported")
    order, rows = np.unique(indices, return_inverse=True)
    try:
        decoder = import_module("torchcodec.decoders").VideoDecoder(
            str(source.path) if source.is_file else source.open().read(),
            stream_index=video.stream.index,
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
        )
        frames: np.ndarray = decoder.get_frames_played_at(
            _seconds(video, order, decoder.metadata.begin_stream_seconds or 0.0)
        ).data.numpy()
    except (RuntimeError, ValueError, IndexError) as error:
        said = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise video.fault(said[0]) from error
    chosen: np.ndarray = frames[rows.reshape(-1)]
    return chosen


def _seconds(video: Video, indices: np.ndarray, begin: float) -> list[float]:
    """A moment inside each frame: a little after its start, where rounding does no harm. ``begin`` is torchcodec's time
    of the first one, which its FFmpeg may see elsewhere than ours."""
    ticks = np.asarray(video.ticks, dtype=np.float64)
    shortest = np.diff(ticks).min(initial=1 / video.tick)
    moments: list[float] = (begin + (ticks[indices] - ticks[0] + shortest / 4) * video.tick).tolist()
    return moments
