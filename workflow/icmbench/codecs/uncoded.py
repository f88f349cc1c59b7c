"""The original pixels: the upper end of every curve, at 24 bits per pixel."""

from __future__ import annotations

from icmbench.codecs import NoParameters
from icmbench.codecs.base import Encoded, Picture
from icmbench.errors import UserError


class Uncoded:
    """Keeps the picture as it is."""

    def __init__(self, parameters: NoParameters, rate: float | None = None) -> None:
        self.parameters = parameters

    def implementation(self) -> str:
        """Return what stands in the records."""
        return "uncoded 24-bit RGB"

    def encode(self, picture: Picture) -> Encoded:
        """Return the raw samples."""
        height, width = picture.shape[:2]
        return Encoded(picture.tobytes(), picture, height * width)

    def decode(self, data: bytes) -> Picture:
        """Raw samples carry no size: there is nothing to decode."""
        raise UserError("codec 'uncoded' has no bitstream to decode; evaluate the images directly")
