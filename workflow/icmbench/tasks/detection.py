"""Run a detector over a split and match its boxes (and masks) with the ground truth."""

from __future__ import annotations

from typing import Literal

import torch

from icmbench.codecs.base import Features
from icmbench.data.dataset import Split
from icmbench.data.masks import encode_masks
from icmbench.evaluate.predict import Predictor
from icmbench.evaluate.statistics import AveragePrecisionStatistics
from icmbench.jobs import EvaluateJob
from icmbench.metrics.average_precision import match_detections
from icmbench.tasks.base import Outcome
from icmbench.utils.coco import CocoResult
from icmbench.utils.logs import progress

_BATCH = 8
_GROUPS = {"bbox": "box", "segm": "mask"}


def detect(
    job: EvaluateJob, split: Split, iou_types: tuple[Literal["bbox", "segm"], ...]
) -> Outcome:
    """Return COCO average precision of a job's detector on a split.

    Boxes are compared in native pixels, whatever size was coded.

    """
    assert split.annotations is not None  # as the task needs
    predictor = Predictor(job, split)
    step = _BATCH if job.decoder is None else 1  # features of several sizes do not fit in one batch
    predictions: list[CocoResult] = []
    for first in progress(range(0, len(split), step), f"{job.key}: detect"):
        indices = range(first, min(first + step, len(split)))
        inputs = predictor.inputs(indices)
        sizes = (
            inputs.sizes if isinstance(inputs, Features) else [tuple(i.shape[-2:]) for i in inputs]
        )
        results = predictor.predict(inputs)
        for index, size, result in zip(indices, sizes, results, strict=True):
            predictions += _native(split, index, size, result)
    statistics = {}
    metrics: dict[str, float] = {}
    for iou_type in iou_types:
        matches = match_detections(split.annotations, predictions, iou_type, split.ids)
        group = AveragePrecisionStatistics(matches)
        statistics[_GROUPS[iou_type]] = group
        metrics.update(group.metrics())
    return Outcome(dict(statistics), metrics, predictions, predictor.compute.name)


def _native(
    split: Split, index: int, size: tuple[int, ...], result: dict[str, torch.Tensor]
) -> list[CocoResult]:
    """Return one image's detections as COCO results in native pixels."""
    width, height = split.native_size(index)
    scale = torch.tensor([width / size[1], height / size[0]] * 2)
    boxes = result["boxes"].float().cpu() * scale
    boxes[:, 2:] -= boxes[:, :2]
    categories = [split.category(label) for label in result["labels"].tolist()]
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
