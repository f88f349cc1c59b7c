"""Images of several sizes as one batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def stack_padded(images: list[Tensor], multiple: int) -> Tensor:
    """Stack images [3, H, W] into [B, 3, H', W'], repeating edges up to common multiples."""
    height = max(image.shape[-2] for image in images)
    width = max(image.shape[-1] for image in images)
    height += -height % multiple
    width += -width % multiple
    padded = []
    for image in images:
        below, right = height - image.shape[-2], width - image.shape[-1]
        if below or right:
            image = functional.pad(image[None], (0, right, 0, below), mode="replicate")[0]
        padded.append(image)
    return torch.stack(padded)
