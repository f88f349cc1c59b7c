"""The parts of COCO's JSON format that are read here; lengths in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict

ImageId = int | str


class CocoImage(TypedDict):
    """An image of an annotation file."""

    id: ImageId
    file_name: str
    width: int
    height: int


class CocoCategory(TypedDict):
    """A class of objects."""

    id: int
    name: str


class RunLengths(TypedDict):
    """A mask of ``size`` [H, W]: column-major run lengths, from zeros; compressed if text."""

    size: list[int]
    counts: str | list[int]


class CocoShape(TypedDict):
    """An object apart from its image; ``bbox`` is [x, y, width, height]."""

    category_id: int
    bbox: Sequence[float]
    area: float
    iscrowd: NotRequired[int]
    segmentation: NotRequired[list[list[float]] | RunLengths]


class CocoObject(CocoShape):
    """An object in an image."""

    id: NotRequired[ImageId]
    image_id: ImageId


class CocoAnnotations(TypedDict):
    """An annotation file."""

    images: list[CocoImage]
    annotations: list[CocoObject]
    categories: list[CocoCategory]


class CocoResult(TypedDict):
    """A detection, in native pixels."""

    image_id: ImageId
    category_id: int
    bbox: NotRequired[Sequence[float]]
    score: float
    segmentation: NotRequired[RunLengths]
