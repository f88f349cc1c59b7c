"""The original pixels: the upper end of every curve, at 24 bits per pixel."""

from __future__ import annotations

from icmbench.codecs.base import Encoded, RgbImage
from icmbench.errors import UserError
from icmbench.registry import CODECS, CodecEntry, NoParameters

CODECS.register(
    CodecEntry(
        name="uncoded",
        kind="none",
        parameters=NoParameters,
        implementation="icmbench.codecs.uncoded:Uncoded",
    )
)


class Uncoded:
    """Keeps the image as it is."""

    def __init__(self, parameters: NoParameters, rate: float | None = None) -> None:
        self.parameters = parameters

    def implementation(self) -> str:
        """Return the name for the records."""
        return "uncoded 24-bit RGB"

    def encode(self, image: RgbImage) -> Encoded:
        """Return the raw samples."""
        height, width = image.shape[:2]
        return Encoded(image.tobytes(), image, height * width)

    def decode(self, data: bytes) -> RgbImage:
        """Refuse: raw samples do not contain the size of the image."""
        raise UserError("codec 'uncoded' has no bitstream to decode; evaluate the images directly")
