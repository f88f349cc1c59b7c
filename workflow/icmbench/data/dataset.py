"""One view of every data set: images, sizes, and what is known of them.

Works on a job's ``dataset`` section (see ``Plan._dataset``), whatever its source, and on decoded
images in place of the originals.
"""

from __future__ import annotations

import io
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from icmbench.data.images import image_size, list_images, read_image, require_images
from icmbench.data.index import open_index
from icmbench.data.specs import DatasetSpec
from icmbench.errors import DamagedFile, UserError
from icmbench.utils.files import line_of, read_object, reading
from icmbench.utils.images import RgbImage, decoded_digest

if TYPE_CHECKING:
    from icmbench.data.faces import FaceSet

T = TypeVar("T")

_CACHE_BYTES = 400 * 1024 * 1024


class ImageFiles:
    """Images by file name, out of a folder or an uncompressed zip archive.

    A small set stays in memory once read, so that epochs after the first cost no decoding.

    Args:
        path: of the folder or archive.
        keep: whether a small set stays.
        check: called with each file of a folder before it is read, to raise where it is damaged.
    """

    def __init__(
        self, path: Path, keep: bool = True, check: Callable[[Path], None] | None = None
    ) -> None:
        self.path = path
        self._check = check
        self._archive: zipfile.ZipFile | None = None
        self._cache: dict[str, RgbImage] = {}
        self._room = _CACHE_BYTES if keep else 0
        require_images(path)

    def __getstate__(self) -> dict[str, Any]:
        # An open archive cannot follow a loader's worker process.
        return {**self.__dict__, "_archive": None, "_cache": {}}

    def names(self) -> list[str]:
        """Return the file names, sorted."""
        if self.path.is_dir():
            return [path.name for path in list_images(self.path)]
        return sorted(self._zip().namelist())

    def read(self, name: str) -> RgbImage:
        """Return an image as uint8 RGB [H, W, 3]; grey, palette and CMYK become RGB."""
        if name not in self._cache:
            image = self._read(name)
            if image.nbytes > self._room:
                return image
            self._room -= image.nbytes
            self._cache[name] = image
        return self._cache[name]

    def size(self, name: str) -> tuple[int, int]:
        """Return height and width of an image without decoding it."""
        if name in self._cache:
            return self._cache[name].shape[0], self._cache[name].shape[1]
        return self._open(name, image_size)

    def _read(self, name: str) -> RgbImage:
        return self._open(name, read_image)

    def _open(self, name: str, read: Callable[[Path | IO[bytes]], T]) -> T:
        try:
            if self.path.is_dir():
                if self._check is not None:
                    self._check(self.path / name)
                return read(self.path / name)
            return read(io.BytesIO(self._zip().read(name)))
        except UserError:
            raise
        except Exception as error:  # Pillow was seen to raise nearly anything
            raise UserError(
                f"{self.path}: cannot read image {name!r} ({line_of(error)}); restore it, or run "
                "the job that makes it again"
            ) from error

    def _zip(self) -> zipfile.ZipFile:
        if self._archive is None:
            with reading(self.path):
                self._archive = zipfile.ZipFile(self.path)
        return self._archive


class Split:
    """One split of a data set.

    Attributes:
        ids: image ids, in the order of every record and prediction.
        annotations: COCO-format ground truth in native pixels, restricted to ``ids``; None for a
            set of bare images.

    Args:
        dataset: a job's ``dataset`` section.
        split: train, val or test.
        decoded: archive or folder of decoded images to give in place of the originals.
        keep: hold images in memory once read, for those who read them often.
        digests: what :func:`icmbench.utils.images.decoded_digest` must say of each decoded image,
            by image id; those that it does not name are not checked.
    """

    def __init__(
        self,
        dataset: DatasetSpec,
        split: str,
        decoded: Path | str | None = None,
        keep: bool = True,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        self.dataset = dataset
        index = open_index(dataset, split)
        self._decoded = decoded is not None
        self._digests = dict(digests or {})
        originals = ImageFiles(index.images, keep, index.check)
        self._images = ImageFiles(Path(decoded), keep) if decoded is not None else originals
        self.annotations = index.annotations
        self._index = index
        # A training takes its own random crops, of whole images.
        self._whole = split == "train" and dataset.center_crop is not None
        self._files = originals.names()[: index.limit] if index.files is None else index.files
        self.ids: list[int | str] = (
            [Path(name).stem for name in self._files] if index.ids is None else index.ids
        )
        if len(set(self.ids)) < len(self.ids):
            twice = next(i for i in self.ids if self.ids.count(i) > 1)
            raise UserError(
                f"{index.images}: two images are called {twice!r}; names must differ before the "
                "suffix"
            )
        if not self.ids:
            raise UserError(f"{index.images}: split {split!r} holds no image")
        self._originals = originals
        self._by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in (self.annotations or {}).get("annotations", []):
            self._by_image[annotation["image_id"]].append(annotation)

    def __len__(self) -> int:
        return len(self.ids)

    def native_size(self, index: int) -> tuple[int, int]:
        """Return width and height of the image as it was published."""
        if self._index.sizes is not None:
            return self._index.sizes[index]
        height, width = self._originals.read(self._files[index]).shape[:2]
        return width, height

    def rate_pixels(self, index: int) -> int:
        """Return the pixels that the rate is divided by: native ones, or those of the coded size.

        The data set's ``rate_pixels`` says which.
        """
        width, height = self.native_size(index)
        if self.dataset.rate_pixels == "coded":
            width, height = coded_size(self.dataset, width, height)
        return width * height

    def image(self, index: int) -> RgbImage:
        """Return the image that is coded (resized where the scale says so) or was decoded."""
        if not self._decoded:
            return self.original(index)
        identity = str(self.ids[index])
        image = self._images.read(f"{identity}.png")
        wanted = self._digests.get(identity)
        if wanted is not None and decoded_digest(image) != wanted:
            raise DamagedFile(
                f"{self._images.path / identity}.png: is not the image that was decoded; "
                "delete it and the chunk*.json beside its folder and run again"
            )
        return image

    def size(self, index: int) -> tuple[int, int]:
        """Return height and width of :meth:`image`, from the file's header."""
        if self._decoded:
            return self._images.size(f"{self.ids[index]}.png")
        height, width = self._originals.size(self._files[index])
        if not self._whole:
            width, height = coded_size(self.dataset, width, height)
        return height, width

    def original(self, index: int) -> RgbImage:
        """Return the uncoded image at the coded size."""
        image = self._originals.read(self._files[index])
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
    def faces(self) -> FaceSet:
        """Attributes and parsing maps.

        Raises:
            UserError: where the set is not one of faces.
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

    def _trainable(self, index: int) -> list[dict[str, Any]]:
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
    """Return the size of an image whose short side is resized as the data set says."""
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
        raise UserError(
            f"{path}: data set of role {dataset.role!r} is not there; "
            "run `python -m icmbench data` or the workflow's data rule"
        )
    return str(read_object(path, "digest")["digest"])
