"""Kinds of tasks: what may stand in one plot because it is measured in the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from icmbench.registry import PIXEL_METRICS


@dataclass(frozen=True)
class Family:
    """One kind of task.

    Attributes:
        name: as in the name of its page, e.g. ``instance-segmentation``.
        title: for people.
        metrics: that its tasks are judged by, the leading one first.
    """

    name: str
    title: str
    metrics: tuple[str, ...]

    def joined(self, other: Family) -> Family:
        """Return this kind with the metrics of ``other`` as well."""
        return replace(self, metrics=tuple(dict.fromkeys([*self.metrics, *other.metrics])))


FAMILIES = (
    Family("detection", "Object detection", ("box_map", "box_map50", "box_map75")),
    Family(
        "instance-segmentation", "Instance segmentation", ("mask_map", "mask_map50", "mask_map75")
    ),
    Family("classification", "Classification", ("top1", "top5")),
    Family("face-attributes", "Face attributes", ("attribute_accuracy", "majority_accuracy")),
    Family("face-parsing", "Face parsing", ("miou", "fwiou", "pixel_accuracy")),
)


def families_of(task: str, metrics: Sequence[str]) -> list[Family]:
    """Return the kinds that a task belongs to, by its metrics.

    Those of image quality make none. Metrics that no kind here has make one of their own, named
    after the task, so that a user's task has a page without a line of code.
    """
    found = [
        replace(family, metrics=own)
        for family in FAMILIES
        if (own := tuple(metric for metric in family.metrics if metric in metrics))
    ]
    listed = {metric for family in FAMILIES for metric in family.metrics} | set(PIXEL_METRICS)
    rest = tuple(metric for metric in metrics if metric not in listed)
    if rest:
        found.append(Family(task, task.replace("-", " ").capitalize(), rest))
    return found
