"""Images as arrays, tensors and PNG in memory; decoded latents. Only tensors import torch."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

RgbImage = np.ndarray[Any, np.dtype[np.uint8]]

# What the bitstream of a feature codec decodes to before any network runs: arrays by name, of small
# types. ``size`` [2] holds height and width of the image in pixels, without padding.
Latents = dict[str, np.ndarray[Any, np.dtype[Any]]]


def decoded_digest(decoded: RgbImage | Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Return the SHA-256 of an image's, or of latents', shapes and samples."""
    digest = hashlib.sha256()
    arrays = {"": decoded} if isinstance(decoded, np.ndarray) else dict(sorted(decoded.items()))
    for name, array in arrays.items():
        digest.update(f"{name}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def as_png(image: RgbImage) -> bytes:
    """Return a uint8 image [H, W, 3], or a map [H, W], as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def from_png(data: bytes) -> RgbImage:
    """Return the uint8 RGB image [H, W, 3] of a PNG file."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def to_tensor(image: RgbImage) -> Tensor:
    """Return a uint8 image [H, W, 3] as a float32 batch [1, 3, H, W] in [0, 1]."""
    import torch

    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def to_image(image: Tensor) -> RgbImage:
    """Return a float image [3, H, W] as uint8 [H, W, 3], clamped to [0, 1] and rounded once."""
    import torch

    scaled = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return scaled.permute(1, 2, 0).cpu().numpy()
