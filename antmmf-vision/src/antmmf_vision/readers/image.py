"""Read a picture as a video of one frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from antmmf.contracts import Clip, Json, Pick, Source
from antmmf.errors import DataError
from PIL import Image, ImageOps, UnidentifiedImageError

from antmmf_vision.readers.faults import checked, fault
from antmmf_vision.readers.picking import picked


class ImageReader:
    """Decodes through PIL: RGB, upright as its EXIF data asks; of an animation, the first picture. Its time is 0 s."""

    def read(self, source: Source, pick: Pick) -> Clip:
        """Raise ``DataError`` when PIL cannot decode the file."""
        with _opened(source) as image:
            frame = np.asarray(_rgb(ImageOps.exif_transpose(image)))
        indices = picked(pick, np.zeros(1), source)
        return Clip(frames=frame[None][indices], num_total=1)

    def facts(self, source: Source) -> Mapping[str, Json]:
        """Format and size as stored; raises as ``read`` does, but does not decode."""
        with _opened(source) as image:
            return {"container": str(image.format).lower(), "height": image.height, "width": image.width, "frames": 1}


@contextmanager
def _opened(source: Source) -> Iterator[Image.Image]:
    checked(source, reader="image")
    try:
        with source.open() as file, Image.open(file) as image:
            yield image
    except UnidentifiedImageError as error:
        raise DataError(f"{source}: it is no picture that PIL knows (reader image)", reason="not_media") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise fault(source, error, reader="image", reason=reason) from error


def _rgb(image: Image.Image) -> Image.Image:
    """RGB of any mode: 16-bit gray is scaled to 8 bits, what is transparent becomes white."""
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        return Image.fromarray(
            (wide >> 8 if wide.max(initial=0) > 255 else wide).clip(0, 255).astype(np.uint8)
        ).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
