"""Annotations in COCO's format: read, and checked before anything counts on them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from icmbench.errors import DamagedFile
from icmbench.utils.files import read_object

_AGAIN = "restore the file, or get the data set again"


def read_annotations(path: Path) -> dict[str, Any]:
    """Return the annotations in a file.

    Raises:
        FileNotFoundError: where there is none.
        DamagedFile: naming the first entry that is none of COCO's.
    """
    content = read_object(path, "images", "annotations", "categories")
    for key in ("images", "annotations", "categories"):
        entries = content[key]
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise DamagedFile(f"{path}: key {key!r} is no list of entries; {_AGAIN}")
    images: set[Any] = set()
    for entry in content["images"]:
        _check(path, "images", entry, _image_fault(entry, images))
        images.add(entry["id"])
    categories: set[Any] = set()
    for entry in content["categories"]:
        _check(path, "categories", entry, _category_fault(entry, categories))
        categories.add(entry["id"])
    identities: set[Any] = set()
    for entry in content["annotations"]:
        _check(path, "annotations", entry, _object_fault(entry, images, categories, identities))
        identities.add(entry.get("id"))
    return content


def _check(path: Path, key: str, entry: dict[str, Any], fault: str | None) -> None:
    if fault is not None:
        name = str(entry.get("id"))[:40]
        raise DamagedFile(f"{path}: {key}: entry with id {name}: {fault}; {_AGAIN}")


def _identity_fault(entry: dict[str, Any], known: set[Any]) -> str | None:
    identity = entry.get("id")
    if isinstance(identity, bool) or not isinstance(identity, int | str):
        return f"id is {identity!r:.40}"
    return "its id stands twice" if identity in known else None


def _image_fault(entry: dict[str, Any], known: set[Any]) -> str | None:
    if fault := _identity_fault(entry, known):
        return fault
    if not isinstance(entry.get("file_name"), str):
        return f"file_name is {entry.get('file_name')!r:.40}"
    for side in ("width", "height"):
        value = entry.get(side)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 20:
            return f"{side} is {value!r:.40}, no number of pixels"
    return None


def _category_fault(entry: dict[str, Any], known: set[Any]) -> str | None:
    if fault := _identity_fault(entry, known):
        return fault
    if not isinstance(entry["id"], int) or not isinstance(entry.get("name"), str):
        return "a category has a number and a name"
    return None


def _object_fault(
    entry: dict[str, Any], images: set[Any], categories: set[Any], known: set[Any]
) -> str | None:
    # Nothing here asks for the identity of an object, but two of one are lost in COCO's own tools.
    if "id" in entry and (fault := _identity_fault(entry, known)):
        return fault
    image, category = entry.get("image_id"), entry.get("category_id")
    if not isinstance(image, int | str) or image not in images:
        return f"image_id {image!r:.40} is no image of the file"
    if not isinstance(category, int | str) or category not in categories:
        return f"category_id {category!r:.40} is no category of the file"
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return f"bbox is {box!r:.40}, not four numbers"
    if min(box[2:]) < 0:
        return f"bbox {box!r:.60} has a negative side"
    if not _is_number(entry.get("area")) or entry["area"] < 0:
        return f"area is {entry.get('area')!r:.40}"
    if entry.get("iscrowd", 0) not in (0, 1):
        return f"iscrowd is {entry['iscrowd']!r:.40}, neither 0 nor 1"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
