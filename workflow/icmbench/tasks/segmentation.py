"""Segment every image of a split: a class for each of its pixels."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np

from icmbench.data.classes import shown_names
from icmbench.data.dataset import Split
from icmbench.evaluate.predict import Predictor
from icmbench.evaluate.statistics import ConfusionStatistics
from icmbench.jobs import EvaluateJob
from icmbench.metrics.segmentation import confusion_matrix, iou_by_class
from icmbench.tasks.base import ClassResult, Outcome, agreement, judged_by_originals
from icmbench.utils.images import as_png
from icmbench.utils.logs import progress

_MAPS_SHOWN = 12  # label maps kept for the report


def segment(job: EvaluateJob, split: Split) -> Outcome:
    """Return ``miou``, ``fwiou`` and ``pixel_accuracy`` of a job's network on a split.

    One confusion matrix over the coded pixels of all images, without those of no class (255); see
    :mod:`icmbench.metrics.segmentation`.
    """
    assert job.task.needs.labels is not None
    names = shown_names(job.task.needs.labels)
    predictor = Predictor(job, split)
    originals = judged_by_originals(job)
    matrices, predictions = [], []
    for index in progress(range(len(split)), f"{job.key}: segment"):
        (found,) = (own.cpu().numpy() for own in predictor.predict(predictor.inputs([index])))
        if originals:
            (truth,) = predictor.predict(predictor.originals([index]))
            matrices.append(confusion_matrix(truth.cpu().numpy(), found, len(names)))
        else:
            matrices.append(confusion_matrix(split.label_map(index), found, len(names)))
        if index < _MAPS_SHOWN:
            shown = base64.b64encode(as_png(found)).decode("ascii")
            predictions.append({"image_id": split.ids[index], "parsing": shown})
    statistics = ConfusionStatistics(split.ids, np.stack(matrices))
    outcome = Outcome(
        {"segmentation": statistics},
        statistics.metrics(),
        per_class=class_results(np.sum(matrices, axis=0, dtype=np.int64), names),
        predictions=predictions,
        device=predictor.compute.name,
    )
    return agreement(outcome) if originals else outcome


def class_results(confusion: np.ndarray, names: Sequence[str]) -> list[ClassResult]:
    """Return ``iou`` of each class that occurs in truth or prediction; rows are true classes."""
    return [
        ClassResult(name, "iou", float(value), int(count))
        for name, value, count in zip(names, iou_by_class(confusion), confusion.sum(1), strict=True)
        if not np.isnan(value)
    ]
