"""One view of every data set: images, sizes and ground truth of a split, whatever its source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from icmbench.data.images import ImageFiles
from icmbench.data.readers.coco import read_annotations
from icmbench.data.specs import DatasetSpec, EmbeddedFaces, EmbeddedScenes
from icmbench.errors import UserError, missing_file
from icmbench.utils.coco import CocoAnnotations, CocoImage, CocoObject, ImageId
from icmbench.utils.files import read_object
from icmbench.utils.images import RgbImage

if TYPE_CHECKING:
    from icmbench.data.readers.faces import Faces

# Class of images without any object; the other classes of a detection set are its categories.
NOTHING = "nothing"


@dataclass(frozen=True)
class Index:
    """The content of a split.

    Attributes:
        images: folder or archive of the images.
        files: their names in it.
        ids: image ids.
        sizes: native width and height of each; None if only the images have them.
        annotations: COCO-format ground truth in native pixels of exactly these images, or None.
        labels: the class of each image, or None.
        classes: names of the classes.
        faces: attributes and parsing maps, or None.
    """

    images: Path
    files: list[str]
    ids: list[ImageId]
    sizes: list[tuple[int, int]] | None = None
    annotations: CocoAnnotations | None = None
    labels: Sequence[int] | None = None
    classes: Sequence[str] = ()
    faces: Faces | None = None


def open_index(dataset: DatasetSpec, split: str) -> Index:
    """Return the content of a split.

    Raises:
        UserError: for a split that the scale does not give, missing or damaged files.
    """
    folder = Path(dataset.folder)
    if isinstance(dataset.settings, EmbeddedScenes):
        annotations = read_annotations(folder / f"instances_{split}.json")
        return _coco(folder / f"{split}.zip", annotations)
    if isinstance(dataset.settings, EmbeddedFaces):
        return _faces(dataset, split)
    place = dataset.split(split)
    images, limit = folder / place.images, place.limit
    match place.layout or ("coco" if place.annotations else "images"):
        case "images":
            files = ImageFiles(images).names()[:limit]
            return Index(images, files, _stems(files))
        case "coco":
            return _coco(images, read_annotations(folder / (place.annotations or "")), limit)
        case "voc":
            from icmbench.data.readers.voc import coco_annotations

            return _coco(images, coco_annotations(folder, place.sets), limit)
        case "imagenet":
            from icmbench.data.readers.imagenet import index

            found = index(folder, "train" if split == "train" else "val")
            files, labels = found.files[:limit], found.labels[:limit]
            return Index(folder, files, _stems(files), labels=labels, classes=found.classes)
        case "celeba":
            return _faces(dataset, split)


def _stems(files: Sequence[str]) -> list[ImageId]:
    return [Path(name).stem for name in files]


def _faces(dataset: DatasetSpec, split: str) -> Index:
    from icmbench.data.readers.faces import open_faces

    faces = open_faces(dataset, split)
    files = [faces.file(identity) for identity in faces.ids]
    return Index(faces.images, files, faces.ids, faces=faces)


def _coco(images: Path, annotations: CocoAnnotations, limit: int | None = None) -> Index:
    entries = sorted(annotations["images"], key=lambda entry: entry["id"])[:limit]
    kept = {entry["id"] for entry in entries}
    own = [a for a in annotations["annotations"] if a["image_id"] in kept]
    categories = sorted(annotations["categories"], key=lambda entry: entry["id"])
    return Index(
        images,
        [entry["file_name"] for entry in entries],
        [entry["id"] for entry in entries],
        [(entry["width"], entry["height"]) for entry in entries],
        {"images": entries, "annotations": own, "categories": categories},
        _dominant(entries, own, [category["id"] for category in categories]),
        [NOTHING, *(category["name"] for category in categories)],
    )


def _dominant(
    entries: list[CocoImage], annotations: list[CocoObject], categories: list[int]
) -> list[int]:
    """Return the class of each image: that of its largest object, 0 where there is none."""
    place = {identity: number for number, identity in enumerate(categories, 1)}
    largest: dict[ImageId, tuple[float, int]] = {}
    for annotation in annotations:
        if annotation.get("iscrowd"):
            continue
        found = (float(annotation["area"]), place[annotation["category_id"]])
        image = annotation["image_id"]
        if image not in largest or found[0] > largest[image][0]:
            largest[image] = found
    return [largest[entry["id"]][1] if entry["id"] in largest else 0 for entry in entries]


class Split:
    """One split of a data set.

    Attributes:
        ids: image ids, in the order of every record and prediction.
        annotations: COCO-format ground truth in native pixels, restricted to ``ids``; None for a
            set of bare images.

    Args:
        dataset: of a job.
        split: train, val or test.
        decoded: archives that share the decoded images to read instead of the originals.
        keep: keep images in memory once read, for repeated reading.
    """

    def __init__(
        self,
        dataset: DatasetSpec,
        split: str,
        decoded: Sequence[Path] = (),
        keep: bool = True,
    ) -> None:
        self.dataset = dataset
        self._index = index = open_index(dataset, split)
        self.ids, self.annotations = index.ids, index.annotations
        if not self.ids:
            raise missing_file(index.images, f"split {split!r} has no image")
        if len(set(self.ids)) < len(self.ids):
            twice = next(i for i in self.ids if self.ids.count(i) > 1)
            raise UserError(
                f"{index.images}: duplicate image {twice!r}; names must differ before the suffix"
            )
        self._originals = ImageFiles(index.images, keep=keep)
        self._decoded = ImageFiles(*decoded, keep=keep) if decoded else None
        # A training run takes its own random crops, of whole images.
        self._whole = split == "train" and dataset.center_crop is not None
        self._by_image: dict[ImageId, list[CocoObject]] = defaultdict(list)
        for annotation in self.annotations["annotations"] if self.annotations else []:
            self._by_image[annotation["image_id"]].append(annotation)

    def __len__(self) -> int:
        return len(self.ids)

    def native_size(self, index: int) -> tuple[int, int]:
        """Return width and height of the image as it was published."""
        if self._index.sizes is not None:
            return self._index.sizes[index]
        height, width = self._originals.read(self._index.files[index]).shape[:2]
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
        image = self._originals.read(self._index.files[index])
        if self._whole:
            return image
        height, width = image.shape[:2]
        size = resized_size(self.dataset, width, height)
        if size != (width, height):
            resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
            image = np.asarray(resized)
        side = self.dataset.center_crop
        if side is not None:
            top, left = ((length - side) // 2 for length in image.shape[:2])
            image = image[max(top, 0) :, max(left, 0) :][:side, :side]
        return image

    def target(self, index: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes [N, 4] (x1, y1, x2, y2 in the pixels of a width x height image), labels.

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

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes of :meth:`label`."""
        return self._index.classes

    def label(self, index: int) -> int:
        """Return the class of an image; on a detection set that of its largest object."""
        if self._index.labels is None:
            raise self._lacks("classes")
        return int(self._index.labels[index])

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
        return [
            annotation
            for annotation in self._by_image[self.ids[index]]
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


def data_digest(dataset: DatasetSpec) -> str:
    """Return the digest of the data set, from its manifest."""
    path = Path(dataset.manifest)
    if not path.is_file():
        raise missing_file(
            path, f"run the workflow's data rule for role {dataset.role!r} or `icmbench data`"
        )
    return str(read_object(path, "digest")["digest"])
