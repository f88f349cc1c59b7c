"""CelebA (Liu et al., ICCV 2015) and CelebAMask-HQ (Lee et al., CVPR 2020) as published.

Reads a fetched folder as it is unpacked; attributes of -1 and 1 become 0 and 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from icmbench.data.readers.face_index import Array, FaceIndex, Identity, SplitName
from icmbench.errors import UserError
from icmbench.utils.files import reading

# Indices into CelebA at which CelebAMask-HQ's own script ends train and val.
TRAIN_END, VAL_END = 162_771, 182_638

# Order in which CelebAMask-HQ's script paints the parts, and so numbers the classes.
PARSING = (
    "background",
    "skin",
    "nose",
    "eye_g",
    "l_eye",
    "r_eye",
    "l_brow",
    "r_brow",
    "l_ear",
    "r_ear",
    "mouth",
    "u_lip",
    "l_lip",
    "hair",
    "hat",
    "ear_r",
    "neck_l",
    "neck",
    "cloth",
)

PARTITION: tuple[SplitName, ...] = ("train", "val", "test")
_MASKS_PER_FOLDER = 2000


def split_of(celeba_index: int) -> SplitName:
    """Return the split of a CelebAMask-HQ image by the ``orig_idx`` of its mapping file."""
    if celeba_index < TRAIN_END:
        return "train"
    return "val" if celeba_index < VAL_END else "test"


class CelebA(FaceIndex):
    """The aligned images with 40 attributes and the official partition; ids are file numbers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.attribute_names, self._values = _read_attributes(folder / "list_attr_celeba.txt")

    def ids(self, split: SplitName, limit: int | None = None) -> list[Identity]:
        """Return the ids of a split of ``list_eval_partition.txt``."""
        return list(self._by_split[split][:limit])

    @cached_property
    def _by_split(self) -> dict[SplitName, list[int]]:
        path = self.folder / "list_eval_partition.txt"
        found: dict[SplitName, list[int]] = {name: [] for name in PARTITION}
        for number, cells in _rows(path):
            try:
                name, code = cells
                found[PARTITION[int(code)]].append(int(Path(name).stem))
                if int(code) < 0:
                    raise IndexError(code)
            except (ValueError, IndexError):
                raise _bad_line(path, number, "a file name and 0, 1 or 2") from None
        return _each_once(path, found)

    def file(self, identity: Identity) -> str:
        """Return the file name of an image."""
        return f"{int(identity):06d}.jpg"

    def images(self, split: SplitName) -> Path:
        """Return the folder of all splits."""
        return self.folder / "img_align_celeba"

    def attributes(self, identity: Identity) -> Array:
        """Return uint8 [40]."""
        return _look_up(self._values, identity, self.folder / "list_attr_celeba.txt")


class CelebAMaskHQ(FaceIndex):
    """30,000 faces of 1024 x 1024 with 40 attributes and masks of 18 parts; ids from 0."""

    parsing_names = PARSING

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._annotations = folder / "CelebAMask-HQ-attribute-anno.txt"
        self.attribute_names, self._values = _read_attributes(self._annotations)

    def ids(self, split: SplitName, limit: int | None = None) -> list[Identity]:
        """Return the ids of a split, see :func:`split_of`."""
        return list(self._by_split[split][:limit])

    @cached_property
    def _by_split(self) -> dict[SplitName, list[int]]:
        path = self.folder / "CelebA-HQ-to-CelebA-mapping.txt"
        found: dict[SplitName, list[int]] = {name: [] for name in PARTITION}
        for number, cells in _rows(path):
            if number == 1:  # idx orig_idx orig_file
                continue
            try:
                own, original, _ = cells
                found[split_of(int(original))].append(int(own))
            except ValueError:
                raise _bad_line(path, number, "idx, orig_idx and orig_file") from None
        return _each_once(path, found)

    def file(self, identity: Identity) -> str:
        """Return the file name of an image."""
        return f"{identity}.jpg"

    def images(self, split: SplitName) -> Path:
        """Return the folder of all splits."""
        return self.folder / "CelebA-HQ-img"

    def attributes(self, identity: Identity) -> Array:
        """Return uint8 [40]."""
        return _look_up(self._values, identity, self._annotations)

    def parsing(self, identity: Identity, size: tuple[int, int]) -> Array:
        """Return the map merged from the masks of the parts; later parts lie over earlier ones.

        Raises:
            UserError: where an image has no mask at all.
        """
        number = int(identity)
        folder = self.folder / "CelebAMask-HQ-mask-anno" / str(number // _MASKS_PER_FOLDER)
        merged = np.zeros(size, np.uint8)
        found = False
        for label, part in enumerate(PARSING[1:], start=1):
            path = folder / f"{number:05d}_{part}.png"
            if not path.is_file():  # a part that is not seen has no file
                continue
            found = True
            with reading(path, "get the file again"), Image.open(path) as image:
                mask = image.convert("L").resize(size[::-1], Image.Resampling.NEAREST)
            merged[np.asarray(mask) > 127] = label
        if not found:
            raise UserError(
                f"{folder}: no mask of image {identity} (such as {number:05d}_skin.png); fetch "
                "celebamask_hq again or complete the folder"
            )
        return merged


def _each_once(path: Path, found: dict[SplitName, list[int]]) -> dict[SplitName, list[int]]:
    counts = Counter(identity for ids in found.values() for identity in ids)
    twice = [identity for identity, count in counts.most_common(1) if count > 1]
    if twice:
        raise UserError(f"{path}: image {twice[0]} stands twice; get the file again")
    return {name: sorted(ids) for name, ids in found.items()}


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers from 1 and the cells of lines that are not empty."""
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if cells := line.split():
                    yield number, cells
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; fetch this data set first") from error
    except UnicodeDecodeError:
        raise UserError(f"{path}: is no text; get the file again") from None


def _bad_line(path: Path, number: int, wanted: str) -> UserError:
    return UserError(f"{path}: line {number} is not {wanted}; get the file again")


def _read_attributes(path: Path) -> tuple[tuple[str, ...], dict[int, Array]]:
    """Return names, and uint8 [A] by id: a count, a line of names, then file name and values."""
    names: tuple[str, ...] = ()
    values: dict[int, Array] = {}
    count: str | None = None
    for number, cells in _rows(path):
        if number == 1:
            count = cells[0]
            continue
        if number == 2:
            names = tuple(cells)
            continue
        try:
            row = np.array(cells[1:], np.int8)
            identity = int(Path(cells[0]).stem)
        except (ValueError, OverflowError):
            row, identity = np.empty(0, np.int8), -1
        if row.size != len(names) or not np.isin(row, (-1, 1)).all():
            raise _bad_line(path, number, f"an image and {len(names)} values of -1 or 1")
        if identity in values:
            raise UserError(f"{path}: image {identity} stands twice; get the file again")
        values[identity] = (row > 0).astype(np.uint8)
    if count != str(len(values)):
        raise UserError(
            f"{path}: {len(values)} images, but its first line says {str(count)[:20]!r}; get the "
            "file again"
        )
    return names, values


def _look_up(values: dict[int, Array], identity: Identity, path: Path) -> Array:
    if int(identity) not in values:
        raise UserError(f"{path}: no attributes of image {identity}; get the file again")
    return values[int(identity)]
