"""What tasks are given, and what evaluating one yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from icmbench.evaluate.statistics import Statistics


@dataclass(frozen=True)
class Outcome:
    """The result of a task on one split.

    Attributes:
        statistics: per-image sufficient statistics by group, from which analysis computes metrics
            and their bootstrap intervals.
        metrics: the metrics on the whole split.
        predictions: what the task said, for images in the report; None where it says nothing.
        device: where it ran.
    """

    statistics: dict[str, Statistics] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    predictions: list[dict[str, Any]] | None = None
    device: str = "cpu"
