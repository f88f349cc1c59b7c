"""Stands in for a bitstream where a study evaluates the estimated rate: the picture itself.

A sequential decoder takes seconds a picture; on thousands of pictures a study may count what the
entropy model estimates. Records and report say so; the decoded picture is the encoder's own.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from icmbench.codecs.base import Picture


def as_png(picture: Picture) -> bytes:
    """Return a uint8 RGB picture [H, W, 3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def from_png(data: bytes) -> Picture:
    """Return the picture that :func:`as_png` wrote."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
