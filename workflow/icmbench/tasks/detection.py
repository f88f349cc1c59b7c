"""Run a detector over a split and match its boxes (and masks) with the ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from icmbench.codecs.base import Features
from icmbench.data.classes import shown_names
from icmbench.data.dataset import Split
from icmbench.data.masks import encode_masks
from icmbench.evaluate.predict import Inputs, Predictor
from icmbench.evaluate.statistics import AveragePrecisionStatistics
from icmbench.jobs import EvaluateJob
from icmbench.metrics.average_precision import average_precision_by_category, match_detections
from icmbench.registry import TASKS
from icmbench.tasks.base import ClassResult, Outcome, agreement, judged_by_originals
from icmbench.utils.coco import CocoAnnotations, CocoResult
from icmbench.utils.logs import progress

_BATCH = 8
_GROUPS = {"bbox": "box", "segm": "mask"}


def detect(
    job: EvaluateJob, split: Split, iou_types: tuple[Literal["bbox", "segm"], ...]
) -> Outcome:
    """Return COCO average precision of a job's detector on a split.

    Boxes are compared in native pixels, whatever size was coded. Of a network judged by its own
    answers the truth is what it finds on the original images with at least the task's threshold.
    The images of a batch have equal sizes, so that results do not depend on the batch.
    """
    predictor = Predictor(job, split)
    originals = judged_by_originals(job)
    # Features of several sizes do not fit in one batch, and padding would change published numbers.
    single = job.decoder is not None or TASKS[job.task.network].exact
    step = 1 if single else _BATCH
    category = _as_it_is if originals else split.category
    predictions = predict_all(predictor, split, step, job.key, category)
    own = predict_all(predictor, split, step, job.key, category, True) if originals else []
    truth = _own_truth(job, split, own) if originals else split.annotations
    assert truth is not None  # as the task needs
    names = {own["id"]: own["name"] for own in truth["categories"]}
    statistics = {}
    metrics: dict[str, float] = {}
    per_class: list[ClassResult] = []
    for iou_type in iou_types:
        matches = match_detections(truth, predictions, iou_type, split.ids)
        group = AveragePrecisionStatistics(matches)
        statistics[_GROUPS[iou_type]] = group
        metrics.update(group.metrics())
        per_class += [
            ClassResult(names[identity], f"{_GROUPS[iou_type]}_map", value, count)
            for identity, (value, count) in average_precision_by_category(matches).items()
        ]
    outcome = Outcome(dict(statistics), metrics, predictions, predictor.compute.name, per_class)
    return agreement(outcome) if originals else outcome


def _as_it_is(label: int) -> int | None:
    return label


def _own_truth(job: EvaluateJob, split: Split, found: list[CocoResult]) -> CocoAnnotations:
    """Return what a detector found on the original images as annotations of its own classes."""
    labels, threshold = job.task.needs.labels, job.task.parameters["threshold"]
    assert labels is not None and isinstance(threshold, int | float)
    sizes = [split.native_size(index) for index in range(len(split))]
    objects: list[Any] = [
        {**row, "id": n, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
        for n, row in enumerate((row for row in found if row["score"] >= threshold), start=1)
    ]
    return {
        "images": [
            {"id": identity, "file_name": "", "width": width, "height": height}
            for identity, (width, height) in zip(split.ids, sizes, strict=True)
        ],
        "annotations": objects,
        "categories": [
            {"id": label, "name": name} for label, name in enumerate(shown_names(labels))
        ],
    }


def _found(
    predictor: Predictor,
    split: Split,
    indices: Sequence[int],
    inputs: Inputs,
    category: Callable[[int], int | None],
) -> list[CocoResult]:
    """Return the detections on some images as COCO results in native pixels."""
    sizes = inputs.sizes if isinstance(inputs, Features) else [tuple(i.shape[-2:]) for i in inputs]
    rows: list[CocoResult] = []
    for index, size, result in zip(indices, sizes, predictor.predict(inputs), strict=True):
        rows += _native(split, index, size, result, category)
    return rows


def predict_all(
    predictor: Predictor,
    split: Split,
    most: int,
    key: str,
    category: Callable[[int], int | None],
    originals: bool = False,
) -> list[CocoResult]:
    """Return the detections on every image, in the order of the images.

    Args:
        predictor: of the task.
        split: its images.
        most: images of a batch.
        key: of the operating point, for the progress bar.
        category: of the data set, for a label of the network.
        originals: read the original images instead of the decoded ones.
    """
    native = [split.native_size(index) for index in range(len(split))]
    read = predictor.originals if originals else predictor.inputs
    rows: list[CocoResult] = []
    for indices in progress(batches_of_equal_size(native, most), f"{key}: detect"):
        rows += _found(predictor, split, indices, read(indices), category)
    order = {identity: place for place, identity in enumerate(split.ids)}
    return sorted(rows, key=lambda row: order[row["image_id"]])


def batches_of_equal_size(sizes: Sequence[tuple[int, int]], most: int) -> list[list[int]]:
    """Return batches of at most ``most`` indices whose sizes are equal.

    torchvision pads the images of a batch to one size, and a network's answer depends on that.

    >>> batches_of_equal_size([(4, 3), (3, 4), (4, 3), (4, 3)], 2)
    [[0, 2], [3], [1]]
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size, []).append(index)
    return [
        group[first : first + most]
        for group in groups.values()
        for first in range(0, len(group), most)
    ]


def _native(
    split: Split,
    index: int,
    size: tuple[int, ...],
    result: dict[str, torch.Tensor],
    category_of: Callable[[int], int | None],
) -> list[CocoResult]:
    """Return one image's detections as COCO results in native pixels."""
    width, height = split.native_size(index)
    scale = torch.tensor([width / size[1], height / size[0]] * 2)
    boxes = result["boxes"].float().cpu() * scale
    boxes[:, 2:] -= boxes[:, :2]
    categories = [category_of(label) for label in result["labels"].tolist()]
    masks = encode_masks(result["masks"], width, height) if "masks" in result else None
    rows: list[CocoResult] = []
    for n, (box, category, score) in enumerate(
        zip(boxes.tolist(), categories, result["scores"].float().tolist(), strict=True)
    ):
        if category is None:  # the network has more classes than the data set
            continue
        row: CocoResult = {
            "image_id": split.ids[index],
            "category_id": category,
            "bbox": [round(value, 2) for value in box],
            "score": round(score, 5),
        }
        if masks is not None:
            row["segmentation"] = masks[n]
        rows.append(row)
    return rows
