"""The one opening of a data set: checked against its own images and what tasks need of it.

The result is remembered beside the manifest, keyed by the digest of the data and the place of the
split, so that later jobs only read it; with it, a copy of an annotation file that opens at once.
Generated sets are as their generator left them.
docs/inputs.md lists what is checked.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from icmbench.data.classes import class_names, find_labels, require_labels
from icmbench.data.image_checks import check_images, check_label_maps, more
from icmbench.data.index import Index, open_index
from icmbench.data.index_copy import read_copy, write_copy
from icmbench.data.manifest import read_checksums
from icmbench.data.names import name_problem
from icmbench.data.readers.coco import segmentation_problem
from icmbench.data.specs import DatasetSpec, ImageSplit, Needs
from icmbench.errors import CannotWrite, UserError, missing_file
from icmbench.utils.files import digest_json, read_object, write_json
from icmbench.utils.models import Strict, read_model

logger = logging.getLogger(__name__)

# Bump if a set that passed may be refused now.
_VERSION = 3


class Facts(Strict):
    """What the check of a split found; a split that cannot be used has none.

    Attributes:
        objects: number of annotated objects that are not crowds; None without annotations.
        categories: id and name of each, by id.
        used: ids of the categories that have objects.
        largest_label: of the classes of images, or of the pixels of label maps, or None.
        masks: why tasks that need masks cannot use the split, or None.
        notes: what people should know.
    """

    objects: int | None = None
    categories: Sequence[tuple[int, str]] = ()
    used: Sequence[int] = ()
    largest_label: int | None = None
    masks: str | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Opened:
    """A split that passed the check."""

    index: Index
    facts: Facts


def open_checked(dataset: DatasetSpec, split: str, needs: Needs | None = None) -> Opened:
    """Return the content of a split, checked now if it was not before.

    Args:
        dataset: of a job.
        split: train, val or test.
        needs: of the task; None where only images are read.

    Raises:
        UserError: in one line: file, entry, what is wrong, what to do.
    """
    memory = _memory(dataset, split)
    known = None if memory is None else _remembered(memory)
    copy = None if memory is None else _copy(dataset, split, memory)
    index = None if known is None or copy is None else read_copy(*copy)
    if index is None or known is None:
        index = open_index(dataset, split, trusted=known is not None)
        if not index.ids:
            raise missing_file(index.images, f"split {split!r} has no image")
        facts = known or _inspect(dataset, split, index)
        with suppress(CannotWrite):  # of a data folder that others own; the next job checks again
            if copy is not None:
                write_copy(copy[0], index)
            if memory is not None and known is None:
                write_json(memory, facts.model_dump(mode="json"))
        known = facts
    opened = Opened(index, known)
    if needs is not None:
        _require(dataset, split, opened, needs)
    return opened


def check_role(dataset: DatasetSpec, needs: Sequence[Needs]) -> None:
    """Check every split of a role against the needs of each of its tasks.

    Raises:
        UserError: naming the first split that cannot be used, and why.
    """
    for split in _splits(dataset):
        opened = open_checked(dataset, split)
        for own in needs:
            _require(dataset, split, opened, own)


def labels_of(categories: Sequence[int], classes: int | None) -> dict[int, int] | None:
    """Return the label of each category id in a network; None if ids are labels.

    They are if each lies between 1 and the network's last class, as COCO's do (0 is background).
    Otherwise labels count the ids from 1, in their order.

    >>> labels_of([1, 90], 91), labels_of([0, 7], 91), labels_of([1, 90], 3)
    (None, {0: 1, 7: 2}, {1: 1, 90: 2})
    """
    if not categories or (min(categories) >= 1 and (classes is None or max(categories) < classes)):
        return None
    return {identity: label for label, identity in enumerate(sorted(categories), start=1)}


# --- memory ---------------------------------------------------------------------------------------


def _splits(dataset: DatasetSpec) -> list[str]:
    return [str(name) for name in dataset.fetched.splits] if dataset.fetched else []


def _memory(dataset: DatasetSpec, split: str) -> Path | None:
    """Return where the result of a split is kept; None for sets without a manifest."""
    manifest = Path(dataset.manifest)
    if dataset.fetched is None or not manifest.is_file():
        return None
    place = dataset.split(split)
    edited = []
    with suppress(OSError):
        state = (Path(dataset.folder) / (place.annotations or "")).stat()
        edited = [state.st_size, state.st_mtime_ns] if place.annotations else []
    digest = read_object(manifest, "digest")["digest"]
    key = digest_json([_VERSION, digest, place.model_dump(mode="json"), split, edited])
    return manifest.parent / ".icmbench" / "checks" / f"{dataset.name}-{key[:16]}.json"


def _copy(dataset: DatasetSpec, split: str, memory: Path) -> tuple[Path, Path] | None:
    """Return the copy of an annotation file that opens at once, and the images; None without one.

    Of the other layouts, the memory's key does not cover the files that are read.
    """
    place = dataset.split(split)
    if place.layout not in (None, "coco") or place.annotations is None:
        return None
    return memory.with_suffix(".arrow"), Path(dataset.folder) / place.images


def _facts(dataset: DatasetSpec, split: str) -> Facts:
    memory = _memory(dataset, split)
    known = None if memory is None else _remembered(memory)
    return open_checked(dataset, split).facts if known is None else known


def _remembered(memory: Path) -> Facts | None:
    with suppress(UserError):
        return read_model(memory, Facts)
    return None


# --- what a set holds ----------------------------------------------------------------------------


def _inspect(dataset: DatasetSpec, split: str, index: Index) -> Facts:
    _check_ids(index)
    if dataset.fetched is None:
        notes = list(index.notes)
    else:
        _check_names(dataset, dataset.split(split), index)
        notes = [*index.notes, *check_images(index.images, index.files, index.sizes)]
    for note in notes:
        logger.warning("%s: split %s: %s", dataset.name, split, note)
    if index.objects is None:
        largest = None if index.labels is None else int(max(index.labels))
        if index.maps is not None:
            largest = check_label_maps(index)
        return Facts(largest_label=largest, notes=notes)
    return Facts(
        objects=sum(not own.get("iscrowd") for objects in index.objects for own in objects),
        categories=[(category["id"], category["name"]) for category in index.categories],
        used=sorted({own["category_id"] for objects in index.objects for own in objects}),
        largest_label=int(max(index.labels or [0])),
        masks=_mask_problem(index),
        notes=notes,
    )


def _check_ids(index: Index) -> None:
    identity, count = Counter(index.ids).most_common(1)[0]
    if count > 1:
        raise UserError(
            f"{index.images}: duplicate image {identity!r}; names must differ before the suffix"
        )


def _check_names(dataset: DatasetSpec, place: ImageSplit, index: Index) -> None:
    problems = [(name, reason) for name in index.files if (reason := name_problem(name))]
    if not problems:
        name, count = Counter(index.files).most_common(1)[0]
        problems = [(name, f"is that of {count} images")] if count > 1 else []
    listing = Path(dataset.manifest).with_name(f"{dataset.name}.files.sha256")
    if not problems and listing.is_file():
        listed = read_checksums(listing)
        place_of = PurePosixPath(place.images)
        names = [(name, str(place_of / name)) for name in index.files]
        if index.images.is_file():  # an archive is listed itself
            names = [(place.images, place.images)]
        if place.annotations is not None:
            names.append((place.annotations, str(PurePosixPath(place.annotations))))
        reason = f"is not among the files of the data set in {listing.name}"
        problems = [(name, reason) for name, path in names if path not in listed]
    if problems:
        name, reason = problems[0]
        source = Path(dataset.folder) / (place.annotations or place.images)
        raise UserError(
            f"{source}: file name {name!r} {reason}{more(problems, len(index.files))}; correct "
            "the names, or the layout in the catalogue"
        )


def _mask_problem(index: Index) -> str | None:
    assert index.objects is not None and index.sizes is not None
    problems = [
        (own, name, reason)
        for name, (width, height), objects in zip(
            index.files, index.sizes, index.objects, strict=True
        )
        for own in objects
        if (reason := segmentation_problem(own.get("segmentation"), height, width)) is not None
    ]
    if not problems:
        return None
    own, name, reason = problems[0]
    which = f"annotation {own['id']!r} of" if "id" in own else "an annotation of"
    return (
        f"{len(problems)} of {sum(map(len, index.objects))} segmentations cannot be used; "
        f"the first, {which} {name!r}, is {reason}"
    )


# --- what tasks need ------------------------------------------------------------------------------


def _require(dataset: DatasetSpec, split: str, opened: Opened, needs: Needs) -> None:
    facts = opened.facts
    what = f"{_source(dataset, split, opened.index)}: role {dataset.role!r}, split {split!r}"
    if needs.truth in ("boxes", "masks"):
        if facts.objects is None:
            raise UserError(
                f"{what}: it has no annotations, which detection needs; name them in the scale"
            )
        if not facts.categories or not facts.objects:
            raise UserError(f"{what}: no object is annotated; give detection another split")
        if needs.labels is None:
            _require_labels(dataset, what, facts, needs)
        else:
            require_labels(_annotated(facts), needs.labels, what)
        if needs.truth == "masks" and facts.masks is not None:
            raise UserError(
                f"{what}: {facts.masks}; correct them, or choose tasks that need boxes only"
            )
    if needs.truth == "label":
        if facts.largest_label is None:
            raise UserError(f"{what}: it has no classes; give the role another in the scale")
        if needs.labels is not None:
            keys = opened.index.keys or opened.index.classes
            used = sorted(set(opened.index.labels or ()))
            require_labels([keys[label] for label in used], needs.labels, what)
            return
        if facts.categories:
            _same_categories(dataset, what, facts)
        if needs.classes is not None and facts.largest_label >= needs.classes:
            raise UserError(
                f"{what}: it has labels up to {facts.largest_label}, but the network has "
                f"{needs.classes} classes; set the task's classes to {facts.largest_label + 1} "
                "or more in the scale"
            )

    if needs.truth == "maps":
        _require_maps(what, opened, needs)


def _annotated(facts: Facts) -> list[str]:
    """Return the names of the categories that have objects."""
    return [name for identity, name in facts.categories if identity in facts.used]


def _require_maps(what: str, opened: Opened, needs: Needs) -> None:
    facts, index = opened.facts, opened.index
    assert needs.labels is not None
    if index.maps is not None:
        if index.classes:
            require_labels(index.classes, needs.labels, what)
        count = len(index.classes or class_names(needs.labels))
        if facts.largest_label is not None and facts.largest_label >= count:
            raise UserError(
                f"{what}: its label maps have indices up to {facts.largest_label}, but there are "
                f"{count} classes; set 'classes' of the data set, or of the task"
            )
    elif facts.objects is None:
        raise UserError(
            f"{what}: it has neither label maps nor objects, which segmentation needs; name them "
            "under 'maps' or 'annotations'"
        )
    elif facts.masks is not None:
        raise UserError(f"{what}: {facts.masks}; correct them, or give label maps")
    elif not find_labels(_annotated(facts), needs.labels):
        raise UserError(
            f"{what}: none of its annotated categories is a class of the network; set the task's "
            "'classes', or give the role another data set"
        )


def _source(dataset: DatasetSpec, split: str, index: Index) -> Path:
    """Return the file that holds the annotations, or the folder of the images."""
    if dataset.fetched is None or dataset.split(split).annotations is None:
        return index.images
    return Path(dataset.folder) / str(dataset.split(split).annotations)


def _require_labels(dataset: DatasetSpec, what: str, facts: Facts, needs: Needs) -> None:
    ids = [identity for identity, _ in facts.categories]
    if labels_of(ids, needs.classes) is None:
        return
    given = f"{len(ids)} category ids from {min(ids)} to {max(ids)}"
    if needs.published:
        last = "" if needs.classes is None else f" to {needs.classes - 1}"
        raise UserError(
            f"{what}: {given}, but published weights number classes from 1{last}; give the "
            "categories the ids of those weights"
        )
    if needs.classes is not None and len(ids) >= needs.classes:
        raise UserError(
            f"{what}: {given}, but the network has {needs.classes} classes with the background; "
            f"set the task's classes to {len(ids) + 1} or more in the scale"
        )
    _same_categories(dataset, what, facts)


def _same_categories(dataset: DatasetSpec, what: str, facts: Facts) -> None:
    """Labels count the categories: they mean the same only if all splits list the same ones."""
    for other in _splits(dataset):
        own = _facts(dataset, other).categories
        if own != facts.categories:
            differ = sorted(set(own) ^ set(facts.categories))
            raise UserError(
                f"{what}: its categories are not those of split {other!r}, first "
                f"{differ[0][1]!r} with id {differ[0][0]}; list the same in both annotation files"
            )
