"""PASCAL VOC detection sets as COCO-format annotations (Everingham et al., IJCV 88(2), 2010).

VOC counts pixels from 1 and its boxes include both corner pixels; COCO's are edges, counted from 0.
Pixel i covers [i - 1, i], so a VOC box becomes x = xmin - 1, y = ymin - 1, w = xmax - xmin + 1,
h = ymax - ymin + 1: a box of one pixel has area 1, and one of the whole image covers it exactly.
"""

from __future__ import annotations

import math
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from icmbench.data.derived import derived
from icmbench.data.manifest import Manifest
from icmbench.errors import UserError
from icmbench.utils.files import reading

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The 20 classes in the usual, alphabetical order; category ids count from 1."""

_SIDE = 1 << 20  # more pixels than any image's side
_FORMAT = 1  # to be raised with every change of what coco_annotations returns
_SET = re.compile(r"VOC\d{4}/\w+")
_NAME = re.compile(r"\d{6}|\d{4}_\d{6}")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def coco_annotations(
    folder: Path, sets: Sequence[str], check: Callable[[Path], None] | None = None
) -> dict[str, Any]:
    """Return the annotations of some VOC image sets as one COCO-format dictionary.

    An image's ``id`` is its name's digits as a number: ``000005`` of VOC2007 is 5, ``2008_000008``
    of VOC2012 is 2008000008. So ids never depend on the sets chosen, differ between the two years
    (names of VOC2007 have no year) and fit 32 bits. ``file_name`` is relative to ``folder``.
    ``bbox`` is [x, y, width, height] in native pixels as the module says; ``area`` is the box's, as
    there are no masks. Objects that VOC calls difficult have ``iscrowd`` 1: evaluation ignores
    them, and detections that they explain, as VOC's own does. (COCO compares crowds by the share of
    the detection that lies inside; VOC by IoU.) Truncated and occluded objects count like others.

    Args:
        folder: the data set's folder, which holds ``VOC2007`` and so on.
        sets: sets such as ``VOC2007/trainval``, which is ``VOC2007/ImageSets/Main/trainval.txt``.
        check: called with each file before it is read, to raise where it is damaged.

    Raises:
        UserError: naming the file, for an unknown set, a missing image or damaged annotations.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    listed_in: dict[int, str] = {}
    for chosen in sets:
        year, names = _read_set(folder, chosen, check)
        files = _image_files(folder / year / "JPEGImages")
        for name in names:
            identity = int(name.replace("_", ""))
            if identity in listed_in:
                raise UserError(
                    f"{folder}: sets {listed_in[identity]} and {chosen} both list {name}: choose "
                    "sets that share no image"
                )
            listed_in[identity] = chosen
            file = f"{year}/JPEGImages/{name}.jpg"
            if f"{name}.jpg" not in files:
                raise UserError(
                    f"{folder / file}: no such image, but {chosen} lists it: fetch the data set "
                    "again; a mirror of a part needs lists of that part"
                )
            path = folder / year / "Annotations" / f"{name}.xml"
            if check is not None and path.is_file():
                check(path)
            width, height, objects = _read_objects(path)
            images.append({"id": identity, "file_name": file, "width": width, "height": height})
            for item in objects:
                annotations.append({"id": len(annotations) + 1, "image_id": identity, **item})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def cached_coco_annotations(
    folder: Path,
    sets: Sequence[str],
    cache: Path,
    check: Callable[[Path], None] | None = None,
) -> dict[str, Any]:
    """Return :func:`coco_annotations`, read from ``cache`` where that fits the data and the sets.

    See :func:`icmbench.data.derived.derived`.

    Raises:
        UserError: as :func:`coco_annotations`, and where there is no manifest.
    """

    def make(manifest: Manifest) -> dict[str, Any]:
        return {"annotations": coco_annotations(folder, sets, check)}

    def read(content: dict[str, Any]) -> dict[str, Any]:
        return dict(content["annotations"])

    return derived(folder, cache, [_FORMAT, list(sets)], make, read)


def _read_set(
    folder: Path, chosen: str, check: Callable[[Path], None] | None
) -> tuple[str, list[str]]:
    """Return the year's folder and the image names of a set such as ``VOC2007/trainval``."""
    if not _SET.fullmatch(chosen):
        raise UserError(f"set {chosen!r} is not of the form VOC2007/trainval: correct it")
    year, name = chosen.split("/")
    path = folder / year / "ImageSets" / "Main" / f"{name}.txt"
    try:
        with reading(path, "fetch the data set again"):
            lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        known = sorted(p.relative_to(folder) for p in folder.glob("VOC*/ImageSets/Main/*.txt"))
        there = ", ".join(f"{p.parts[0]}/{p.stem}" for p in known) or "none"
        raise UserError(f"{path}: no such set: choose among those there ({there})") from None
    if check is not None:
        check(path)
    names: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        entry = line.strip()
        if not entry:
            continue
        if not _NAME.fullmatch(entry):
            raise UserError(
                f"{path}: line {number}: {entry!r} is no image name such as 000005 or "
                "2008_000008: fetch the data set again"
            )
        if entry in names:
            raise UserError(f"{path}: line {number}: {entry} is there twice: remove one")
        names[entry] = None
    return year, list(names)


def _image_files(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except FileNotFoundError:
        raise UserError(f"{folder}: no such folder of images: fetch the data set again") from None


def _read_objects(path: Path) -> tuple[int, int, list[dict[str, Any]]]:
    """Return an image's width, height and objects, without their ids."""
    try:
        with reading(path, "fetch the data set again"):
            data = path.read_bytes()
    except FileNotFoundError:
        raise _damaged(path, "no such file") from None
    # VOC declares none, and entities can grow without bound.
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise _damaged(path, "declares a document type or entities, which VOC's files never do")
    try:
        root = ET.fromstring(data)
    except (ET.ParseError, ValueError, LookupError) as error:  # also of an unknown encoding
        raise _damaged(path, f"not valid XML ({error})") from None
    size = root.find("size")
    if size is None:
        raise _damaged(path, "no <size>")
    width, height = (_number(path, size, tag) for tag in ("width", "height"))
    if min(width, height) < 1 or max(width, height) > _SIDE or width % 1 or height % 1:
        raise _damaged(path, f"<size> {width:g} x {height:g} is not a number of pixels")
    # Direct children only: the parts of a person (head, hand, foot) have names and boxes as well.
    objects = [_read_object(path, item) for item in root.findall("object")]
    return int(width), int(height), objects


def _read_object(path: Path, item: ET.Element) -> dict[str, Any]:
    name = (item.findtext("name") or "").strip()
    if name not in CLASSES:
        raise _damaged(path, f"class {name!r} is not one of VOC's 20")
    corners = item.find("bndbox")
    if corners is None:
        raise _damaged(path, f"no <bndbox> in an object of class {name}")
    # A few boxes of VOC2012 have fractions of pixels; they are kept.
    left, top, right, bottom = (_number(path, corners, tag) for tag in _CORNERS)
    if max(map(abs, (left, top, right, bottom))) > _SIDE:
        raise _damaged(path, f"box {left:g} {top:g} {right:g} {bottom:g} is not in an image")
    if right < left or bottom < top:
        raise _damaged(path, f"box {left:g} {top:g} {right:g} {bottom:g} ends before it begins")
    width, height = right - left + 1, bottom - top + 1
    # The tag is optional: an object without it is an ordinary one.
    difficult = (item.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise _damaged(path, f"<difficult> {difficult!r} is neither 0 nor 1")
    return {
        "category_id": CLASSES.index(name) + 1,
        "bbox": [left - 1, top - 1, width, height],
        "area": width * height,
        "iscrowd": int(difficult),
    }


def _number(path: Path, parent: ET.Element, tag: str) -> float:
    text = parent.findtext(tag)
    if text is None:
        raise _damaged(path, f"no <{tag}> in <{parent.tag}>")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _damaged(path, f"<{tag}> {text.strip()!r} is not a number")
    return value


def _damaged(path: Path, problem: str) -> UserError:
    return UserError(f"{path}: {problem}: fetch the data set again")
