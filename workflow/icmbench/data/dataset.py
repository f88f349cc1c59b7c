"""One view of every detection or picture data set: pictures, sizes and COCO annotations.

Works on a job's ``dataset`` section (see ``Plan._dataset``), whatever its source, and on decoded
pictures in place of the originals.
"""

from __future__ import annotations

import io
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from icmbench.codecs.base import Picture
from icmbench.data.pictures import list_pictures, read_picture
from icmbench.errors import UserError
from icmbench.files import read_json

_CACHE_BYTES = 400 * 1024 * 1024


class Pictures:
    """Pictures by file name, out of a folder or an uncompressed zip archive.

    A small set stays in memory once read, so that epochs after the first cost no decoding.
    """

    def __init__(self, path: Path, keep: bool = True) -> None:
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        self._cache: dict[str, Picture] = {}
        self._room = _CACHE_BYTES if keep else 0
        if not path.exists():
            raise UserError(
                f"{path}: no such folder or archive of pictures; run the job it is from"
            )

    def __getstate__(self) -> dict[str, Any]:
        # An open archive cannot follow a loader's worker process.
        return {**self.__dict__, "_archive": None, "_cache": {}}

    def names(self) -> list[str]:
        """Return the file names, sorted."""
        if self.path.is_dir():
            return [path.name for path in list_pictures(self.path)]
        return sorted(self._zip().namelist())

    def read(self, name: str) -> Picture:
        """Return a picture as uint8 RGB [H, W, 3]; grey, palette and CMYK become RGB."""
        if name not in self._cache:
            picture = self._read(name)
            if picture.nbytes > self._room:
                return picture
            self._room -= picture.nbytes
            self._cache[name] = picture
        return self._cache[name]

    def _read(self, name: str) -> Picture:
        try:
            source = self.path / name if self.path.is_dir() else io.BytesIO(self._zip().read(name))
            return read_picture(source)
        except (KeyError, OSError) as error:
            raise UserError(f"{self.path}: cannot read picture {name!r} ({error})") from error

    def _zip(self) -> zipfile.ZipFile:
        if self._archive is None:
            self._archive = zipfile.ZipFile(self.path)
        return self._archive


class Split:
    """One split of a data set.

    Attributes:
        ids: image ids, in the order of every record and prediction.
        annotations: COCO-format ground truth in native pixels, restricted to ``ids``; None for a
            set of bare pictures.

    Args:
        dataset: a job's ``dataset`` section.
        split: train, val or test.
        decoded: archive or folder of decoded pictures to give in place of the originals.
        keep: hold pictures in memory once read, for those who read them often.
    """

    def __init__(
        self,
        dataset: dict[str, Any],
        split: str,
        decoded: Path | str | None = None,
        keep: bool = True,
    ) -> None:
        self.dataset = dataset
        images, annotations, limit = _locate(dataset, split)
        self._decoded = decoded is not None
        originals = Pictures(images, keep)
        self._pictures = Pictures(Path(decoded), keep) if decoded is not None else originals
        self.annotations: dict[str, Any] | None = None
        if annotations is not None:
            self.annotations = _restricted(read_json(annotations), limit)
            entries = sorted(self.annotations["images"], key=lambda entry: entry["id"])
            self.ids: list[int | str] = [entry["id"] for entry in entries]
            self._files = [entry["file_name"] for entry in entries]
            self._sizes = [(entry["width"], entry["height"]) for entry in entries]
        else:
            self._files = originals.names()[:limit]
            self.ids = [Path(name).stem for name in self._files]
            if len(set(self.ids)) < len(self.ids):
                twice = next(i for i in self.ids if self.ids.count(i) > 1)
                raise UserError(
                    f"{images}: two pictures are called {twice!r}; names must differ before the "
                    "suffix"
                )
        if not self.ids:
            raise UserError(f"{images}: split {split!r} holds no picture")
        self._originals = originals
        self._by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in (self.annotations or {}).get("annotations", []):
            self._by_image[annotation["image_id"]].append(annotation)

    def __len__(self) -> int:
        return len(self.ids)

    def native_size(self, index: int) -> tuple[int, int]:
        """Return width and height of the picture as it was published."""
        if self.annotations is not None:
            return self._sizes[index]
        height, width = self._originals.read(self._files[index]).shape[:2]
        return width, height

    def picture(self, index: int) -> Picture:
        """Return the picture that is coded (resized where the scale says so) or was decoded."""
        if self._decoded:
            return self._pictures.read(f"{self.ids[index]}.png")
        return self.original(index)

    def original(self, index: int) -> Picture:
        """Return the uncoded picture at the coded size."""
        picture = self._originals.read(self._files[index])
        size = coded_size(self.dataset, picture.shape[1], picture.shape[0])
        if size == (picture.shape[1], picture.shape[0]):
            return picture
        resized = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
        return np.asarray(resized)

    def target(self, index: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes [N, 4] (x1, y1, x2, y2 in the pixels of a width x height picture), labels.

        Crowd regions and empty boxes are left out, as detectors are trained.
        """
        native_width, native_height = self.native_size(index)
        scale = np.array([width / native_width, height / native_height] * 2, np.float32)
        boxes, labels = [], []
        for annotation in self._trainable(index):
            x, y, w, h = annotation["bbox"]
            boxes.append([x, y, x + w, y + h])
            labels.append(annotation["category_id"])
        array = np.array(boxes, np.float32).reshape(-1, 4) * scale
        return array, np.array(labels, np.int64)

    def segmentations(self, index: int) -> list[Any]:
        """Return the COCO segmentations, in native pixels, of the objects of :meth:`target`."""
        return [annotation["segmentation"] for annotation in self._trainable(index)]

    def _trainable(self, index: int) -> list[dict[str, Any]]:
        return [
            annotation
            for annotation in self._by_image[self.ids[index]]
            if not annotation.get("iscrowd") and min(annotation["bbox"][2:]) > 1
        ]


def coded_size(dataset: dict[str, Any], width: int, height: int) -> tuple[int, int]:
    """Return the size at which a picture is coded: native, or resized to the short side."""
    short = dataset.get("short_side")
    if short is None:
        return width, height
    factor = short / min(width, height)
    long = dataset.get("long_side")
    if long is not None:
        factor = min(factor, long / max(width, height))
    return round(width * factor), round(height * factor)


def data_digest(dataset: dict[str, Any]) -> str:
    """Return the digest of the data set, from its manifest."""
    path = Path(dataset["manifest"])
    if not path.is_file():
        raise UserError(
            f"{path}: data set of role {dataset['role']!r} is not there; "
            "run `python -m icmbench data` or the workflow's data rule"
        )
    return str(read_json(path)["digest"])


def _locate(dataset: dict[str, Any], split: str) -> tuple[Path, Path | None, int | None]:
    folder = Path(dataset["folder"])
    if dataset["source"] == "embedded-scenes":
        return folder / f"{split}.zip", folder / f"instances_{split}.json", None
    place = dataset["splits"].get(split)
    if place is None:
        allowed = ", ".join(sorted(dataset["splits"]))
        raise UserError(
            f"data set role {dataset['role']!r} has no split {split!r}; the scale gives: {allowed}"
        )
    annotations = place["annotations"]
    return (
        folder / place["images"],
        None if annotations is None else folder / annotations,
        place["limit"],
    )


def _restricted(annotations: dict[str, Any], limit: int | None) -> dict[str, Any]:
    if limit is None:
        return annotations
    images = sorted(annotations["images"], key=lambda entry: entry["id"])[:limit]
    kept = {entry["id"] for entry in images}
    own = [a for a in annotations["annotations"] if a["image_id"] in kept]
    return {**annotations, "images": images, "annotations": own}
