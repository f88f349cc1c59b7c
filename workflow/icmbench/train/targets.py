"""What a task's losses need with an image, by kind of target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from icmbench.data.dataset import Split
from icmbench.data.masks import decode_masks

Targets = Literal["none", "index", "label", "boxes", "masks", "faces"]

# Kinds that a random crop of the image does not change.
CROPPED = ("none", "label")

Target = dict[str, Tensor]
Size = tuple[int, ...]  # height and width of the image in pixels


def _none(split: Split, index: int, size: Size, mirrored: bool) -> Target:
    return {}


def _index(split: Split, index: int, size: Size, mirrored: bool) -> Target:
    """The image's number, for tasks that keep something about each image."""
    return {"index": torch.tensor(index)}


def _label(split: Split, index: int, size: Size, mirrored: bool) -> Target:
    """The class of the image."""
    return {"label": torch.tensor(split.label(index))}


def _boxes(split: Split, index: int, size: Size, mirrored: bool) -> Target:
    """Boxes [N, 4] (x1, y1, x2, y2 in pixels) and category ids [N]."""
    height, width = size
    boxes, labels = split.target(index, width, height)
    if mirrored:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels)}


def _masks(split: Split, index: int, size: Size, mirrored: bool) -> Target:
    """Boxes, and a mask [H, W] of each box."""
    height, width = size
    native_width, native_height = split.native_size(index)
    masks = decode_masks(split.segmentations(index), (native_height, native_width), (height, width))
    target = _boxes(split, index, size, mirrored)
    return {**target, "masks": masks.flip(-1) if mirrored else masks}


def _faces(split: Split, index: int, size: Size, mirrored: bool) -> Target:
    """Attributes [A] of 0 and 1; the class of every pixel [H, W] if the data set has it."""
    target = {"attributes": torch.from_numpy(split.attributes(index).astype(np.float32))}
    if split.faces.parsing_names:
        parsing = split.parsing(index)
        if mirrored:
            parsing = split.mirrored_parsing(parsing)
        target["parsing"] = torch.from_numpy(parsing.astype(np.int64))
    return target


TARGETS: dict[Targets, Callable[[Split, int, Size, bool], Target]] = {
    "none": _none,
    "index": _index,
    "label": _label,
    "boxes": _boxes,
    "masks": _masks,
    "faces": _faces,
}
