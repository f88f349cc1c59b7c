"""PASCAL VOC detection sets as COCO-format annotations (Everingham et al., IJCV 88(2), 2010).

VOC counts pixels from 1 and its boxes include both corner pixels; COCO's are edges, counted from 0.
Pixel i covers [i - 1, i], so a VOC box becomes x = xmin - 1, y = ymin - 1, w = xmax - xmin + 1,
h = ymax - ymin + 1: a box of one pixel has area 1, and one of the whole image covers it exactly.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from icmbench.errors import UserError, damaged_file, missing_file
from icmbench.utils.coco import (
    CocoAnnotations,
    CocoCategory,
    CocoImage,
    CocoObject,
    CocoShape,
)
from icmbench.utils.files import reading

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
"""The 20 classes in the usual, alphabetical order; category ids count from 1."""

_FETCH = "fetch the data set again"
_SIDE = 1 << 20  # more pixels than any image's side
_SET = re.compile(r"VOC\d{4}/\w+")
_NAME = re.compile(r"\d{6}|\d{4}_\d{6}")


def coco_annotations(folder: Path, sets: Sequence[str]) -> CocoAnnotations:
    """Return the annotations of some VOC image sets as one COCO-format dictionary.

    An image's ``id`` is its name's digits as a number: ``000005`` of VOC2007 is 5, ``2008_000008``
    of VOC2012 is 2008000008. So ids never depend on the sets chosen, differ between the two years
    (names of VOC2007 have no year) and fit 32 bits. ``file_name`` is relative to ``folder``.
    ``bbox`` is [x, y, width, height] in native pixels as described above; ``area`` is the box's, as
    there are no masks. Difficult objects have ``iscrowd`` 1: evaluation ignores them and detections
    that match them, as VOC's own does. (COCO compares crowds by the share of the detection that
    lies inside; VOC by IoU.) Truncated and occluded objects count like others.

    Args:
        folder: the data set's folder, which holds ``VOC2007`` and so on.
        sets: sets such as ``VOC2007/trainval``, which is ``VOC2007/ImageSets/Main/trainval.txt``.

    Raises:
        UserError: naming the file, for an unknown set, a missing image or damaged annotations.
    """
    images: list[CocoImage] = []
    annotations: list[CocoObject] = []
    listed_in: dict[int, str] = {}
    for chosen in sets:
        year, names = _read_set(folder, chosen)
        present = _image_files(folder / year / "JPEGImages")
        for name in names:
            identity = int(name.replace("_", ""))
            if identity in listed_in:
                raise UserError(
                    f"{folder}: sets {listed_in[identity]} and {chosen} both list {name}; choose "
                    "sets that share no image"
                )
            listed_in[identity] = chosen
            file = f"{year}/JPEGImages/{name}.jpg"
            if f"{name}.jpg" not in present:
                raise missing_file(
                    folder / file,
                    f"{chosen} lists it; {_FETCH} (a mirror of a part needs lists of that part)",
                )
            width, height, objects = _read_objects(folder / year / "Annotations" / f"{name}.xml")
            images.append({"id": identity, "file_name": file, "width": width, "height": height})
            for item in objects:
                annotations.append({"id": len(annotations) + 1, "image_id": identity, **item})
    categories: list[CocoCategory] = [
        {"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def _read_set(folder: Path, chosen: str) -> tuple[str, list[str]]:
    """Return the year's folder and the image names of a set such as ``VOC2007/trainval``."""
    if not _SET.fullmatch(chosen):
        raise UserError(f"set {chosen!r} is not of the form VOC2007/trainval; correct it")
    year, name = chosen.split("/")
    path = folder / year / "ImageSets" / "Main" / f"{name}.txt"
    try:
        with reading(path, _FETCH):
            names = path.read_text(encoding="utf-8-sig").split()
    except FileNotFoundError:
        found = folder.glob("VOC*/ImageSets/Main/*.txt")
        known = sorted(f"{p.relative_to(folder).parts[0]}/{p.stem}" for p in found)
        raise missing_file(path, f"choose from {', '.join(known) or 'none'}") from None
    for entry in names:
        if not _NAME.fullmatch(entry):
            reason = f"{entry!r} is not an image name such as 000005 or 2008_000008"
            raise damaged_file(path, reason, _FETCH)
    return year, names


def _image_files(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except FileNotFoundError:
        raise missing_file(folder, _FETCH) from None


def _read_objects(path: Path) -> tuple[int, int, list[CocoShape]]:
    """Return an image's width, height and objects, without their ids."""
    try:
        with reading(path, _FETCH):
            data = path.read_bytes()
            # VOC declares none, and entities can grow without bound.
            if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
                raise ValueError("declares a document type or entities")
            root = ET.fromstring(data)
            width, height = (_number(root, f"size/{tag}") for tag in ("width", "height"))
            if width % 1 or height % 1 or min(width, height) < 1:
                raise ValueError(f"size {width:g} x {height:g} is not a number of pixels")
            # Direct children only: the parts of a person (head, hand) have names and boxes as well.
            return int(width), int(height), [_object(item) for item in root.findall("object")]
    except FileNotFoundError:
        raise missing_file(path, _FETCH) from None


def _object(item: ET.Element) -> CocoShape:
    name = (item.findtext("name") or "").strip()
    if name not in CLASSES:
        raise ValueError(f"unknown class {name!r}")
    # A few boxes of VOC2012 have fractions of pixels; they are kept.
    corners = [_number(item, f"bndbox/{tag}") for tag in ("xmin", "ymin", "xmax", "ymax")]
    left, top, right, bottom = corners
    if right < left or bottom < top:
        raise ValueError(f"box {corners} ends before it begins")
    width, height = right - left + 1, bottom - top + 1
    # The tag is optional: an object without it is an ordinary one.
    difficult = (item.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"difficult {difficult!r} is neither 0 nor 1")
    return {
        "category_id": CLASSES.index(name) + 1,
        "bbox": [left - 1, top - 1, width, height],
        "area": width * height,
        "iscrowd": int(difficult),
    }


def _number(parent: ET.Element, path: str) -> float:
    text = parent.findtext(path)
    if text is None:
        raise ValueError(f"no {path} in {parent.tag}")
    value = float(text)
    if not abs(value) < _SIDE:
        raise ValueError(f"{path} {text.strip()!r} is not a position in an image")
    return value
