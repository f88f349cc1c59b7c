"""Annotations in COCO's format: validated, and brought to one form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pycocotools import mask as run_lengths
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from icmbench.data.names import safe_id
from icmbench.errors import damaged_file, missing_file
from icmbench.utils.coco import CocoAnnotations, CocoImage, CocoObject
from icmbench.utils.files import read_object
from icmbench.utils.models import first_fault

_AGAIN = "restore the file, or get the data set again"

_Id = Annotated[int, Field(ge=-(1 << 53), le=1 << 53)] | str  # as far as NumPy and JSON go
_SLACK = 1  # pixels that a box may exceed its image by, from rounding; it is kept as it is
_Side = Annotated[int, Field(gt=0, lt=1 << 20)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Number = Annotated[int | _Finite, Field(ge=-1e9, le=1e9)]
_Length = Annotated[int | _Finite, Field(ge=0, le=1e9)]


class _Image(TypedDict):
    id: _Id
    file_name: str
    width: _Side
    height: _Side


class _Category(TypedDict):
    id: int
    name: str


class _Object(TypedDict):
    id: NotRequired[_Id]
    image_id: _Id
    category_id: int
    bbox: Annotated[tuple[_Number, _Number, _Length, _Length], Field(strict=False)]
    area: NotRequired[_Length]
    iscrowd: NotRequired[Literal[0, 1]]


_LISTS: dict[str, TypeAdapter[Any]] = {
    "images": TypeAdapter(list[_Image], config=ConfigDict(strict=True)),
    "categories": TypeAdapter(list[_Category], config=ConfigDict(strict=True)),
    "annotations": TypeAdapter(list[_Object], config=ConfigDict(strict=True)),
}


def read_annotations(path: Path, trusted: bool = False) -> CocoAnnotations:
    """Return the content of an annotation file; objects may lack ``area``, see ``normalised``.

    Args:
        path: of the file.
        trusted: skip validation, of a file that passed it before.

    Raises:
        UserError: if there is no such file, or naming its first entry that is not COCO's.
    """
    try:
        content = read_object(path, *_LISTS)
    except FileNotFoundError:
        raise missing_file(path, "get the data set first") from None
    if not trusted:
        _validate(path, content)
    return {
        "images": content["images"],
        "annotations": content["annotations"],
        "categories": content["categories"],
    }


def _validate(path: Path, content: dict[str, Any]) -> None:
    for name, entries in _LISTS.items():
        try:
            entries.validate_python(content[name])
        except ValidationError as error:
            raise damaged_file(path, f"{name}.{first_fault(error)}", _AGAIN) from None
        ids = Counter(entry["id"] for entry in content[name] if "id" in entry)
        identity, count = ids.most_common(1)[0] if ids else (None, 1)
        if count > 1:
            raise damaged_file(path, f"{name}: duplicate id {identity!r}", _AGAIN)
    for key, name in (("image_id", "images"), ("category_id", "categories")):
        known = {entry["id"] for entry in content[name]}
        unknown = {entry[key] for entry in content["annotations"]} - known
        if unknown:
            raise damaged_file(
                path, f"annotations: {key} {min(unknown, key=str)!r} is unknown", _AGAIN
            )
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    for own in content["annotations"]:
        x, y, w, h = own["bbox"]
        width, height = sizes[own["image_id"]]
        if x > width or y > height or x + w < 0 or y + h < 0:
            image = own["image_id"]
            reason = f"box {own['bbox']} of image {image!r} lies outside its {width} x {height}"
            raise damaged_file(path, reason, "correct or remove the annotation")
    try:
        names = [str(safe_id(image["id"])) for image in content["images"]]
    except ValueError as error:
        raise damaged_file(path, f"images: {error}", "shorten it") from None
    text, count = Counter(names).most_common(1)[0] if names else ("", 1)
    if count > 1:
        raise damaged_file(path, f"images: id {text!r} is there as number and as text", _AGAIN)


def normalised(annotations: CocoAnnotations) -> tuple[CocoAnnotations, list[str]]:
    """Return annotations in the form that everything else relies on, and what was changed.

    Ids of images are all numbers, or all texts that :func:`icmbench.data.names.safe_id` allows, if
    one is a text. A missing ``area`` is that of the mask, or else of the box. A box that exceeds
    its image by more than a pixel is clipped to it.
    """
    images, objects, notes = annotations["images"], annotations["annotations"], []
    if any(isinstance(image["id"], str) for image in images):
        names = {image["id"]: str(safe_id(image["id"])) for image in images}
        images = [{**image, "id": names[image["id"]]} for image in images]
        objects = [{**own, "image_id": names[own["image_id"]]} for own in objects]
    by_id = {image["id"]: image for image in images}
    outside = [n for n, own in enumerate(objects) if _exceeds(own, by_id[own["image_id"]])]
    without = [n for n, own in enumerate(objects) if "area" not in own]
    if outside or without:
        objects = list(objects)
    for n in outside:
        objects[n] = {**objects[n], "bbox": _clipped(objects[n], by_id[objects[n]["image_id"]])}
    for n in without:
        objects[n] = {**objects[n], "area": _area(objects[n], by_id[objects[n]["image_id"]])}
    if outside:
        notes.append(
            f"{len(outside)} of {len(objects)} boxes exceed their image and are clipped to it"
        )
    if without:
        notes.append(f"the area of {len(without)} of {len(objects)} objects is computed")
    return {"images": images, "annotations": objects, "categories": annotations["categories"]}, (
        notes
    )


def _exceeds(own: CocoObject, image: CocoImage) -> bool:
    x, y, w, h = own["bbox"]
    right, bottom = image["width"] + _SLACK, image["height"] + _SLACK
    return x < -_SLACK or y < -_SLACK or x + w > right or y + h > bottom


def _clipped(own: CocoObject, image: CocoImage) -> list[float]:
    x, y, w, h = own["bbox"]
    left, top = max(x, 0), max(y, 0)
    return [left, top, min(x + w, image["width"]) - left, min(y + h, image["height"]) - top]


def _area(own: CocoObject, image: CocoImage) -> float:
    segmentation, size = own.get("segmentation"), (image["height"], image["width"])
    if segmentation and segmentation_problem(segmentation, *size) is None:
        return float(run_lengths.area(as_run_lengths(segmentation, *size)))
    return own["bbox"][2] * own["bbox"][3]


def as_run_lengths(segmentation: Any, height: int, width: int) -> Any:
    """Return pycocotools' run lengths of a COCO segmentation: polygons, or either form of RLE."""
    if isinstance(segmentation, list):
        return run_lengths.merge(run_lengths.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return run_lengths.frPyObjects(segmentation, height, width)
    return segmentation


def segmentation_problem(segmentation: Any, height: int, width: int) -> str | None:
    """Return why pycocotools could not read a segmentation, or would misread it; None if it can.

    >>> segmentation_problem([[1, 2, 3, 4]], 9, 9)
    'a polygon of 4 numbers; at least 6, x and y in turn, are needed'
    """
    if isinstance(segmentation, list):
        return _polygons_problem(segmentation)
    if not isinstance(segmentation, dict):
        return "missing" if segmentation is None else f"{type(segmentation).__name__}"
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        return f"run lengths of size {size}, of an image of [{height}, {width}]"
    try:
        lengths = _decompressed(counts) if isinstance(counts, str) else list(counts or ())
        wrong = sum(lengths) != height * width or min(lengths) < 0 or not _whole(lengths)
    except (TypeError, ValueError):
        return "run lengths that are damaged"
    return f"run lengths that do not add up to {height} x {width} pixels" if wrong else None


def _whole(lengths: Sequence[object]) -> bool:
    return all(type(length) is int for length in lengths)


def _polygons_problem(polygons: list[Any]) -> str | None:
    if not polygons:
        return "an empty list"
    for polygon in polygons:
        if not isinstance(polygon, list):
            return f"{type(polygon).__name__} where a polygon should be"
        if len(polygon) < 6 or len(polygon) % 2:
            count = len(polygon)
            return f"a polygon of {count} numbers; at least 6, x and y in turn, are needed"
        try:
            total = sum(map(abs, polygon))
        except TypeError:
            return "a polygon with a value that is not a number"
        if not total < 1 << 24:  # also NaN
            return "a polygon with a number outside any image"
    return None


def _decompressed(text: str) -> list[int]:
    """Return the run lengths of COCO's compressed text, as pycocotools reads it."""
    lengths: list[int] = []
    value = shift = 0
    for code in text.encode("ascii"):
        bits = code - 48
        if not 0 <= bits < 64:
            raise ValueError(f"character {chr(code)!r}")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            if shift > 30:
                raise ValueError("a run length of more than 30 bits")
            continue
        if bits & 0x10:
            value -= 1 << shift
        if len(lengths) > 2:
            value += lengths[-2]
        lengths.append(value)
        value = shift = 0
    if shift or not lengths:
        raise ValueError("ends in the middle of a run length")
    return lengths
