"""Segmentation metrics against cases by hand and against torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from icmbench.metrics.segmentation import confusion_matrix, iou_by_class, segmentation_metrics

RNG = np.random.default_rng(0)


def maps(classes: int, images: int = 6) -> tuple[np.ndarray, np.ndarray]:
    truth = RNG.choice(classes, (images, 20, 24), p=RNG.dirichlet(np.ones(classes)))
    wrong = RNG.random(truth.shape) < RNG.random((images, 1, 1))
    return truth, np.where(wrong, RNG.integers(0, classes, truth.shape), truth)


def test_segmentation_metrics_equal_a_case_by_hand() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 2, 255])
    predicted = np.array([0, 0, 1, 2, 1, 1, 0, 0])
    counts = confusion_matrix(truth, predicted, 4)
    assert counts.tolist() == [[2, 1, 1, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    metrics = segmentation_metrics(counts)
    # IoU: 2/5, 2/3, 0/2; the fourth class is nowhere and does not count
    assert metrics["miou"] == pytest.approx((2 / 5 + 2 / 3 + 0) / 3)
    assert metrics["fwiou"] == pytest.approx(4 / 7 * 2 / 5 + 2 / 7 * 2 / 3)
    assert metrics["pixel_accuracy"] == pytest.approx(4 / 7)


def test_miou_counts_a_class_that_is_only_predicted() -> None:
    metrics = segmentation_metrics(confusion_matrix(np.zeros(4, int), np.array([0, 0, 0, 1]), 2))
    assert metrics["miou"] == pytest.approx(0.75 / 2) and metrics["fwiou"] == pytest.approx(0.75)


@pytest.mark.parametrize("classes", [2, 7, 19])
def test_segmentation_metrics_equal_torchmetrics(classes: int) -> None:
    truth, predicted = maps(classes)
    metrics = segmentation_metrics(confusion_matrix(truth, predicted, classes))
    real, ours = torch.from_numpy(truth), torch.from_numpy(predicted)
    for name, average in (("miou", "macro"), ("fwiou", "weighted")):
        reference = MulticlassJaccardIndex(classes, average=average)  # type: ignore[arg-type]
        assert metrics[name] == pytest.approx(float(reference(ours, real)), abs=1e-6)
    accuracy = MulticlassAccuracy(classes, average="micro")(ours, real)
    assert metrics["pixel_accuracy"] == pytest.approx(float(accuracy), abs=1e-6)


def test_confusion_matrix_refuses_invalid_maps() -> None:
    with pytest.raises(ValueError, match="shapes"):
        confusion_matrix(np.zeros((2, 3)), np.zeros((3, 2)), 2)
    with pytest.raises(ValueError, match=r"0 \.\. 1"):
        confusion_matrix(np.zeros(2, int), np.array([0, 2]), 2)


def test_iou_of_each_class_equals_torchmetrics() -> None:
    truth, predicted = maps(5)
    reference = MulticlassJaccardIndex(5, average="none")
    expected = reference(torch.from_numpy(predicted), torch.from_numpy(truth))
    found = iou_by_class(confusion_matrix(truth, predicted, 5))
    assert found == pytest.approx(expected.numpy(), abs=1e-6)
