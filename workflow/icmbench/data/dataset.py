"""One view of every data set: images, sizes and ground truth of a split, whatever its source."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from icmbench.data.checks import labels_of, open_checked
from icmbench.data.classes import find_labels
from icmbench.data.images import ImageFiles
from icmbench.data.label_maps import VOID, objects_to_map, read_label_map
from icmbench.data.specs import DatasetSpec, FetchedImages, Needs
from icmbench.errors import UserError, missing_file
from icmbench.utils.coco import CocoAnnotations, CocoObject
from icmbench.utils.files import digest_json, read_object
from icmbench.utils.images import RgbImage

if TYPE_CHECKING:
    from icmbench.data.readers.faces import Faces


_RESIZED_VERSION = 1  # bump if resized images or maps change


class Split:
    """One split of a data set.

    Attributes:
        ids: image ids, in the order of every record and prediction.

    Args:
        dataset: of a job.
        split: train, val or test.
        decoded: archives that share the decoded images to read instead of the originals, or a
            reader of them.
        keep: keep images in memory once read, for repeated reading.
        needs: of the task that reads the ground truth.

    Raises:
        UserError: if the split cannot be used, see :mod:`icmbench.data.checks`.
    """

    def __init__(
        self,
        dataset: DatasetSpec,
        split: str,
        decoded: Sequence[Path] | ImageFiles = (),
        keep: bool = True,
        needs: Needs | None = None,
    ) -> None:
        self.dataset = dataset
        opened = open_checked(dataset, split, needs)
        self._index = index = opened.index
        self.ids = index.ids
        wanted = needs or Needs()
        if wanted.labels is None:
            categories = [identity for identity, _ in opened.facts.categories]
            self._labels = labels_of(categories, wanted.classes)
            self._own: dict[int, int] | None = None
        else:
            names = dict(opened.facts.categories)
            known = find_labels(list(names.values()), wanted.labels)
            self._labels = {own: known[name] for own, name in names.items() if name in known}
            keys = index.keys or index.classes
            known = find_labels(keys, wanted.labels)
            self._own = {n: known[key] for n, key in enumerate(keys) if key in known}
        self._categories = {label: own for own, label in (self._labels or {}).items()}
        self._originals = ImageFiles(index.images, keep=keep)
        self._decoded: ImageFiles | None = None
        if isinstance(decoded, ImageFiles):
            self._decoded = decoded
        elif decoded:
            self._decoded = ImageFiles(*decoded, keep=keep)
        resized = resized_archive(dataset)
        there = resized is not None and resized.is_file()
        self._resized = ImageFiles(resized, keep=keep) if resized and there else None
        # A training run takes its own random crops, of whole images.
        self._whole = split == "train" and dataset.center_crop is not None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def annotations(self) -> CocoAnnotations | None:
        """COCO-format ground truth in native pixels of the images; None for bare images."""
        return self._index.annotations()

    @property
    def native_sizes(self) -> Sequence[tuple[int, int]] | None:
        """Width and height of every image as published, if the ground truth has them."""
        return self._index.sizes

    def native_size(self, index: int) -> tuple[int, int]:
        """Return width and height of the image as it was published."""
        if self._index.sizes is not None:
            return self._index.sizes[index]
        height, width = self._originals.size(self._index.files[index])
        return width, height

    def rate_pixels(self, index: int) -> int:
        """Return the pixels that the rate is divided by, as the data set's ``rate_pixels`` sets."""
        width, height = self.native_size(index)
        if self.dataset.rate_pixels == "coded":
            width, height = coded_size(self.dataset, width, height)
        return width * height

    def image(self, index: int) -> RgbImage:
        """Return the image to code (resized as the scale sets), or the decoded one."""
        if self._decoded is None:
            return self.original(index)
        return self._decoded.read(f"{self.ids[index]}.png")

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of :meth:`image`, from the file's header."""
        if self._decoded is not None:
            return self._decoded.size(f"{self.ids[index]}.png")
        height, width = self._originals.size(self._index.files[index])
        if not self._whole:
            width, height = coded_size(self.dataset, width, height)
        return height, width

    def original(self, index: int) -> RgbImage:
        """Return the uncoded image at the coded size."""
        if self._resized is not None:
            return self._resized.read(f"{self.ids[index]}.png")
        image = self._originals.read(self._index.files[index])
        if self._whole:
            return image
        height, width = image.shape[:2]
        size = resized_size(self.dataset, width, height)
        if size != (width, height):
            filter_ = Image.Resampling[self.dataset.resize_filter.upper()]
            image = np.asarray(Image.fromarray(image).resize(size, filter_))
        return self._cropped(image)

    def _cropped(self, image: np.ndarray) -> np.ndarray:
        side = self.dataset.center_crop
        if side is None:
            return image
        top, left = ((length - side) // 2 for length in image.shape[:2])
        return image[max(top, 0) :, max(left, 0) :][:side, :side]

    def target(self, index: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes [N, 4] (x1, y1, x2, y2 in the pixels of a width x height image), labels [N].

        Crowd regions and empty boxes are left out, as detectors are trained. Labels are as
        :func:`icmbench.data.checks.labels_of` numbers the categories.
        """
        native_width, native_height = self.native_size(index)
        scale = np.array([width / native_width, height / native_height] * 2, np.float32)
        boxes, labels = [], []
        for annotation in self._trainable(index):
            x, y, w, h = annotation["bbox"]
            boxes.append([x, y, x + w, y + h])
            category = annotation["category_id"]
            labels.append(category if self._labels is None else self._labels[category])
        array = np.array(boxes, np.float32).reshape(-1, 4) * scale
        return array, np.array(labels, np.int64)

    def category(self, label: int) -> int | None:
        """Return the category id of a label of :meth:`target`; None for a class that has none."""
        return label if self._labels is None else self._categories.get(label)

    def segmentations(self, index: int) -> list[Any]:
        """Return the COCO segmentations, in native pixels, of the objects of :meth:`target`."""
        return [annotation["segmentation"] for annotation in self._trainable(index)]

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes of :meth:`label`."""
        return self._index.classes

    def label(self, index: int) -> int:
        """Return the class of an image; on a detection set that of its largest object.

        For a network that has its classes already it is the label of the network.
        """
        if self._index.labels is None:
            raise self._lacks("classes")
        label = int(self._index.labels[index])
        return label if self._own is None else self._own[label]

    def label_map(self, index: int) -> np.ndarray:
        """Return the network's label of every pixel of the coded image, uint8 [H, W]; 255: none."""
        width, height = self.native_size(index)
        if self._index.maps is not None:
            path = self._index.maps[index]
            found = ImageFiles(path.parent, keep=False).load(path.name, read_label_map)
            if self._own:
                own = np.full(256, VOID, np.uint8)
                own[list(self._own)] = list(self._own.values())
                found = own[found]
        elif self._index.objects is not None:
            found = objects_to_map(self._index.objects[index], self._labels or {}, height, width)
        else:
            raise self._lacks("label maps")
        size = resized_size(self.dataset, width, height)
        if size != (width, height):
            found = np.asarray(Image.fromarray(found).resize(size, Image.Resampling.NEAREST))
        return self._cropped(found)

    @property
    def faces(self) -> Faces:
        """Attributes and parsing maps.

        Raises:
            UserError: if it is not a set of faces.
        """
        if self._index.faces is None:
            raise self._lacks("face attributes")
        return self._index.faces

    def attributes(self, index: int) -> np.ndarray:
        """Return the binary attributes of a face, uint8 [A]."""
        return self.faces.attributes(self.ids[index])

    def parsing(self, index: int) -> np.ndarray:
        """Return the class of every pixel of the coded image, uint8 [H, W]."""
        if self._resized is not None:
            return self._resized.load(f"{self.ids[index]}-parsing.png", read_label_map)
        width, height = coded_size(self.dataset, *self.native_size(index))
        parsing = self.faces.parsing(self.ids[index], (height, width))
        if parsing is None:
            raise self._lacks("parsing maps")
        return parsing

    def mirrored_parsing(self, parsing: np.ndarray) -> np.ndarray:
        """Return a parsing map mirrored, its left parts become right ones."""
        return mirrored_classes(list(self.faces.parsing_names))[parsing[:, ::-1]]

    def _lacks(self, what: str) -> UserError:
        role, name = self.dataset.role, self.dataset.name
        return UserError(
            f"data set {name!r} of role {role!r} has no {what}; give the role another in the scale"
        )

    def _trainable(self, index: int) -> list[CocoObject]:
        objects = self._index.objects
        return [
            annotation
            for annotation in ([] if objects is None else objects[index])
            if not annotation.get("iscrowd") and min(annotation["bbox"][2:]) > 1
        ]


def coded_size(dataset: DatasetSpec, width: int, height: int) -> tuple[int, int]:
    """Return the size at which an image is coded: native, resized, or cropped after that."""
    width, height = resized_size(dataset, width, height)
    side = dataset.center_crop
    return (width, height) if side is None else (min(width, side), min(height, side))


def resized_size(dataset: DatasetSpec, width: int, height: int) -> tuple[int, int]:
    """Return the size of an image after the data set's resizing, before any crop."""
    short = dataset.short_side
    if short is None:
        return width, height
    factor = short / min(width, height)
    long = dataset.long_side
    if long is not None:
        factor = min(factor, long / max(width, height))
    return round(width * factor), round(height * factor)


def mirrored_classes(names: list[str]) -> np.ndarray:
    """Return the class that each class becomes when an image is mirrored, uint8.

    ``l_eye`` and ``r_eye`` change places; ``l_lip``, the lower one, has no counterpart and stays.
    """
    other = {"l_": "r_", "r_": "l_"}
    turned = [other.get(name[:2], name[:2]) + name[2:] for name in names]
    return np.array([names.index(t) if t in names else i for i, t in enumerate(turned)], np.uint8)


def resized_archive(dataset: DatasetSpec) -> Path | None:
    """Return the archive of resized images and merged maps, see :func:`.prepare.resize_faces`.

    None for data sets that have none.
    """
    settings, manifest = dataset.settings, Path(dataset.manifest)
    if not isinstance(settings, FetchedImages) or not settings.resized_once:
        return None
    if not manifest.is_file():  # not fetched yet
        return None
    splits = {name: split.limit for name, split in settings.splits.items()}
    sizes: list[int | str | None] = [dataset.short_side, dataset.long_side]
    sizes += [dataset.resize_filter] if dataset.resize_filter != "bicubic" else []
    key = digest_json([_RESIZED_VERSION, data_digest(dataset), sizes, splits])[:16]
    return manifest.parent / ".icmbench" / "resized" / f"{dataset.name}-{key}.zip"


def data_digest(dataset: DatasetSpec) -> str:
    """Return the digest of the data set, from its manifest."""
    path = Path(dataset.manifest)
    if not path.is_file():
        raise missing_file(
            path, f"run the workflow's data rule for role {dataset.role!r} or `icmbench data`"
        )
    return str(read_object(path, "digest")["digest"])
