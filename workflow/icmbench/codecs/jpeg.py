"""JPEG through Pillow (libjpeg-turbo), as CompressAI's published curve uses it."""

from __future__ import annotations

import io

import numpy as np
import PIL
from PIL import Image, features

from icmbench.codecs import JpegParameters
from icmbench.codecs.base import Encoded, Picture
from icmbench.errors import UserError


class Jpeg:
    """Baseline JPEG at one quality.

    Args:
        parameters: chroma subsampling and Huffman tables.
        rate: Pillow's ``quality``, 1 to 95.
    """

    def __init__(self, parameters: JpegParameters, rate: float | None = None) -> None:
        if rate is None or rate != int(rate) or not 1 <= rate <= 95:
            raise UserError(f"jpeg quality {rate!r}: allowed are whole numbers from 1 to 95")
        self.parameters = parameters
        self.quality = int(rate)

    def implementation(self) -> str:
        """Return Pillow's and libjpeg-turbo's versions and the settings."""
        library = features.version("libjpeg_turbo") or features.version("jpg")
        return (
            f"Pillow {PIL.__version__}, libjpeg-turbo {library}, "
            f"{self.parameters.subsampling}, quality {self.quality}"
        )

    def encode(self, picture: Picture) -> Encoded:
        """Code a uint8 RGB picture [H, W, 3]; the rate is the size of the JPEG file."""
        buffer = io.BytesIO()
        Image.fromarray(picture).save(
            buffer,
            "JPEG",
            quality=self.quality,
            subsampling=self.parameters.subsampling,
            optimize=self.parameters.optimize,
        )
        data = buffer.getvalue()
        height, width = picture.shape[:2]
        return Encoded(data, self.decode(data), height * width)

    def decode(self, data: bytes) -> Picture:
        """Return the uint8 RGB picture [H, W, 3] of a JPEG file."""
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
