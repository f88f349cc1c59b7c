"""Padding that a codec needs and its bitstream cannot name, taken off again when decoding.

Most images need none, and the bitstream stays the codec's own file. Otherwise a header comes
before it and counts as bits: one byte, 0x81 to 0x83, for one column (bit 0) and one row (bit 1)
more; or 0x84 and two bytes, rows and columns, for an image smaller than the codec can code.
Annex B streams begin with a zero byte and BPG with a letter, so neither can be taken for them.
"""

from __future__ import annotations

import math

import numpy as np

from icmbench.codecs.base import RgbImage
from icmbench.errors import UserError

_BLOCK = 8
_MARK = 0x80
_COUNTED = 0x84


def pad(image: RgbImage, multiple: int = 2, smallest: int = 1) -> RgbImage:
    """Repeat the last row and column of an image [H, W, 3] to a size that can be coded.

    Args:
        image: uint8 RGB.
        multiple: each side becomes a multiple of it.
        smallest: and at least as long as this, itself a multiple.
    """
    height, width = image.shape[:2]
    bottom, right = (max(-side % multiple, smallest - side) for side in (height, width))
    if not (bottom or right):
        return image
    return np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge")


def block_pixels(shape: tuple[int, ...]) -> int:
    """Return how many pixels HEVC and VVC code of an image (H, W, ...): whole blocks of 8 x 8."""
    return math.prod(-(-side // _BLOCK) * _BLOCK for side in shape[:2])


def pack(
    data: bytes, image_shape: tuple[int, ...], coded_shape: tuple[int, ...] | None = None
) -> bytes:
    """Return a bitstream with its header, where one is needed.

    Args:
        data: the codec's own bitstream.
        image_shape: (H, W, ...) of the original.
        coded_shape: (H, W, ...) of what was coded; by default the next even sizes.
    """
    height, width = image_shape[:2]
    if coded_shape is None:
        coded_shape = (height + height % 2, width + width % 2)
    bottom, right = coded_shape[0] - height, coded_shape[1] - width
    if bottom <= 1 and right <= 1:
        return bytes([_MARK | bottom << 1 | right]) + data if bottom or right else data
    return bytes([_COUNTED, bottom, right]) + data


def unpack(data: bytes) -> tuple[bytes, int, int]:
    """Return a bitstream without its header, and how many rows and columns to take off."""
    if data and _MARK < data[0] < _COUNTED:
        return data[1:], data[0] >> 1 & 1, data[0] & 1
    if len(data) > 2 and data[0] == _COUNTED:
        return data[3:], data[1], data[2]
    return data, 0, 0


def crop(image: RgbImage, bottom: int, right: int) -> RgbImage:
    """Take rows off the bottom and columns off the right of an image [H, W, 3].

    Raises:
        UserError: where nothing would be left.
    """
    height, width = image.shape[0] - bottom, image.shape[1] - right
    if height < 1 or width < 1:
        raise UserError(
            f"bitstream is damaged: {bottom} rows and {right} columns to take off an image of "
            f"{image.shape[1]} x {image.shape[0]}; code the image again"
        )
    return np.ascontiguousarray(image[:height, :width])
