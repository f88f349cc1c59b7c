"""What every codec offers to the encoder, the decoder and the trainer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Picture = np.ndarray[Any, np.dtype[np.uint8]]


def picture_digest(picture: Picture) -> str:
    """Return the SHA-256 of a picture's shape and samples."""
    return hashlib.sha256(str(picture.shape).encode() + picture.tobytes()).hexdigest()


@dataclass(frozen=True)
class Encoded:
    """One coded image.

    Attributes:
        data: the bitstream, headers included; its length is the rate.
        reconstruction: what the encoder expects the decoder to return, uint8 [H, W, 3]; None where
            an external encoder does not tell.
        pixels_coded: pixels that were really coded, padding included.
        bits_estimated: the entropy model's own estimate in bits; NaN where there is none.
        bits_counted: the rate in bits where ``data`` is no bitstream, see ``codecs.estimated``.
    """

    data: bytes
    reconstruction: Picture | None
    pixels_coded: int
    bits_estimated: float = float("nan")
    bits_counted: int | None = None

    @property
    def bits(self) -> int:
        """The rate in bits."""
        return 8 * len(self.data) if self.bits_counted is None else self.bits_counted


class ImageCodec(Protocol):
    """Turns an RGB picture into bytes and back; what evaluation needs of any codec."""

    def implementation(self) -> str:
        """Return name and version of the code or program that does the coding."""
        ...

    def encode(self, picture: Picture) -> Encoded:
        """Code a uint8 RGB picture [H, W, 3]."""
        ...

    def decode(self, data: bytes) -> Picture:
        """Return the uint8 RGB picture [H, W, 3] of a bitstream."""
        ...


@dataclass
class CodecOutput:
    """What a learned codec yields for a batch while training.

    Attributes:
        images: decoded batch [B, 3, H, W], float32 in [0, 1].
        bits: estimated bits of the whole batch, a scalar tensor.
        pixels: coded pixels of the whole batch, padding included.
    """

    images: Tensor
    bits: Tensor
    pixels: int
