"""Still image formats through Pillow: JPEG, JPEG 2000, WebP, AVIF.

Their decoders notice what is missing of a file, but of what is changed inside its coded samples
only what breaks the syntax: these formats have no checksum.
"""

from __future__ import annotations

import io
import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError, features

from icmbench.codecs.base import Encoded, RgbImage
from icmbench.codecs.classical import (
    AvifParameters,
    Jpeg2000Parameters,
    JpegParameters,
    WebpParameters,
)
from icmbench.codecs.classical.base import Implementation, InProcessCodec, whole_rate
from icmbench.errors import UserError
from icmbench.utils.programs import Program

# What Pillow's readers were seen to raise on damaged files; a header may claim any size.
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, RuntimeError),
    Image.DecompressionBombError,
)


class PillowAnchor(InProcessCodec):
    """A format that Pillow writes and reads; the rate is the size of the file.

    Attributes:
        file_format: Pillow's name of it.
        library: Pillow's name and ours of the library inside.
        end: bytes that every whole file ends with.
    """

    file_format: ClassVar[str]
    library: ClassVar[tuple[str, str]]
    end: ClassVar[bytes] = b""

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Return Pillow's options for saving."""

    def version(self) -> str:
        """Return Pillow's version and that of the library inside."""
        feature, name = self.library
        return f"{PIL.__version__}, {name} {features.version(feature)}"

    def describe(self) -> Implementation:
        """Return Pillow, the library inside and every option given."""
        return Implementation("Pillow", self.version(), dict(self.settings()))

    def compress(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3]; the rate is the size of the file."""
        buffer = io.BytesIO()
        height, width = image.shape[:2]
        try:
            Image.fromarray(image).save(buffer, self.file_format, **self.settings())
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{self.file_format} cannot code an image of {width} x {height}: "
                f"{_line(error)}; use smaller images or another classical codec"
            ) from None
        data = buffer.getvalue()
        return Encoded(data, None, height * width)

    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a file."""
        if not data.endswith(self.end):
            raise _damaged(self.file_format, "its end is missing")
        try:
            with Image.open(io.BytesIO(data), formats=[self.file_format]) as image:
                return np.asarray(image.convert("RGB"))
        except UnidentifiedImageError:
            raise _damaged(self.file_format, "it is no such file") from None
        except _DECODER_ERRORS as error:
            raise _damaged(self.file_format, _line(error)) from None


def _damaged(file_format: str, reason: str) -> UserError:
    return UserError(f"bitstream is damaged: {file_format}: {reason}; code the image again")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class Jpeg(PillowAnchor):
    """Baseline JPEG at one quality, as CompressAI's published curve uses it.

    Args:
        parameters: chroma format and Huffman tables.
        rate: Pillow's ``quality``, 1 to 95.
        programs: none.
    """

    file_format = "JPEG"
    library = ("libjpeg_turbo", "libjpeg-turbo")
    end = b"\xff\xd9"

    def __init__(
        self,
        parameters: JpegParameters,
        rate: float | None = None,
        programs: Mapping[str, Program] | None = None,
    ) -> None:
        super().__init__(parameters, rate, programs)
        self.parameters = parameters
        self.quality = whole_rate("jpeg", "quality", rate, 1, 95)

    def settings(self) -> dict[str, Any]:
        """Return quality, chroma format and whether Huffman tables are optimised."""
        return {
            "quality": self.quality,
            "subsampling": self.parameters.chroma,
            "optimize": self.parameters.optimize,
        }


class Jpeg2000(PillowAnchor):
    """JPEG 2000 with the 9/7 wavelet, aimed at one compression ratio.

    Args:
        parameters: whether the file format's boxes surround the codestream.
        rate: bytes of the image, three per pixel, for each byte of the file; above 1.
        programs: none.
    """

    file_format = "JPEG2000"
    library = ("jpg_2000", "OpenJPEG")
    end = b"\xff\xd9"

    def __init__(
        self,
        parameters: Jpeg2000Parameters,
        rate: float | None = None,
        programs: Mapping[str, Program] | None = None,
    ) -> None:
        super().__init__(parameters, rate, programs)
        if rate is None or not (math.isfinite(rate) and rate > 1):
            raise UserError(f"jpeg2000 ratio {rate!r}: allowed are numbers above 1")
        self.parameters = parameters
        self.ratio = float(rate)

    def settings(self) -> dict[str, Any]:
        """Return the ratio as the only quality layer, the transforms and the container."""
        return {
            "quality_mode": "rates",
            "quality_layers": [self.ratio],
            "irreversible": True,
            "mct": 1,  # colours are decorrelated, which Pillow leaves out; worth 2.6 dB
            "no_jp2": self.parameters.container == "j2k",
        }


class Webp(PillowAnchor):
    """Lossy WebP, 4:2:0.

    Args:
        parameters: effort.
        rate: Pillow's ``quality``, 0 to 100.
        programs: none.
    """

    file_format = "WEBP"
    library = ("webp", "libwebp")

    def __init__(
        self,
        parameters: WebpParameters,
        rate: float | None = None,
        programs: Mapping[str, Program] | None = None,
    ) -> None:
        super().__init__(parameters, rate, programs)
        self.parameters = parameters
        self.quality = whole_rate("webp", "quality", rate, 0, 100)

    def settings(self) -> dict[str, Any]:
        """Return quality and effort."""
        return {"quality": self.quality, "method": self.parameters.method, "lossless": False}


class Avif(PillowAnchor):
    """AVIF coded by libaom and decoded by dav1d, 8 bits.

    Args:
        parameters: chroma format and speed.
        rate: Pillow's ``quality``, 0 to 100.
        programs: none.
    """

    file_format = "AVIF"
    library = ("avif", "libavif")

    def __init__(
        self,
        parameters: AvifParameters,
        rate: float | None = None,
        programs: Mapping[str, Program] | None = None,
    ) -> None:
        super().__init__(parameters, rate, programs)
        self.parameters = parameters
        self.quality = whole_rate("avif", "quality", rate, 0, 100)

    def version(self) -> str:
        """Return the versions of Pillow, libavif and the coder and decoder inside."""
        from PIL import _avif  # here: a Pillow without AVIF has the other formats

        return f"{super().version()}, {_avif.codec_versions()}"

    def settings(self) -> dict[str, Any]:
        """Return quality, chroma format, speed; one thread and no tiles of its own choice."""
        return {
            "quality": self.quality,
            "subsampling": self.parameters.chroma,
            "speed": self.parameters.speed,
            "codec": "aom",
            "range": "full",
            "max_threads": 1,
            "autotiling": False,
        }
