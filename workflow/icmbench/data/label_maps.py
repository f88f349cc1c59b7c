"""Label maps: the class of every pixel, from PNG files or from annotated objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

from icmbench.data.readers.coco import as_run_lengths
from icmbench.utils.coco import CocoObject

VOID = 255  # no class: such pixels are not counted


def read_label_map(source: Path | IO[bytes]) -> np.ndarray:
    """Return the indices in a PNG of 8 bits, grey or with a palette, uint8 [H, W].

    Raises:
        Exception: of any kind if the file is damaged, not an image or of other samples.
    """
    with Image.open(source) as image:
        if image.mode not in ("P", "L"):
            raise ValueError(f"samples of mode {image.mode}; save 8 bits, grey or palette")
        return np.asarray(image)


def objects_to_map(
    objects: Sequence[CocoObject], labels: Mapping[int, int], height: int, width: int
) -> np.ndarray:
    """Return the label map of annotated objects, uint8 [H, W] in native pixels.

    As torchvision evaluates its segmentation networks on COCO (``references/segmentation``): other
    categories are background, pixels in several objects have no class. Nor have those in crowd
    regions (ours).

    Args:
        objects: of one image, with segmentations.
        labels: label of each category that counts.
        height, width: of the image.
    """
    found = np.zeros((height, width), np.uint8)
    covered = np.zeros((height, width), np.uint16)
    crowd = np.zeros((height, width), bool)
    for own in objects:
        label = labels.get(own["category_id"])
        if label is None:
            continue
        mask = run_lengths.decode(as_run_lengths(own["segmentation"], height, width)) > 0
        if own.get("iscrowd"):
            crowd |= mask
        else:
            found[mask] = label
            covered += mask
    found[crowd | (covered > 1)] = VOID
    return found
