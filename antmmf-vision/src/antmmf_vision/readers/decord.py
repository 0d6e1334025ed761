"""Read a video through decord: Linux x86-64 only, and it knows fewer formats than FFmpeg's own libraries."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from antmmf.errors import PluginError

from antmmf_vision.readers.video import Video, VideoReader

_IN_AVI = {"mpeg4", "mjpeg"}
CONTAINERS = {"mp4", "matroska", "avi", "flv"}


class DecordReader(VideoReader):
    """Refuses files of which decord is known to give other pictures than the ones asked for (``Video.pitfalls``).

    Raises ``PluginError`` at construction where decord cannot be used.
    """

    name = "decord"

    def __init__(self) -> None:
        self.probe()

    @classmethod
    def probe(cls) -> str:
        """decord's version; raise ``PluginError`` where it is not installed."""
        if find_spec("decord") is None:
            raise PluginError(
                "decord is not installed: pip install decord (Linux x86-64 only), or use reader pyav instead"
            )
        try:
            import decord  # type: ignore[import-untyped]
        except (ImportError, OSError) as error:
            raise PluginError(f"decord is installed but does not load: {error}; use reader pyav instead") from error
        return str(decord.__version__)

    def _decode(self, video: Video, indices: np.ndarray) -> np.ndarray:
        return decode(video, indices)


def decode(video: Video, indices: np.ndarray) -> np.ndarray:
    """The shown frames at ``indices`` (K,): (K, H, W, 3) uint8, upright. Raises ``DataError``."""
    DecordReader.probe()
    import decord

    source, pitfall = video.source, next(video.pitfalls(), None)
    if not CONTAINERS & set(video.container.format.name.split(",")):
        pitfall = f"decord finds no frames in {video.container.format.name}"
    elif "avi" in video.container.format.name and video.context.name not in _IN_AVI:
        pitfall = f"decord mistakes the frames of {video.context.name} in AVI"
    if pitfall is not None:
        raise video.fault(pitfall, reason="unsupported")
    try:
        file = decord.VideoReader(str(source.path) if source.is_file else source.open(), num_threads=1)
        if len(file) != len(video.ticks):
            raise video.fault(f"decord counts {len(file)} frames, not {len(video.ticks)}", reason="unsupported")
        frames: np.ndarray = file.get_batch(indices.tolist()).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        said = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise video.fault(said[0]) from error
    return frames
