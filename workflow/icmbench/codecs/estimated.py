"""Stands in for a bitstream where a study evaluates the estimated rate: the image itself.

A sequential decoder takes seconds an image; on thousands of images a study may count what the
entropy model estimates. Records and report say so; the decoded image is the encoder's own.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from icmbench.codecs.base import RgbImage


def as_png(image: RgbImage) -> bytes:
    """Return a uint8 RGB image [H, W, 3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def from_png(data: bytes) -> RgbImage:
    """Return the image that :func:`as_png` wrote."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
