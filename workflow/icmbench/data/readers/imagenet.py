"""ImageNet-1k (Russakovsky et al., IJCV 115(3), 2015) as lists of files, labels and classes.

Labels are those of torchvision and of every common checkpoint: the place of the class's WordNet id
among the 1000 sorted ones. The development kit numbers the classes otherwise (ILSVRC2012_ID, from
1); its ``meta.mat`` maps one to the other.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from icmbench.errors import damaged_file, missing_file
from icmbench.utils.files import reading

_FETCH = "fetch the data set again"
_META = Path("devkit", "data", "meta.mat")
_TRUTH = Path("devkit", "data", "ILSVRC2012_validation_ground_truth.txt")
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


def index(folder: Path, split: Literal["train", "val"]) -> ImageNetIndex:
    """Return the files and labels of a split.

    Labels are the same for a part of ImageNet, as classes come from the development kit.

    Args:
        folder: the data set's folder, with ``train``, ``val`` and ``devkit``.
        split: train, or val with the validation images of 2012.

    Raises:
        UserError: naming a file or folder that is missing, damaged or unknown to ``meta.mat``.
    """
    synsets = _read_synsets(folder / _META)
    pairs = _train(folder, synsets) if split == "train" else _val(folder, synsets)
    if not pairs:
        raise missing_file(folder / split / "*.JPEG", _FETCH)
    files, labels = map(list, zip(*pairs, strict=True))
    return ImageNetIndex(files, labels, synsets.words, synsets.wnids)


def _train(folder: Path, synsets: _Synsets) -> list[tuple[str, int]]:
    root = folder / "train"
    label_of_wnid = {wnid: label for label, wnid in enumerate(synsets.wnids)}
    present = sorted(entry.name for entry in _scan(root) if entry.is_dir())
    if unknown := [name for name in present if name not in label_of_wnid]:
        raise damaged_file(root / unknown[0], f"not a class of {_META}", f"remove it or {_FETCH}")
    return [
        (f"train/{wnid}/{name}", label_of_wnid[wnid])
        for wnid in present
        for name in _images(root / wnid)
    ]


def _val(folder: Path, synsets: _Synsets) -> list[tuple[str, int]]:
    labels = _read_truth(folder / _TRUTH, synsets)
    pairs = []
    for name in _images(folder / "val"):
        match = _VAL_NAME.fullmatch(name)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(labels):
            reason = f"{_TRUTH.name} with {len(labels)} lines has no class of it"
            raise damaged_file(folder / "val" / name, reason, f"remove it or {_FETCH}")
        pairs.append((f"val/{name}", labels[number - 1]))
    return pairs


def _read_synsets(path: Path) -> _Synsets:
    """Return the classes in ``meta.mat``: the synsets without children, as torchvision takes them.

    The file also holds the inner nodes of WordNet's tree, which have children and no images.
    """
    from scipy.io import loadmat  # type: ignore[import-untyped,unused-ignore]

    try:
        with reading(path, _FETCH), path.open("rb") as stream:
            synsets = np.atleast_1d(loadmat(stream, squeeze_me=True)["synsets"])
            leaves = synsets[synsets["num_children"].astype(int) == 0]
            rows = sorted(
                (str(row["WNID"]), str(row["words"]), int(row["ILSVRC2012_ID"])) for row in leaves
            )
    except FileNotFoundError:
        raise missing_file(path, _FETCH) from None
    label_of_id = {identity: label for label, (_, _, identity) in enumerate(rows)}
    wnids = [wnid for wnid, _, _ in rows]
    if not rows or len(label_of_id) < len(rows) or len(set(wnids)) < len(rows):
        reason = (
            f"{len(rows)} classes with {len(set(wnids))} WordNet ids and {len(label_of_id)} "
            "ILSVRC2012_IDs, which must be as many"
        )
        raise damaged_file(path, reason, _FETCH)
    return _Synsets(wnids, [words for _, words, _ in rows], label_of_id)


def _read_truth(path: Path, synsets: _Synsets) -> list[int]:
    """Return the label of each validation image, in the order of their numbers."""
    try:
        with reading(path, _FETCH):
            ids = [int(line) for line in path.read_text("utf-8-sig").split()]
    except FileNotFoundError:
        raise missing_file(path, _FETCH) from None
    if unknown := set(ids) - synsets.label_of_id.keys():
        raise damaged_file(path, f"no class of {_META} has ILSVRC2012_ID {min(unknown)}", _FETCH)
    return [synsets.label_of_id[identity] for identity in ids]


def _images(folder: Path) -> list[str]:
    return sorted(entry.name for entry in _scan(folder) if entry.name.endswith(".JPEG"))


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        raise missing_file(folder, _FETCH) from None
