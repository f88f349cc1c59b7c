"""The result of evaluating a task, and the task without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from icmbench.data.dataset import Split
from icmbench.evaluate.statistics import AgreementStatistics, Statistics
from icmbench.jobs import EvaluateJob
from icmbench.metrics.catalogue import AGREEMENT


@dataclass(frozen=True)
class ClassResult:
    """A metric of one class on a split; ``count`` is how often the class occurs in the truth.

    Occurrences are objects of detection, images of classification, pixels of segmentation.
    """

    name: str
    metric: str
    value: float
    count: int


@dataclass(frozen=True)
class Outcome:
    """The result of a task on one split.

    Attributes:
        statistics: per-image sufficient statistics by group, from which analysis computes metrics
            and their bootstrap intervals.
        metrics: the metrics on the whole split.
        predictions: the task's output for each image, shown in the report; None where it has none.
        device: where it ran.
        per_class: metrics of single classes, of those that occur.
    """

    statistics: dict[str, Statistics] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    predictions: Sequence[Mapping[str, object]] | None = None
    device: str = "cpu"
    per_class: Sequence[ClassResult] = ()


def agreement(outcome: Outcome) -> Outcome:
    """Return an outcome whose truth were the network's own answers: metrics are renamed."""
    return replace(
        outcome,
        statistics={name: AgreementStatistics(own) for name, own in outcome.statistics.items()},
        metrics={AGREEMENT + name: value for name, value in outcome.metrics.items()},
        per_class=[replace(own, metric=AGREEMENT + own.metric) for own in outcome.per_class],
    )


def judged_by_originals(job: EvaluateJob) -> bool:
    """Return whether the truth is what the network itself answers on the original images."""
    return job.task.parameters.get("truth") == "originals"


class Reconstruction:
    """Human vision: PSNR and MS-SSIM, which are in the records of every coded image."""

    @staticmethod
    def evaluate(job: EvaluateJob, split: Split) -> Outcome:
        """Return nothing beyond the records."""
        return Outcome()
