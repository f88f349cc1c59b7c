"""The test images of a data set as galleries show them: images, boxes and parsing maps."""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import cached_property

import numpy as np
from PIL import Image

from icmbench.data.dataset import Split
from icmbench.data.images import read_image
from icmbench.data.specs import DatasetSpec
from icmbench.errors import UserError
from icmbench.evaluate.coded import Archives
from icmbench.report.drawing import Box
from icmbench.report.results import Results, Row
from icmbench.utils.files import reading


class Originals:
    """The test images of one data set and their ground truth.

    Args:
        results: the results folder.
        role: of the data set.

    Raises:
        UserError: where images or ground truth are missing.
    """

    def __init__(self, results: Results, role: str) -> None:
        flat = dict(results.plan["datasets"][role])
        places = {name: flat.pop(name) for name in ("folder", "manifest")}
        if flat["source"] != "catalogue":
            # The folder may have been moved with the results.
            places["folder"] = str(results.root / "data" / role)
        flat.pop("role")
        dataset = DatasetSpec.model_validate({"role": role, **places, "settings": flat})
        self._split = Split(dataset, "test", keep=False)
        self._places = {str(identity): place for place, identity in enumerate(self._split.ids)}
        content = self._split.annotations or {}
        self._names = {c["id"]: c["name"] for c in content.get("categories", [])}
        # Boxes are in native pixels, which a crop would shift.
        cropped = dataset.center_crop is not None
        self._boxes: dict[str, list[Box]] = {}
        for entry in [] if cropped else content.get("annotations", []):
            self._boxes.setdefault(str(entry["image_id"]), []).append(self.box(entry))

    @property
    def annotated(self) -> bool:
        """Whether the images have objects to be found."""
        return self._split.annotations is not None

    def ids(self) -> list[str]:
        """Return the image ids, sorted (as numbers where they are numbers)."""
        return sort_ids(self._places)

    def box(self, entry: Row) -> Box:
        """Return an annotation or a detection of COCO's format as a box."""
        x, y, width, height = entry["bbox"]
        category = entry["category_id"]
        name = self._names.get(category, f"class {category}")
        return Box((x, y, width, height), category, name, entry.get("score"))

    def boxes(self, image_id: str) -> list[Box]:
        """Return the ground truth of an image."""
        return self._boxes.get(image_id, [])

    def image(self, image_id: str) -> Image.Image:
        """Return an original image at the size that is coded."""
        return Image.fromarray(self._split.original(self._places[image_id]))

    def size(self, image_id: str) -> tuple[int, int]:
        """Return width and height that boxes refer to."""
        return self._split.native_size(self._places[image_id])

    def parsing(self, image_id: str) -> np.ndarray | None:
        """Return the class of every pixel, uint8 [H, W], or None where the set has no maps."""
        if not self.parsing_names:
            return None
        return self._split.parsing(self._places[image_id])

    @cached_property
    def parsing_names(self) -> tuple[str, ...]:
        """Names of the classes of parsing maps; empty where there are none."""
        try:
            return tuple(self._split.faces.parsing_names)
        except UserError:
            return ()


def sort_ids(ids: Iterable[str]) -> list[str]:
    """Return image ids sorted, as numbers where all are numbers."""
    names = [str(name) for name in ids]
    if all(name.isdigit() for name in names):
        return sorted(names, key=int)
    return sorted(names)


def read_decoded(archives: Archives, name: str) -> Image.Image:
    """Return an image from archives of decoded images."""
    data = archives.read(name)
    with reading(name):
        return Image.fromarray(read_image(io.BytesIO(data)))
