"""An image as the three planes that video codecs take: BT.709, full range, 4:4:4 or 4:2:0."""

from __future__ import annotations

import numpy as np

from icmbench.codecs.base import RgbImage
from icmbench.codecs.classical.colour import (
    Plane,
    Rounding,
    double,
    halve,
    rgb_to_ycbcr,
    ycbcr_to_rgb,
)


def to_planes(
    image: RgbImage, chroma: str, bit_depth: int, rounding: Rounding = "nearest"
) -> list[Plane]:
    """Return Y, Cb, Cr of a uint8 RGB image [H, W, 3]; uint8 for 8 bits, else uint16.

    In 4:2:0, H and W are even and Cb and Cr are [H / 2, W / 2]; their means are always rounded.
    """
    y, cb, cr = rgb_to_ycbcr(image, "bt709", bit_depth, rounding)
    return [y, cb, cr] if chroma == "4:4:4" else [y, halve(cb), halve(cr)]


def from_planes(planes: list[Plane], bit_depth: int, rounding: Rounding = "nearest") -> RgbImage:
    """Return the uint8 RGB image [H, W, 3] of Y and of Cb, Cr of its size or of half of it."""
    y, cb, cr = planes
    if cb.shape != y.shape:
        cb, cr = double(cb), double(cr)
    return ycbcr_to_rgb([y, cb, cr], "bt709", bit_depth, rounding)


def join_planes(planes: list[Plane]) -> bytes:
    """Return planes as raw video, one after the other; 16 bit samples are little endian."""
    return b"".join(
        plane.astype(plane.dtype.newbyteorder("<"), copy=False).tobytes() for plane in planes
    )


def split_planes(
    samples: bytes, height: int, width: int, chroma: str, bit_depth: int
) -> list[Plane]:
    """Return the planes Y, Cb, Cr of raw video, as :func:`join_planes` writes it."""
    dtype = np.dtype(np.uint8 if bit_depth <= 8 else "<u2")
    half = (height, width) if chroma == "4:4:4" else (height // 2, width // 2)
    planes, start = [], 0
    for rows, columns in ((height, width), half, half):
        plane = np.frombuffer(samples, dtype, rows * columns, start)
        planes.append(plane.reshape(rows, columns))
        start += plane.nbytes
    return planes
