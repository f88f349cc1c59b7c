"""Checks of image files and label maps by what their headers and samples are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from icmbench.data.images import Header, ImageFiles, read_header, used_bits
from icmbench.data.index import Index
from icmbench.data.label_maps import VOID, read_label_map
from icmbench.errors import UserError

_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


def check_images(
    images: Path, names: Sequence[str], sizes: Sequence[tuple[int, int]] | None = None
) -> list[str]:
    """Read the header of every image and return notes for people.

    Args:
        images: folder or archive of the images.
        names: of the files in it.
        sizes: width and height that their entries give.

    Raises:
        UserError: naming the first image that cannot be used, and how many more.
    """
    files = ImageFiles(images, keep=False)
    problems: list[str] = []
    turned = 0
    deep: list[int] = []
    for place, name in enumerate(names):
        try:
            header = files.load(name, read_header)
            reason = None if sizes is None else _other_view(header, sizes[place])
            if reason is not None:
                raise UserError(f"{images / name}: {reason}")
            if header.deep:  # few sets have such images
                deep.append(used_bits(files.read(name)))
        except UserError as error:
            problems.append(str(error))
            continue
        turned += header.orientation != 1
    if problems:
        raise UserError(f"{problems[0]}{more(problems, len(names))}")
    notes = []
    if turned:
        notes.append(
            f"{turned} images have an orientation in EXIF; their samples are taken as stored"
        )
    if deep and max(deep) < 16:
        notes.append(
            f"{len(deep)} images have samples of 16 bits of which they use {min(deep)} to "
            f"{max(deep)}: they are read as dark images"
        )
    return notes


def check_label_maps(index: Index) -> int:
    """Read every label map and return the largest index, without 255.

    Raises:
        UserError: naming the first map that cannot be used, and how many more.
    """
    images = ImageFiles(index.images, keep=False)
    problems: list[str] = []
    largest = 0
    for name, path in zip(index.files, index.maps or (), strict=True):
        try:
            found = ImageFiles(path.parent, keep=False).load(path.name, read_label_map)
            height, width = images.size(name)
            if found.shape != (height, width):
                own = f"{found.shape[1]} x {found.shape[0]} pixels, its image {width} x {height}"
                raise UserError(f"{path}: the label map has {own}; make them equal")
        except UserError as error:
            problems.append(str(error))
            continue
        largest = max(largest, int(np.max(found, where=found != VOID, initial=0)))
    if problems:
        raise UserError(f"{problems[0]}{more(problems, len(index.files))}")
    return largest


def _other_view(header: Header, annotated: tuple[int, int]) -> str | None:
    """Return why an entry's boxes may not be those of the stored samples, or None.

    Most tools for annotation turn an image as EXIF asks; samples are taken as stored. Where both
    have the same size, nothing shows which of them was annotated.
    """
    height, width = header.size
    if (width, height) == annotated:
        known = header.orientation == 1 or (header.orientation in _SIDEWAYS and width != height)
        return (
            None
            if known
            else (
                f"EXIF orientation {header.orientation}: its entry fits the image as stored and as "
                "shown; store it as it was annotated, without the tag"
            )
        )
    sizes = f"the image has {width} x {height} pixels, its entry {annotated[0]} x {annotated[1]}"
    if header.orientation in _SIDEWAYS and header.size == annotated:
        return (
            f"{sizes}: it is annotated upright, and stored with EXIF orientation "
            f"{header.orientation}; store it upright, without the tag"
        )
    return f"{sizes}; annotate the file that is there, or restore the one that was annotated"


def more(problems: Sequence[object], total: int) -> str:
    """Return how many more than the first problem there are, as a part of a message."""
    return f" ({len(problems)} of {total} have a problem)" if len(problems) > 1 else ""
