"""Run a face network over a split and compare with attributes and parsing maps."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from icmbench.codecs.estimated import as_png
from icmbench.data.dataset import Split
from icmbench.data.readers.faces import open_faces
from icmbench.errors import UserError
from icmbench.evaluate.predict import Predictor
from icmbench.evaluate.statistics import ConfusionStatistics, MeanStatistics, Statistics
from icmbench.jobs import EvaluateJob
from icmbench.metrics.segmentation import confusion_matrix
from icmbench.tasks.base import Outcome
from icmbench.utils.logs import progress

_MAPS_SHOWN = 12  # parsing maps kept for images in the report


def analyse_faces(job: EvaluateJob, split: Split, predictor: Predictor) -> Outcome:
    """Return the metrics of a face network on a split, groups ``attributes`` and ``parsing``.

    ``attribute_accuracy``: share of right attributes at a threshold of one half.
    ``majority_accuracy``: what one gets without looking, by each attribute's more frequent value
    in the train split (absent if the data set has none). ``miou``, ``fwiou`` and
    ``pixel_accuracy``: see :mod:`icmbench.metrics.segmentation`.

    Raises:
        UserError: if the data set lacks what the task predicts.
    """
    correct: list[float] = []
    matrices: list[np.ndarray] = []
    predictions: list[dict[str, Any]] = []
    for index, identity in enumerate(progress(split.ids, f"{job.key}: analyse faces")):
        (result,) = predictor.predict(predictor.inputs([index]))
        row: dict[str, Any] = {"image_id": identity}
        if "attributes" in result:
            probabilities = result["attributes"].float().cpu().numpy()
            truth = split.attributes(index)
            _check("attributes", probabilities.size, truth.size, job)
            correct.append(float(np.mean((probabilities > 0.5) == truth)))
            row["attributes"] = [round(float(value), 4) for value in probabilities]
        if "parsing" in result:
            found = result["parsing"].cpu().numpy()
            classes = len(split.faces.parsing_names)
            _check("parsing", predictor.network.classes, classes, job)
            matrices.append(confusion_matrix(split.parsing(index), found, classes))
            if index < _MAPS_SHOWN:
                row["parsing"] = base64.b64encode(as_png(found)).decode("ascii")
        predictions.append(row)
    statistics: dict[str, Statistics] = {}
    if correct:
        values: dict[str, Any] = {"attribute_accuracy": correct}
        guess = _majority(job)
        if guess is not None:
            table = np.stack([split.attributes(index) for index in range(len(split))])
            values["majority_accuracy"] = (table == guess).mean(1)
        statistics["attributes"] = MeanStatistics(split.ids, values)
    if matrices:
        statistics["parsing"] = ConfusionStatistics(split.ids, np.stack(matrices))
    metrics = {k: v for group in statistics.values() for k, v in group.metrics().items()}
    return Outcome(statistics, metrics, predictions, predictor.compute.name)


def _check(what: str, own: int, given: int, job: EvaluateJob) -> None:
    if own != given:
        role = job.dataset.role
        raise UserError(
            f"{job.key}: task parameter {what!r} is {own}, but the data set of role {role!r} "
            f"has {given}; set it to {given}, or to 0 to leave the task out"
        )


def _majority(job: EvaluateJob) -> np.ndarray | None:
    """Return uint8 [A], the more frequent value of each attribute in the train split."""
    dataset = job.dataset
    if dataset.fetched is not None and "train" not in dataset.fetched.splits:
        return None
    table = open_faces(dataset, "train").attribute_table()
    return (table.mean(0) > 0.5).astype(np.uint8) if len(table) else None
