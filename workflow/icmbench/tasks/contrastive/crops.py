"""ContrastiveCrop (Peng et al., CVPR 2022): where in an image the two views are taken from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torchvision.transforms import v2

_RATIO = (3 / 4, 4 / 3)
AREA = (0.2, 1.0)

Crop = tuple[int, int, int, int]  # top, left, height, width in pixels


def heat_map_boxes(features: Tensor, threshold: float) -> Tensor:
    """Return the box of what a network looks at in each image.

    The heat map is the sum over channels, min-max normalised per image; the box is the smallest
    that holds all its cells above ``threshold``.

    Args:
        features: [B, C, h, w], of the last stage.
        threshold: in [0, 1).

    Returns:
        [B, 4], float32: x1, y1, x2, y2 in units of the image's width and height. The whole image
        where the heat map is flat.
    """
    heat = features.float().sum(1)
    low, high = heat.amin((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
    hot = (heat - low > threshold * (high - low)) | (high <= low)
    x1, x2 = _extent(hot.any(1))
    y1, y2 = _extent(hot.any(2))
    return torch.stack([x1, y1, x2, y2], 1)


def _extent(hot: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the true cells of each row of [B, n] begin and end, in [0, 1]."""
    cells = hot.int()
    count = hot.shape[1]
    return cells.argmax(1) / count, (count - cells.flip(1).argmax(1)) / count


def sample_crop(
    image: Tensor, box: Sequence[float] | None, alpha: float, area: Sequence[float] = AREA
) -> Crop:
    """Draw one crop of an image [3, H, W] from torch's global generator.

    Area and aspect ratio (3/4 to 4/3) are those of a random resized crop. Without a
    box the place is uniform. With one, each coordinate of the centre is Beta(alpha, alpha) over
    that part of the box where the crop stays inside the image (the nearest such centre where there
    is none).

    Args:
        image: gives H and W.
        box: x1, y1, x2, y2 in [0, 1], or None.
        alpha: of the Beta distribution; below 1 the two views of an image are pushed apart.
        area: bounds of the crop's share of the image's area.
    """
    # It draws only, and never resizes.
    drawn = v2.RandomResizedCrop(1, scale=tuple(area), ratio=_RATIO).make_params([image])
    top, left, height, width = (int(drawn[n]) for n in ("top", "left", "height", "width"))
    if box is None:
        return top, left, height, width
    x1, y1, x2, y2 = box
    u, v = Beta(alpha, alpha).sample((2,)).tolist()
    top = _place(y1, y2, height, image.shape[-2], u)
    left = _place(x1, x2, width, image.shape[-1], v)
    return top, left, height, width


def _place(low: float, high: float, length: int, total: int, share: float) -> int:
    """Return where a crop of ``length`` begins whose centre is at ``share`` of the usable range."""
    first, last = length / 2, total - length / 2
    low, high = (min(max(edge * total, first), last) for edge in (low, high))
    begin = round(low + (high - low) * share - length / 2)
    return min(max(begin, 0), total - length)


class CropBoxes(nn.Module):
    """The boxes of all images of the train split; empty until they are first computed.

    They are state: a resumed training must crop as an uninterrupted one. Loading takes the number
    of boxes from what is loaded.
    """

    boxes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("boxes", torch.zeros(0, 4))

    def of(self, indices: Tensor) -> list[list[float] | None]:
        """Return the box of each image of a batch, or None where boxes are not known yet."""
        if not len(self.boxes):
            return [None] * len(indices)
        return list(self.boxes[indices].tolist())  # one wait for the GPU, not one an image

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        held = state_dict.get(f"{prefix}boxes")
        if held is not None:
            self.boxes = self.boxes.new_zeros(held.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
