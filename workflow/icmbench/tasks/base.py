"""The result of evaluating a task, and the task without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from icmbench.data.dataset import Split
from icmbench.evaluate.statistics import Statistics
from icmbench.jobs import EvaluateJob


@dataclass(frozen=True)
class Outcome:
    """The result of a task on one split.

    Attributes:
        statistics: per-image sufficient statistics by group, from which analysis computes metrics
            and their bootstrap intervals.
        metrics: the metrics on the whole split.
        predictions: the task's output for each image, shown in the report; None where it has none.
        device: where it ran.
    """

    statistics: dict[str, Statistics] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    predictions: Sequence[Mapping[str, object]] | None = None
    device: str = "cpu"


class Reconstruction:
    """Human vision: PSNR and MS-SSIM, which are in the records of every coded image."""

    @staticmethod
    def evaluate(job: EvaluateJob, split: Split) -> Outcome:
        """Return nothing beyond the records."""
        return Outcome()
