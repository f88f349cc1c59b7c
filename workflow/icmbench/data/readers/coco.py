"""Annotations in COCO's format, checked before anything is counted with them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from icmbench.errors import damaged_file, missing_file
from icmbench.utils.coco import CocoAnnotations
from icmbench.utils.files import read_object
from icmbench.utils.models import first_fault

_AGAIN = "restore the file, or get the data set again"

_Id = int | str
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
    area: _Length
    iscrowd: NotRequired[Literal[0, 1]]


_LISTS: dict[str, TypeAdapter[Any]] = {
    "images": TypeAdapter(list[_Image], config=ConfigDict(strict=True)),
    "categories": TypeAdapter(list[_Category], config=ConfigDict(strict=True)),
    "annotations": TypeAdapter(list[_Object], config=ConfigDict(strict=True)),
}


def read_annotations(path: Path) -> CocoAnnotations:
    """Return the content of an annotation file.

    Raises:
        UserError: if there is no such file, or naming its first entry that is not COCO's.
    """
    try:
        content = read_object(path, *_LISTS)
    except FileNotFoundError:
        raise missing_file(path, "get the data set first") from None
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
    return {
        "images": content["images"],
        "annotations": content["annotations"],
        "categories": content["categories"],
    }
