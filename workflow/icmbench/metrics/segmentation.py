"""Metrics of semantic segmentation from confusion matrices.

As in the ``Evaluator`` of pytorch-deeplab-xception: one matrix over the whole set; rows are true
classes, columns are predicted classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def confusion_matrix(
    truth: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: int
) -> npt.NDArray[np.int32]:
    """Return the counts [classes, classes] of pixels by true (row) and predicted (column) class.

    Args:
        truth: class indices of any shape; a pixel outside ``0 .. classes - 1`` is not counted.
        predicted: class indices of the same shape.
        classes: number of classes.

    Raises:
        ValueError: if the shapes differ or the prediction of a counted pixel is not a class.

    >>> confusion_matrix(np.array([0, 0, 1, 255]), np.array([0, 1, 1, 0]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"shapes differ: truth {truth.shape}, predicted {predicted.shape}")
    counted = (truth >= 0) & (truth < classes)
    rows = truth[counted].astype(np.int64)
    columns = predicted[counted].astype(np.int64)
    if columns.size and not (columns.min() >= 0 and columns.max() < classes):
        raise ValueError(f"predicted classes must be in 0 .. {classes - 1}")
    counts = np.bincount(rows * classes + columns, minlength=classes**2)
    return counts.reshape(classes, classes).astype(np.int32)


def segmentation_metrics(confusion: npt.NDArray[Any]) -> dict[str, Floats]:
    """Return the metrics of confusion matrices [..., K, K], each [...] in [0, 1].

    ``miou``: mean intersection over union of the classes that occur in truth or prediction.
    ``fwiou``: intersection over union of the classes, weighted by their share of the true pixels.
    ``pixel_accuracy``: share of pixels with the right class. NaN for a matrix without pixels.

    >>> metrics = segmentation_metrics(np.array([[3, 1], [0, 4]]))
    >>> {name: round(float(value), 3) for name, value in metrics.items()}
    {'miou': 0.775, 'fwiou': 0.775, 'pixel_accuracy': 0.875}
    """
    right, true, union = _parts(confusion)
    pixels = true.sum(-1)
    occurs = union > 0
    iou = np.divide(right, union, out=np.zeros_like(union), where=occurs)
    return {
        "miou": _ratio(iou.sum(-1), occurs.sum(-1)),
        "fwiou": _ratio((true * iou).sum(-1), pixels),
        "pixel_accuracy": _ratio(right.sum(-1), pixels),
    }


def iou_by_class(confusion: npt.NDArray[Any]) -> Floats:
    """Return the intersection over union of each class, (K,); NaN of classes that do not occur.

    >>> iou_by_class(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])).tolist()
    [0.75, 0.8, nan]
    """
    right, _, union = _parts(confusion)
    return _ratio(right, union)


def _parts(confusion: npt.NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """Return intersections, true pixels and unions of the classes, [..., K] each."""
    counts = np.asarray(confusion, np.float64)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    true = counts.sum(-1)
    return right, true, true + counts.sum(-2) - right


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    part = np.asarray(part, np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=np.asarray(whole) > 0)
