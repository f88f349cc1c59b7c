"""Types and digest of an image, and of the latents that a feature codec decodes to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

RgbImage = np.ndarray[Any, np.dtype[np.uint8]]

# What the bitstream of a feature codec decodes to before any network runs: named arrays of small
# integers. ``size`` [2] holds height and width of the image in pixels, without padding.
Latents = dict[str, np.ndarray[Any, np.dtype[Any]]]


def decoded_digest(decoded: RgbImage | Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Return the SHA-256 of the shapes and samples of an image, or of latents."""
    digest = hashlib.sha256()
    arrays = {"": decoded} if isinstance(decoded, np.ndarray) else dict(sorted(decoded.items()))
    for name, array in arrays.items():
        digest.update(f"{name}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()
