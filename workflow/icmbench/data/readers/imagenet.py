"""ImageNet-1k (Russakovsky et al., IJCV 115(3), 2015) as lists of files, labels and classes.

Labels are those of torchvision and of every common checkpoint: the place of the class's WordNet id
among the 1000 sorted ones. The development kit numbers the classes otherwise (ILSVRC2012_ID, from
1); its ``meta.mat`` leads from one to the other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from icmbench.data.derived import derived
from icmbench.data.manifest import Manifest
from icmbench.errors import UserError

_FORMAT = 1  # to be raised with every change of what index returns
_META = Path("devkit", "data", "meta.mat")
_TRUTH = Path("devkit", "data", "ILSVRC2012_validation_ground_truth.txt")
_SUFFIX = ".JPEG"
_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


@dataclass(frozen=True)
class ImageNetIndex:
    """The images of one split.

    Attributes:
        files: paths relative to the data set's folder, with ``/``; train by class and name, val by
            name.
        labels: class of each file, from 0, an index of ``classes`` and ``wnids``.
        classes: WordNet's words for each class, such as ``tench, Tinca tinca``. Not unique: there
            are two cranes.
        wnids: WordNet id of each class, such as ``n01440764``, sorted.
    """

    files: list[str]
    labels: list[int]
    classes: list[str]
    wnids: list[str]


class _Synsets(NamedTuple):
    """The classes, sorted by WordNet id, and the label of each ILSVRC2012_ID."""

    wnids: list[str]
    words: list[str]
    label_of_id: dict[int, int]


def index(folder: Path, split: Literal["train", "val"], cache: Path) -> ImageNetIndex:
    """Return the files and labels of a split, from ``cache`` where that fits the data.

    Otherwise the folders are listed once and ``cache`` is written, atomically. The data set's
    manifest (``<folder>.manifest.json``) says what the data are, and whether they are a part of
    ImageNet only: then there may be fewer images than lines of ground truth. Labels are the same
    for a part, as classes come from the development kit.

    Args:
        folder: the data set's folder, with ``train``, ``val`` and ``devkit``.
        split: train, or val with the validation images of 2012.
        cache: JSON file of this split.

    Raises:
        UserError: naming the file, for a missing manifest, folder or image, a class folder or an
            id that ``meta.mat`` lacks, ground truth of the wrong length, and a damaged file.
    """
    readers: dict[str, Callable[[Path, _Synsets, bool], list[tuple[str, int]]]] = {
        "train": _train,
        "val": _val,
    }
    if split not in readers:
        raise UserError(f"ImageNet has no split {split!r}; choose train or val")

    def make(manifest: Manifest) -> dict[str, Any]:
        synsets = _read_synsets(folder / _META)
        pairs = readers[split](folder, synsets, manifest.subset)
        found = ImageNetIndex(
            files=[file for file, _ in pairs],
            labels=[label for _, label in pairs],
            classes=synsets.words,
            wnids=synsets.wnids,
        )
        return asdict(found)

    def read(content: dict[str, Any]) -> ImageNetIndex:
        return ImageNetIndex(**content)

    return derived(folder, cache, [_FORMAT, split], make, read)


def _train(folder: Path, synsets: _Synsets, subset: bool) -> list[tuple[str, int]]:
    root = folder / "train"
    label_of_wnid = {wnid: label for label, wnid in enumerate(synsets.wnids)}
    present = sorted(entry.name for entry in _scan(root) if entry.is_dir())
    if unknown := [name for name in present if name not in label_of_wnid]:
        raise UserError(
            f"{root / unknown[0]}: not a class of {folder / _META}: remove the folder or fetch "
            "the data set again"
        )
    pairs = [
        (f"train/{wnid}/{name}", label_of_wnid[wnid])
        for wnid in present
        for name in _names(root / wnid)
    ]
    if not pairs:
        raise UserError(f"{root}: holds no class folder with images: fetch the data set again")
    if not subset and (empty := set(synsets.wnids) - {file.split("/")[1] for file, _ in pairs}):
        raise UserError(
            f"{root / min(empty)}: no image of this class ({len(empty)} such classes): fetch the "
            "data set again"
        )
    return pairs


def _val(folder: Path, synsets: _Synsets, subset: bool) -> list[tuple[str, int]]:
    root, truth = folder / "val", folder / _TRUTH
    names = _names(root)
    if not names:
        raise UserError(f"{root}: holds no images *{_SUFFIX}: fetch the data set again")
    labels = _read_truth(truth, synsets)
    pairs = []
    for name in names:
        match = _VAL_NAME.fullmatch(name)
        if match is None:
            raise UserError(
                f"{root / name}: not named ILSVRC2012_val_00000001{_SUFFIX} or so: its class is "
                "not known; remove it or fetch the data set again"
            )
        number = int(match[1])
        if not 1 <= number <= len(labels):
            raise UserError(
                f"{truth}: {len(labels)} lines, none for image {name}: fetch the data set again"
            )
        pairs.append((f"val/{name}", labels[number - 1]))
    if len(names) != len(labels) and not subset:
        raise UserError(
            f"{truth}: {len(labels)} lines for {len(names)} images in {root}: fetch the data set "
            "again"
        )
    return pairs


def _read_synsets(path: Path) -> _Synsets:
    """Return the classes in ``meta.mat``: the synsets without children, as torchvision takes them.

    The file also holds the inner nodes of WordNet's tree, which have children and no images.
    """
    # Here, as it takes 0.2 s that readers of the cache need not wait for.
    from scipy.io import loadmat  # type: ignore[import-untyped,unused-ignore]

    try:
        with path.open("rb") as stream:
            synsets = np.atleast_1d(loadmat(stream, squeeze_me=True)["synsets"])
        leaves = synsets[synsets["num_children"].astype(int) == 0]
        rows = sorted(
            (str(row["WNID"]), str(row["words"]), int(row["ILSVRC2012_ID"])) for row in leaves
        )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: fetch the data set again") from None
    # A damaged MAT file raises nearly anything, from zlib.error to TypeError.
    except Exception as error:
        raise UserError(
            f"{path}: not the development kit's list of classes ({error!r}): fetch the data set "
            "again"
        ) from error
    label_of_id = {identity: label for label, (_, _, identity) in enumerate(rows)}
    wnids = [wnid for wnid, _, _ in rows]
    if not rows or len(label_of_id) < len(rows) or len(set(wnids)) < len(rows):
        raise UserError(
            f"{path}: {len(rows)} classes with {len(set(wnids))} WordNet ids and "
            f"{len(label_of_id)} ILSVRC2012_IDs, which must be as many: fetch the data set again"
        )
    return _Synsets(wnids, [words for _, words, _ in rows], label_of_id)


def _read_truth(path: Path, synsets: _Synsets) -> list[int]:
    """Return the label of each validation image, in the order of their numbers."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: fetch the data set again") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text of numbers: fetch the data set again") from None
    labels = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        label = synsets.label_of_id.get(int(text)) if text.isdigit() else None
        if label is None:
            raise UserError(
                f"{path}: line {number}: {text!r} is no ILSVRC2012_ID of a class in {_META.name}: "
                "fetch the data set again"
            )
        labels.append(label)
    return labels


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in _scan(folder) if entry.name.endswith(_SUFFIX))


def _scan(folder: Path) -> list[os.DirEntry[Any]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        raise UserError(f"{folder}: no such folder: fetch the data set again") from None
