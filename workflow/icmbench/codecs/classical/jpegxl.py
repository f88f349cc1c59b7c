"""JPEG XL by libjxl inside imagecodecs (ISO/IEC 18181-1)."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np

from icmbench.codecs.base import Encoded, RgbImage
from icmbench.codecs.classical.base import Implementation, InProcessCodec, damaged
from icmbench.codecs.classical.entries import JpegXlParameters
from icmbench.errors import UserError

_LARGEST = 25.0
# Seen from imagecodecs on damaged files; a header may contain any size.
_DECODER_ERRORS = (ValueError, RuntimeError, MemoryError, OverflowError)


class JpegXl(InProcessCodec):
    """Lossy JPEG XL at one Butteraugli distance, in XYB; the rate is the size of the codestream.

    The rate setting is libjxl's ``distance``, above 0 and at most 25: 1 is visually lossless.
    The format has no checksum; its decoder notices a missing end, but changed bits only if they
    break the syntax. Samples that different versions of libjxl decode differ by up to one level.
    """

    title = "jpegxl"
    rate_name = "distance"
    parameters: JpegXlParameters

    def check_rate(self, rate: float | None) -> float:
        """Return the distance."""
        if rate is None or not 0 < rate <= _LARGEST:
            raise UserError(
                f"jpegxl distance {rate!r}: must be a number above 0, at most {_LARGEST:g}"
            )
        return float(rate)

    def _settings(self) -> dict[str, Any]:
        return {"distance": self.rate, "effort": self.parameters.effort, "usecontainer": False}

    def describe(self) -> Implementation:
        """Return imagecodecs, libjxl and every option."""
        version = f"{imagecodecs.__version__}, {imagecodecs.jpegxl_version()}"
        return Implementation("imagecodecs", version, self._settings())

    def compress(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3]; the rate is the size of the codestream."""
        height, width = image.shape[:2]
        try:
            data = imagecodecs.jpegxl_encode(image, numthreads=1, **self._settings())
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"jpegxl cannot code an image of {width} x {height} "
                f"({' '.join(str(error).split())[:200]}); use smaller images or another codec"
            ) from None
        return Encoded(bytes(data), None, height * width)

    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a codestream."""
        try:
            image = imagecodecs.jpegxl_decode(data, numthreads=1)
        except _DECODER_ERRORS as error:
            raise damaged("JPEG XL", str(error)) from None
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise damaged("JPEG XL", f"it decodes to {image.dtype} {image.shape}")
        return np.ascontiguousarray(image)
