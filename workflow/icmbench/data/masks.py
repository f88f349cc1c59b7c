"""Instance masks between COCO's run lengths and tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pycocotools import mask as run_lengths
from torch import Tensor
from torch.nn import functional

from icmbench.data.readers.coco import as_run_lengths
from icmbench.utils.coco import RunLengths

_THRESHOLD = 0.5
_AT_ONCE = 16  # masks of an image that are resized together, for memory


def encode_masks(probabilities: Tensor, width: int, height: int) -> list[RunLengths]:
    """Return the run lengths of masks [N, 1, h, w] of probabilities, resized to width x height.

    They are resized where they are: a GPU hands over bits of native size, not pasted floats.
    """
    coded: list[RunLengths] = []
    for some in probabilities.float().split(_AT_ONCE):
        if some.shape[-2:] != (height, width):
            some = functional.interpolate(
                some, (height, width), mode="bilinear", align_corners=False
            )
        for binary in (some[:, 0] > _THRESHOLD).to(torch.uint8).cpu().numpy():
            lengths = run_lengths.encode(np.asfortranarray(binary))["counts"].decode("ascii")
            coded.append({"size": [height, width], "counts": lengths})
    return coded


def decode_masks(
    segmentations: list[Any], native: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Return binary masks [N, H, W], uint8, of COCO segmentations: polygons or run lengths.

    Args:
        segmentations: of N instances, in native pixels.
        native: height and width in which they are given.
        size: H and W of the image that was coded.
    """
    masks = np.zeros((len(segmentations), *native), np.uint8)
    for place, segmentation in enumerate(segmentations):
        masks[place] = run_lengths.decode(as_run_lengths(segmentation, *native))
    tensor = torch.from_numpy(masks)
    if native == size or not len(segmentations):
        return tensor if native == size else tensor.new_zeros((0, *size))
    resized = functional.interpolate(tensor[:, None].float(), size, mode="nearest")
    return resized[:, 0].to(torch.uint8)
