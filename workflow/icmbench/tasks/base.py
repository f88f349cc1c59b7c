"""What tasks are given, and what evaluating one yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icmbench.analyse.statistics import Statistics

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Features:
    """What a task reads where no pixels are decoded.

    Attributes:
        values: [B, C, h, w], of images that were padded to a common size.
        sizes: height and width of each image in pixels, padding not included.
        padded: height and width, in pixels, of what ``values`` covers.
    """

    values: Tensor
    sizes: list[tuple[int, int]]
    padded: tuple[int, int]

    def to(self, device: torch.device) -> Features:
        """Return the features on a device."""
        return Features(self.values.to(device), self.sizes, self.padded)


@dataclass(frozen=True)
class Outcome:
    """The result of a task on one split.

    Attributes:
        statistics: per-image sufficient statistics by group, from which analysis computes metrics
            and their bootstrap intervals.
        metrics: the metrics on the whole split.
        predictions: what the task said, for pictures in the report; None where it says nothing.
        device: where it ran.
    """

    statistics: dict[str, Statistics] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    predictions: list[dict[str, Any]] | None = None
    device: str = "cpu"
