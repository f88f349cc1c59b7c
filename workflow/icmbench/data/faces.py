"""One view of every set of faces: images, attributes and parsing maps of a split."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from icmbench.data.readers.celeba import CelebA, CelebAMaskHQ
from icmbench.data.readers.face_index import Array, FaceIndex, Identity, SplitName
from icmbench.data.specs import DatasetSpec, EmbeddedFaces
from icmbench.errors import UserError
from icmbench.utils.files import read_object, reading

SETS: dict[str, type[CelebA] | type[CelebAMaskHQ]] = {
    "celeba": CelebA,
    "celebamask_hq": CelebAMaskHQ,
}


class EmbeddedFaceIndex(FaceIndex):
    """What :func:`icmbench.data.synthetic.faces.generate_faces` left, one split of it."""

    def __init__(self, folder: Path, split: SplitName) -> None:
        self.folder, self.split = folder, split
        path = folder / f"attributes_{split}.json"
        if not path.is_file():
            raise UserError(f"{path}: no such file; run the workflow's data rule")
        self.parsing_names = tuple(read_object(folder / "manifest.json", "parsing")["parsing"])
        content = read_object(path, "names", "values")
        self.attribute_names = tuple(content["names"])
        self._values = {int(identity): row for identity, row in content["values"].items()}
        self._archive: zipfile.ZipFile | None = None

    def __getstate__(self) -> dict[str, Any]:
        # An open archive cannot follow a loader's worker process.
        return {**self.__dict__, "_archive": None}

    def ids(self, split: SplitName, limit: int | None = None) -> list[Identity]:
        """Return the ids; only this index's own split has any."""
        return list(sorted(self._values)[:limit]) if split == self.split else []

    def file(self, identity: Identity) -> str:
        """Return the name inside the archive."""
        return f"{identity}.png"

    def images(self, split: SplitName) -> Path:
        """Return the archive of a split."""
        return self.folder / f"{split}.zip"

    def attributes(self, identity: Identity) -> Array:
        """Return uint8 [A]."""
        return np.array(self._values[int(identity)], np.uint8)

    def parsing(self, identity: Identity, size: tuple[int, int]) -> Array:
        """Return the map, drawn with the image."""
        place = self.folder / f"parsing_{self.split}.zip"
        if self._archive is None:
            with reading(place):
                self._archive = zipfile.ZipFile(place)
        with reading(f"{place}: {self.file(identity)}"):
            return self._parsing(self._archive, identity, size)

    def _parsing(
        self, archive: zipfile.ZipFile, identity: Identity, size: tuple[int, int]
    ) -> Array:
        with Image.open(io.BytesIO(archive.read(self.file(identity)))) as image:
            if image.size != size[::-1]:
                return np.asarray(image.resize(size[::-1], Image.Resampling.NEAREST))
            return np.asarray(image)


@dataclass(frozen=True)
class FaceSet:
    """One split of a set of faces.

    Attributes:
        index: the data set.
        split: train, val or test.
        limit: use only the first images by id; None takes all.
    """

    index: FaceIndex
    split: SplitName
    limit: int | None = None

    @cached_property
    def ids(self) -> list[Identity]:
        """Ids of the images, sorted."""
        return self.index.ids(self.split, self.limit)

    @property
    def images(self) -> Path:
        """Folder or zip archive that :meth:`file` is relative to."""
        return self.index.images(self.split)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the A attributes."""
        return self.index.attribute_names

    @property
    def parsing_names(self) -> tuple[str, ...]:
        """Names of the classes of parsing maps; empty where there are no maps."""
        return self.index.parsing_names

    def file(self, identity: Identity) -> str:
        """Return the path of an image, relative to :attr:`images`."""
        return self.index.file(identity)

    def attributes(self, identity: Identity) -> Array:
        """Return uint8 [A]: 1 where the face has the attribute."""
        return self.index.attributes(identity)

    def parsing(self, identity: Identity, size: tuple[int, int]) -> Array | None:
        """Return uint8 [height, width] of class indices at ``size`` (height, width), or None."""
        return self.index.parsing(identity, size)

    def attribute_table(self) -> Array:
        """Return uint8 [I, A], in the order of ``ids``."""
        if not self.ids:
            return np.zeros((0, len(self.attribute_names)), np.uint8)
        return np.stack([self.attributes(identity) for identity in self.ids])


def open_faces(dataset: DatasetSpec, split: str) -> FaceSet:
    """Return a split (train, val or test) of the faces of a job's ``dataset`` section.

    Raises:
        UserError: where the data set is no set of faces, or the scale does not give the split.
    """
    if split not in ("train", "val", "test"):
        raise UserError(f"split {split!r}: faces have the splits train, val and test")
    part: SplitName = split  # type: ignore[assignment]
    folder = Path(dataset.folder)
    if isinstance(dataset.settings, EmbeddedFaces):
        return FaceSet(EmbeddedFaceIndex(folder, part), part)
    if dataset.name not in SETS:
        allowed = ", ".join(["embedded-faces", *SETS])
        raise UserError(
            f"data set {dataset.name!r} of role {dataset.role!r} has no face attributes; "
            f"choose from {allowed} in the scale"
        )
    return FaceSet(SETS[dataset.name](folder), part, dataset.split(split).limit)
