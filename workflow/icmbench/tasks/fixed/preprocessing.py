"""What is made of an image before a network reads it, as a task's ``input`` lists it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from icmbench.tasks.fixed.entries import InputParameters


@dataclass(frozen=True)
class Placed:
    """A network's input, and where the image is in it.

    Attributes:
        values: [3, h, w].
        scale: height and width in the input over those of the image.
        offset: row and column of the image's corner in the input; negative where it is cut.
    """

    values: Tensor
    scale: tuple[float, float]
    offset: tuple[int, int]

    def to_image(self, boxes: Tensor) -> Tensor:
        """Return boxes [N, 4] (x1, y1, x2, y2) of the input in pixels of the image."""
        (down, right), (top, left) = self.scale, self.offset
        moved = boxes.float() - torch.tensor([left, top, left, top], dtype=torch.float32)
        return moved / torch.tensor([right, down, right, down], dtype=torch.float32)


def prepare(image: Tensor, settings: InputParameters) -> Placed:
    """Return the network's input of an image [3, H, W] in [0, 1], RGB of 8 bits.

    Resized samples are rounded to 8 bits, as libraries of images do.
    """
    size = height, width = image.shape[-2], image.shape[-1]
    wanted, scale = size, (1.0, 1.0)
    if settings.stretch is not None:
        wanted = (settings.stretch[0], settings.stretch[1])
        scale = (wanted[0] / height, wanted[1] / width)
    elif settings.short_side is not None:
        factor = settings.short_side / min(size)
        wanted = (int(height * factor), int(width * factor))  # torchvision cuts the long side
        wanted = tuple(max(side, settings.short_side) for side in wanted)  # type: ignore[assignment]
        scale = (wanted[0] / height, wanted[1] / width)
    elif settings.letterbox is not None:
        factor = min(settings.letterbox[0] / height, settings.letterbox[1] / width)
        wanted, scale = (int(height * factor), int(width * factor)), (factor, factor)
    values = image
    if wanted != size:
        resized = functional.interpolate(
            image[None],
            wanted,
            mode=settings.interpolation,
            align_corners=False,
            antialias=settings.antialias,
        )
        values = (resized[0].clamp(0, 1) * 255).round() / 255
    offset = (0, 0)
    if settings.letterbox is not None:
        below, beside = (s - own for s, own in zip(settings.letterbox, wanted, strict=True))
        values = functional.pad(values, (0, beside, 0, below), value=settings.padding / 255)
    if settings.crop is not None:
        values, offset = _cropped(values, settings.crop)
    if settings.channels == "bgr":
        values = values.flip(0)
    mean, std = (torch.tensor(own).reshape(-1, 1, 1) for own in (settings.mean, settings.std))
    return Placed((values * settings.range - mean) / std, scale, offset)


def _cropped(values: Tensor, crop: list[int]) -> tuple[Tensor, tuple[int, int]]:
    """Cut the middle, padded with zeros where the image is smaller; also the image's corner."""
    height, width = values.shape[-2:]
    below, beside = max(crop[0] - height, 0), max(crop[1] - width, 0)
    top, left = below // 2, beside // 2
    values = functional.pad(values, (left, beside - left, top, below - top))
    first = tuple(
        round((side - own) / 2) for side, own in zip(values.shape[-2:], crop, strict=True)
    )
    values = values[:, first[0] :, first[1] :][:, : crop[0], : crop[1]]
    return values, (top - first[0], left - first[1])
