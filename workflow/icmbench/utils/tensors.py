"""Images (uint8 RGB arrays) to tensors and back, rounding once."""

from __future__ import annotations

import torch
from torch import Tensor

from icmbench.utils.images import RgbImage


def to_tensor(image: RgbImage) -> Tensor:
    """Return a uint8 image [H, W, 3] as a float32 batch [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def to_image(image: Tensor) -> RgbImage:
    """Return a float image [3, H, W] as uint8 [H, W, 3], clamped to [0, 1] and rounded."""
    scaled = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return scaled.permute(1, 2, 0).cpu().numpy()
