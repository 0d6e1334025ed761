"""Read a picture as a video of one frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from antmmf.contracts import Clip, Pick
from antmmf.errors import DataError
from PIL import Image, ImageOps

from antmmf_vision.readers.picking import picked


class ImageReader:
    """Decodes through PIL: RGB, upright as its EXIF data asks; of an animation, the first picture. Its time is 0 s."""

    def read(self, source: Path, pick: Pick) -> Clip:
        """Raise ``DataError`` when PIL cannot decode the file."""
        try:
            with Image.open(source) as image:
                frame = np.asarray(_rgb(ImageOps.exif_transpose(image)))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{source}: {error} (reader image)") from error
        indices = picked(pick, np.zeros(1), source)
        return Clip(frames=frame[None][indices], num_total=1)


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
