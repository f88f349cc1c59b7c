"""Annotations in COCO's format: damage is named, not read."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from icmbench.data.readers.coco import read_annotations
from icmbench.errors import UserError

GOOD: dict[str, Any] = {
    "info": {"description": "toy"},
    "images": [{"id": i, "file_name": f"{i}.jpg", "width": 30, "height": 20} for i in (1, 2)],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 5, "bbox": [1, 2.5, 3, 4], "area": 12,
         "iscrowd": 0, "segmentation": [[1, 2, 3, 4, 5, 6]]},
        {"image_id": 2, "category_id": 5, "bbox": [0, 0, 0, 0], "area": 0.0},
    ],
    "categories": [{"id": 5, "name": "dog", "supercategory": "animal"}],
}  # fmt: skip


def test_read_annotations_returns_the_entries_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(GOOD))
    found = read_annotations(path)
    wanted = {name: GOOD[name] for name in ("images", "annotations", "categories")}
    assert json.dumps(found) == json.dumps(wanted)  # ints stay ints, and keys in order


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("images", "width", 0),
        ("images", "height", 20.0),
        ("images", "file_name", None),
        ("images", "id", 2),
        ("images", "id", True),
        ("categories", "name", 3),
        ("categories", "id", "5"),
        ("annotations", "image_id", 9),
        ("annotations", "category_id", 6),
        ("annotations", "bbox", [1, 2, 3]),
        ("annotations", "bbox", [1, 2, -3, 4]),
        ("annotations", "bbox", [1, 2, math.nan, 4]),
        ("annotations", "bbox", [1, 2, "3", 4]),
        ("annotations", "area", -1),
        ("annotations", "area", 10**30),
        ("annotations", "iscrowd", 2),
        ("annotations", "id", [1]),
    ],
)
def test_read_annotations_names_damage(tmp_path: Path, name: str, key: str, value: Any) -> None:
    content = copy.deepcopy(GOOD)
    content[name][0][key] = value
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        read_annotations(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and key in message and "\n" not in message


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": 1, "annotations": [], "categories"'])
def test_read_annotations_names_another_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(UserError, match=r"a\.json"):
        read_annotations(path)
    path.write_text(text)
    with pytest.raises(UserError, match=r"a\.json"):
        read_annotations(path)
