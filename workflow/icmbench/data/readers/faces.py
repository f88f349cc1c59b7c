"""Sets of faces with attributes and parsing maps: CelebA, CelebAMask-HQ, generated faces.

CelebA (Liu et al., ICCV 2015) and CelebAMask-HQ (Lee et al., CVPR 2020) are read as they are
published; attributes of -1 and 1 become 0 and 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from icmbench.data.images import ImageFiles
from icmbench.data.specs import DatasetSpec, EmbeddedFaces
from icmbench.errors import UserError, damaged_file, missing_file, unknown
from icmbench.utils.files import read_object, reading

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, np.dtype[Any]]
Identity = int | str  # as in every split; those of faces are integers

SPLITS = ("train", "val", "test")

# Indices into CelebA at which the train and val splits of CelebAMask-HQ's own script end.
TRAIN_END, VAL_END = 162_771, 182_638

# Order in which CelebAMask-HQ's script paints the parts, and so numbers the classes.
PARSING = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip

_FETCH = "fetch the data set again"
_MASKS_PER_FOLDER = 2000


class Faces(ABC):
    """One split of a set of faces.

    Attributes:
        images: folder or zip archive that :meth:`file` is relative to.
        ids: ids of the images, sorted.
        attribute_names: names of the A attributes, in the data set's order.
        parsing_names: names of the classes of parsing maps; empty if there are no maps.
    """

    images: Path
    ids: list[Identity]
    attribute_names: tuple[str, ...]
    parsing_names: tuple[str, ...] = ()
    _attributes: dict[int, Array]

    @abstractmethod
    def file(self, identity: Identity) -> str:
        """Return the path of an image, relative to :attr:`images`."""

    def attributes(self, identity: Identity) -> Array:
        """Return uint8 [A]: 1 if the face has the attribute."""
        return self._attributes[int(identity)]

    def attribute_table(self) -> Array:
        """Return uint8 [I, A], in the order of :attr:`ids`."""
        rows = [self.attributes(identity) for identity in self.ids]
        return np.array(rows, np.uint8).reshape(len(rows), len(self.attribute_names))

    def parsing(self, identity: Identity, size: tuple[int, int]) -> Array | None:
        """Return uint8 [height, width] of class indices at ``size`` (height, width).

        Nearest neighbour if the size differs; None if the data set has no maps.
        """
        return None


class CelebA(Faces):
    """The aligned images with 40 attributes and the official partition; ids are file numbers."""

    def __init__(self, folder: Path, split: str, limit: int | None = None) -> None:
        self.images = folder / "img_align_celeba"
        path = folder / "list_eval_partition.txt"
        codes = _read_table(path, header=None, index_col=0, names=["file", "split"])["split"]
        if not codes.isin((0, 1, 2)).all():
            raise damaged_file(path, "a split is not 0, 1 or 2", _FETCH)
        names = codes.index[codes == SPLITS.index(split)]
        with reading(path, _FETCH):
            self.ids = [*sorted(int(Path(name).stem) for name in names)[:limit]]
        self.attribute_names, self._attributes = _read_attributes(
            folder / "list_attr_celeba.txt", self.ids
        )

    def file(self, identity: Identity) -> str:
        """Return the file name of an image."""
        return f"{int(identity):06d}.jpg"


class CelebAMaskHQ(Faces):
    """30,000 faces of 1024 x 1024 with 40 attributes and masks of 18 parts; ids from 0."""

    parsing_names = PARSING

    def __init__(self, folder: Path, split: str, limit: int | None = None) -> None:
        self.images = folder / "CelebA-HQ-img"
        self._masks = folder / "CelebAMask-HQ-mask-anno"
        path = folder / "CelebA-HQ-to-CelebA-mapping.txt"
        with reading(path, _FETCH):
            original = _read_table(path, index_col="idx")["orig_idx"]
            own = np.digitize(original, (TRAIN_END, VAL_END)) == SPLITS.index(split)
            self.ids = [*sorted(int(identity) for identity in original.index[own])[:limit]]
        self.attribute_names, self._attributes = _read_attributes(
            folder / "CelebAMask-HQ-attribute-anno.txt", self.ids
        )

    def file(self, identity: Identity) -> str:
        """Return the file name of an image."""
        return f"{identity}.jpg"

    def parsing(self, identity: Identity, size: tuple[int, int]) -> Array:
        """Return the map merged from the masks of the parts; later parts lie over earlier ones.

        Raises:
            UserError: if an image has no mask at all.
        """
        number = int(identity)
        folder = self._masks / str(number // _MASKS_PER_FOLDER)
        merged = np.zeros(size, np.uint8)
        found = False
        for label, part in enumerate(PARSING[1:], start=1):
            path = folder / f"{number:05d}_{part}.png"
            if not path.is_file():  # a part that is not visible has no file
                continue
            found = True
            with reading(path, _FETCH), Image.open(path) as image:
                mask = image.convert("L").resize(size[::-1], Image.Resampling.NEAREST)
            merged[np.asarray(mask) > 127] = label
        if not found:
            raise missing_file(folder / f"{number:05d}_*.png", _FETCH)
        return merged


class GeneratedFaces(Faces):
    """The files of :func:`icmbench.data.synthetic.faces.generate_faces`."""

    def __init__(self, folder: Path, split: str) -> None:
        self.images = folder / f"{split}.zip"
        self._maps = ImageFiles(folder / f"parsing_{split}.zip", keep=False)
        path = folder / f"attributes_{split}.json"
        content = read_object(path, "names", "values")
        with reading(path):
            values = {int(identity): row for identity, row in content["values"].items()}
            self._attributes = {i: np.array(row, np.uint8) for i, row in values.items()}
            self.attribute_names = tuple(content["names"])
            self.ids = sorted(values)
        self.parsing_names = tuple(read_object(folder / "manifest.json", "parsing")["parsing"])

    def file(self, identity: Identity) -> str:
        """Return the name inside the archive."""
        return f"{identity}.png"

    def parsing(self, identity: Identity, size: tuple[int, int]) -> Array:
        """Return the map, drawn with the image."""

        def read(source: Path | IO[bytes]) -> Array:
            with Image.open(source) as image:
                same = image.size == size[::-1]
                return np.asarray(
                    image if same else image.resize(size[::-1], Image.Resampling.NEAREST)
                )

        return self._maps.load(self.file(identity), read)


_FETCHED = {"celeba": CelebA, "celebamask_hq": CelebAMaskHQ}


def open_faces(dataset: DatasetSpec, split: str) -> Faces:
    """Return a split (train, val or test) of a set of faces.

    Raises:
        UserError: if it is not a set of faces, or the scale does not give the split.
    """
    if split not in SPLITS:
        raise UserError(f"data set role {dataset.role!r}: {unknown('split', split, SPLITS)}")
    folder = Path(dataset.folder)
    if isinstance(dataset.settings, EmbeddedFaces):
        return GeneratedFaces(folder, split)
    if dataset.name not in _FETCHED:
        raise UserError(
            f"data set {dataset.name!r} of role {dataset.role!r} has no face attributes; choose "
            f"from {', '.join(['embedded-faces', *_FETCHED])} in the scale"
        )
    return _FETCHED[dataset.name](folder, split, dataset.split(split).limit)


def _read_table(path: Path, **options: Any) -> pd.DataFrame:
    """Return a table of cells with spaces between them, without duplicates in its index."""
    import pandas as pd

    try:
        with reading(path, _FETCH):
            table = pd.read_csv(path, sep=r"\s+", **options)
    except FileNotFoundError:
        raise missing_file(path, _FETCH) from None
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()][0]
        raise damaged_file(path, f"duplicate image {twice!r}", _FETCH)
    return table


def _read_attributes(path: Path, ids: list[Identity]) -> tuple[tuple[str, ...], dict[int, Array]]:
    """Return names, and uint8 [A] by id.

    The file has the number of images, a line of names, then a file name and values on each line.
    """
    table = _read_table(path, skiprows=1)
    with reading(path, _FETCH):
        numbers = [int(Path(name).stem) for name in table.index]
        with path.open(encoding="utf-8-sig") as stream:
            count = int(stream.readline())
    if count != len(numbers) or not table.isin((-1, 1)).all(axis=None):
        raise damaged_file(
            path, f"not {count} images with {table.shape[1]} values of -1 or 1", _FETCH
        )
    values = dict(zip(numbers, (table.to_numpy() > 0).astype(np.uint8), strict=True))
    if missing := set(ids) - values.keys():
        raise damaged_file(path, f"no attributes of image {min(missing)}", _FETCH)
    return tuple(table.columns), values
