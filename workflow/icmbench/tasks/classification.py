"""Classify every image of a split."""

from __future__ import annotations

from collections import Counter

import numpy as np
from torch import Tensor

from icmbench.data.classes import shown_names
from icmbench.data.dataset import Split
from icmbench.evaluate.predict import Predictor
from icmbench.evaluate.statistics import MeanStatistics
from icmbench.jobs import EvaluateJob
from icmbench.tasks.base import ClassResult, Outcome, agreement, judged_by_originals
from icmbench.utils.logs import progress


def classify(job: EvaluateJob, split: Split) -> Outcome:
    """Return ``top1`` and ``top5`` of a job's classifier on a split, in [0, 1].

    With fewer than five classes, top5 is 1. Of a network judged by its own answers the truth is its
    first class on the original image.
    """
    predictor = Predictor(job, split)
    originals = judged_by_originals(job)
    values: dict[str, list[float]] = {"top1": [], "top5": []}
    labels: list[int] = []
    for index in progress(range(len(split)), f"{job.key}: classify"):
        logits = predictor.predict(predictor.inputs([index]))[0]
        if originals:
            label = int(predictor.predict(predictor.originals([index]))[0].argmax())
        else:
            label = split.label(index)
        labels.append(label)
        for name, hit in hits(logits, label).items():
            values[name].append(hit)
    arrays = {name: np.array(per_image) for name, per_image in values.items()}
    statistics = MeanStatistics([str(identity) for identity in split.ids], dict(arrays))
    outcome = Outcome(
        {"classification": statistics},
        statistics.metrics(),
        per_class=_by_class(labels, arrays["top1"], _names(job, split)),
        device=predictor.compute.name,
    )
    return agreement(outcome) if originals else outcome


def _names(job: EvaluateJob, split: Split) -> list[str]:
    known = job.task.needs.labels
    return list(split.classes) if known is None else shown_names(known)


def _by_class(labels: list[int], top1: np.ndarray, names: list[str]) -> list[ClassResult]:
    own = np.array(labels)
    return [
        ClassResult(names[label], "top1", float(top1[own == label].mean()), count)
        for label, count in sorted(Counter(labels).items())
    ]


def hits(logits: Tensor, label: int) -> dict[str, float]:
    """Return 1 or 0 for top1 and top5 of one image's logits [classes].

    >>> hits(Tensor([0.1, 0.9, 0.3]), 0)
    {'top1': 0.0, 'top5': 1.0}
    """
    best = logits.topk(min(5, len(logits))).indices.tolist()
    return {"top1": float(best[0] == label), "top5": float(label in best)}
