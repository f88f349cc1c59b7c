"""Still image formats through Pillow: JPEG, JPEG 2000, WebP, AVIF.

These formats have no checksum: their decoders notice a missing end, but changed bits inside the
coded samples only if they break the syntax.
"""

from __future__ import annotations

import io
import math
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError, features

from icmbench.codecs.base import Encoded, RgbImage
from icmbench.codecs.classical.base import Implementation, InProcessCodec, damaged
from icmbench.codecs.classical.entries import (
    AvifParameters,
    Jpeg2000Parameters,
    JpegParameters,
    WebpParameters,
)
from icmbench.errors import UserError

# Seen from Pillow's readers on damaged files; a header may contain any size.
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, RuntimeError),
    Image.DecompressionBombError,
)


class PillowCodec(InProcessCodec):
    """A format that Pillow writes and reads; the rate is the size of the file.

    Attributes:
        file_format: Pillow's name of it.
        library: Pillow's name and ours of the library inside.
        end: last bytes of every complete file.
    """

    rate_name = "quality"
    rate_range = (0, 100)
    file_format: ClassVar[str]
    library: ClassVar[tuple[str, str]]
    end: ClassVar[bytes] = b""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return Pillow's options for saving."""

    def version(self) -> str:
        """Return Pillow's version and that of the library inside."""
        feature, name = self.library
        return f"{PIL.__version__}, {name} {features.version(feature)}"

    def describe(self) -> Implementation:
        """Return Pillow, the library inside and every option."""
        return Implementation("Pillow", self.version(), self.settings())

    def compress(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3]; the rate is the size of the file."""
        buffer = io.BytesIO()
        height, width = image.shape[:2]
        try:
            Image.fromarray(image).save(buffer, self.file_format, **self.settings())
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{self.file_format} cannot code an image of {width} x {height} "
                f"({' '.join(str(error).split())[:200]}); use smaller images or another codec"
            ) from None
        return Encoded(buffer.getvalue(), None, height * width)

    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a file."""
        if not data.endswith(self.end):
            raise damaged(self.file_format, "its end is missing")
        try:
            with Image.open(io.BytesIO(data), formats=[self.file_format]) as image:
                return np.asarray(image.convert("RGB"))
        except UnidentifiedImageError:
            raise damaged(self.file_format, "not a file of this format") from None
        except _DECODER_ERRORS as error:
            raise damaged(self.file_format, str(error)) from None


class Jpeg(PillowCodec):
    """Baseline JPEG at one quality, as in CompressAI's published curve.

    The rate is Pillow's ``quality``.
    """

    title = "jpeg"
    rate_range = (1, 95)
    file_format = "JPEG"
    library = ("libjpeg_turbo", "libjpeg-turbo")
    end = b"\xff\xd9"
    parameters: JpegParameters

    def settings(self) -> dict[str, Any]:
        """Return quality, chroma format and whether Huffman tables are optimised."""
        return {
            "quality": self.rate,
            "subsampling": self.parameters.chroma,
            "optimize": self.parameters.optimize,
        }


class Jpeg2000(PillowCodec):
    """JPEG 2000 with the 9/7 wavelet, aimed at one compression ratio.

    The rate is that ratio, above 1: bytes of the image, three per pixel, per byte of the file.
    """

    title = "jpeg2000"
    rate_name = "ratio"
    file_format = "JPEG2000"
    library = ("jpg_2000", "OpenJPEG")
    end = b"\xff\xd9"
    parameters: Jpeg2000Parameters

    def check_rate(self, rate: float | None) -> float:
        """Return the ratio."""
        if rate is None or not (math.isfinite(rate) and rate > 1):
            raise UserError(f"jpeg2000 ratio {rate!r}: must be a number above 1")
        return float(rate)

    def settings(self) -> dict[str, Any]:
        """Return the ratio as the only quality layer, the transforms and the container."""
        return {
            "quality_mode": "rates",
            "quality_layers": [self.rate],
            "irreversible": True,
            "mct": 1,  # decorrelates colours, which is off in Pillow by default; worth 2.6 dB
            "no_jp2": self.parameters.container == "j2k",
        }


class Webp(PillowCodec):
    """Lossy WebP, 4:2:0. The rate is Pillow's ``quality``."""

    title = "webp"
    file_format = "WEBP"
    library = ("webp", "libwebp")
    parameters: WebpParameters

    def settings(self) -> dict[str, Any]:
        """Return quality and effort."""
        return {"quality": self.rate, "method": self.parameters.method, "lossless": False}


class Avif(PillowCodec):
    """AVIF coded by libaom and decoded by dav1d, 8 bits. The rate is Pillow's ``quality``."""

    title = "avif"
    file_format = "AVIF"
    library = ("avif", "libavif")
    parameters: AvifParameters

    def version(self) -> str:
        """Return the versions of Pillow, libavif and the coder and decoder inside."""
        from PIL import _avif  # here, so that the other formats work in a Pillow without AVIF

        return f"{super().version()}, {_avif.codec_versions()}"

    def settings(self) -> dict[str, Any]:
        """Return quality, chroma format and speed; one thread, no automatic tiles."""
        return {
            "quality": self.rate,
            "subsampling": self.parameters.chroma,
            "speed": self.parameters.speed,
            "codec": "aom",
            "range": "full",
            "max_threads": 1,
            "autotiling": False,
        }
