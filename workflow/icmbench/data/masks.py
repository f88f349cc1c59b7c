"""Instance masks between COCO's run lengths and tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pycocotools import mask as run_lengths
from torch import Tensor
from torch.nn import functional

_THRESHOLD = 0.5


def encode_mask(probabilities: Tensor, width: int, height: int) -> dict[str, Any]:
    """Return the run lengths of a mask [h, w] of probabilities, resized to width x height."""
    if probabilities.shape != (height, width):
        probabilities = functional.interpolate(
            probabilities[None, None], (height, width), mode="bilinear", align_corners=False
        )[0, 0]
    binary = (probabilities > _THRESHOLD).numpy().astype(np.uint8)
    coded = run_lengths.encode(np.asfortranarray(binary))
    return {"size": [height, width], "counts": coded["counts"].decode("ascii")}


def decode_masks(
    segmentations: list[Any], native: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Return binary masks [N, H, W], uint8, of COCO segmentations: polygons or run lengths.

    Args:
        segmentations: of N instances, in native pixels.
        native: height and width in which they are given.
        size: H and W of the picture that was coded.
    """
    masks = np.zeros((len(segmentations), *native), np.uint8)
    for place, segmentation in enumerate(segmentations):
        if isinstance(segmentation, list):
            coded = run_lengths.merge(run_lengths.frPyObjects(segmentation, *native))
        elif isinstance(segmentation["counts"], list):
            coded = run_lengths.frPyObjects(segmentation, *native)
        else:
            coded = segmentation
        masks[place] = run_lengths.decode(coded)
    tensor = torch.from_numpy(masks)
    if native == size or not len(segmentations):
        return tensor if native == size else tensor.new_zeros((0, *size))
    resized = functional.interpolate(tensor[:, None].float(), size, mode="nearest")
    return resized[:, 0].to(torch.uint8)
