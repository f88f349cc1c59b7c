"""Whether a run was measured by the protocol of published numbers: only then they share a plot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from icmbench.config.published import (
    PointCurve,
    Protocol,
    ProtocolNetwork,
    PublishedPoints,
    published_points,
)
from icmbench.config.study import Study, Variant, Weights, WeightsFile
from icmbench.config.summary import PlanSummary
from icmbench.config.validate import task_network, task_parameters
from icmbench.data.specs import DatasetSpec, FetchedImages, FolderImages
from icmbench.metrics.catalogue import PIXEL_METRICS, find_metric
from icmbench.registry import CODECS, TASKS

#: Largest difference of two uncompressed values, in the tables' unit.
TOLERANCE = 0.003
AP_TOLERANCE = 0.002
_AP_FAMILIES = ("detection", "instance-segmentation")

#: The study in whose plots of image quality published points are drawn.
_QUALITY_STUDY = "classical"


@dataclass(frozen=True)
class Beside:
    """Published points that may be drawn beside a run.

    Attributes:
        curve: the points.
        role: of the data set that was measured by the same protocol.
        references: the measured values on original images by task; none for image quality.
        drop: whether only the loss of accuracy can be compared, because the network differs.
        why: what differs then, as a phrase; else empty.
    """

    curve: PointCurve
    role: str
    references: dict[str, float]
    drop: bool
    why: str = ""

    @property
    def losses(self) -> list[tuple[float, float]]:
        """Rate and uncompressed value minus value, in the tables' unit."""
        points = published_points()
        uncompressed = points.protocols[self.curve.protocol].uncompressed[self.curve.metric]
        return [(rate, uncompressed - value) for rate, value in self.curve.points]


def beside(
    plan: PlanSummary, curves: pd.DataFrame, study: str, published: PublishedPoints | None = None
) -> list[Beside]:
    """Return the published points that may be drawn beside a study's curves.

    The set of images, what is done to them before the codec and the pixels that bits are divided by
    must be the same. With the same network and an uncompressed value that agrees within 0.3 points
    (0.2 of average precision) the values are compared, else their losses. Of a user's images and
    networks a study states the protocol that they are of.

    Args:
        plan: content of ``plan.json``.
        curves: ``tables/curves.csv``.
        study: name of the study.
        published: points and protocols; those of the package by default.
    """
    published = published or published_points()
    found = []
    for curve in published.curves:
        protocol = published.protocols[curve.protocol]
        matches = list(_matches(plan, curves, study, curve, protocol))
        # The comparison of values, if one of the roles allows it.
        found += sorted(matches, key=lambda match: match.drop)[:1]
    return found


def _matches(
    plan: PlanSummary, curves: pd.DataFrame, study: str, curve: PointCurve, protocol: Protocol
) -> Iterator[Beside]:
    stated = plan.studies[study].protocol == curve.protocol
    if curve.metric in PIXEL_METRICS and study != _QUALITY_STUDY and not stated:
        return
    own = curves[(curves["study"] == study) & (curves["metric"] == curve.metric)]
    images = dict(zip(own["variant"], own["n_images"], strict=True))
    variants = plan.studies[study].variants
    for role in dict.fromkeys(variants[name].dataset for name in images if name in variants):
        measured = [n for n in images if n in variants and variants[n].dataset == role]
        if set_obstacle(plan.datasets[role], images[measured[0]], protocol, stated) is not None:
            continue
        if protocol.network is None:
            yield Beside(curve, role, {}, drop=False)
            continue
        references: dict[str, float] = {}
        for name in filter(lambda name: _uncoded(variants[name]), measured):
            value = _value(curves, study, name, curve.metric)
            references.setdefault(variants[name].task, value)
        if references:
            why = network_obstacle(plan, curves, study, role, protocol, stated)
            yield Beside(curve, role, references, drop=why is not None, why=why or "")


def set_obstacle(
    dataset: DatasetSpec, images: int, protocol: Protocol, stated: bool = False
) -> str | None:
    """Return why a data set is not the protocol's, as a sentence's end; None if it is.

    ``stated``: whether the user has stated that a folder holds the images of the protocol.
    """
    fetched = dataset.fetched
    if fetched is None:
        return "this run measured generated images"
    if isinstance(fetched, FolderImages) and not stated:
        return "this run measured images of a folder"
    if isinstance(fetched, FetchedImages) and fetched.name != protocol.dataset:
        return f"this run measured {fetched.name}"
    if isinstance(fetched, FetchedImages) and fetched.allow_subset:
        return "this run allows a subset of the data set"
    if (fetched.short_side, fetched.long_side) != (protocol.short_side, protocol.long_side):
        return "this run resized the images" if fetched.short_side else "this run did not resize"
    if fetched.short_side and fetched.resize_filter != protocol.resize_filter:
        return f"this run resized the images with a {fetched.resize_filter} filter"
    if fetched.center_crop != protocol.center_crop:
        return "this run cropped the images" if fetched.center_crop else "this run did not crop"
    if fetched.rate_pixels != protocol.rate_pixels:
        return f"this run divides bits by the number of {fetched.rate_pixels} pixels"
    if fetched.splits["test"].limit is not None or images != protocol.images:
        return f"this run measured {images} of its {protocol.images} images"
    return None


def network_obstacle(
    plan: PlanSummary,
    curves: pd.DataFrame,
    study: str,
    role: str,
    protocol: Protocol,
    stated: bool = False,
) -> str | None:
    """Return why no task network on original images is the protocol's; None if one is.

    ``stated``: whether the user has stated that networks and weights of their own are.
    """
    network = protocol.network
    if network is None:
        return None
    content = plan.studies[study]
    found = f"this run has no {network.name} on original images"
    for name, variant in content.variants.items():
        if not (_uncoded(variant) and variant.evaluate and variant.dataset == role):
            continue
        if not _is_network(plan, content, variant, network, stated):
            continue
        differences = {
            metric: _value(curves, study, name, metric) - value
            for metric, value in protocol.uncompressed.items()
        }
        far = [m for m, d in differences.items() if not abs(d) <= _tolerance(m) + 1e-9]
        if not far:
            return None
        metric = find_metric(far[0])
        here = protocol.uncompressed[far[0]] + differences[far[0]]
        found = (
            f"{metric.title} on original images is {here * metric.factor:.2f} here and "
            f"{protocol.uncompressed[far[0]] * metric.factor:.2f} there"
        )
    return found


def _is_network(
    plan: PlanSummary, study: Study, variant: Variant, network: ProtocolNetwork, stated: bool
) -> bool:
    # A scale may give a network a name of its own.
    name = task_network(plan.scale, variant.task)
    if stated and TASKS[name].files:  # a user's code or file, of which nothing else is known
        return True
    if name not in network.task:
        return False
    parameters = task_parameters(plan.scale, variant.task).model_dump()
    if any(parameters.get(key) != value for key, value in network.parameters.items()):
        return False
    if network.weights == "any" or (stated and isinstance(variant.task_from, WeightsFile)):
        return True
    return not variant.trains("task") and _published_weights(plan, study, variant)


def _published_weights(plan: PlanSummary, study: Study, variant: Variant) -> bool:
    """Return whether the task has the published weights as they came."""
    source = variant.task_from
    while isinstance(source, Weights):
        study = plan.studies[source.study or study.name]
        variant = study.variants[source.variant]
        if variant.trains("task"):
            return False
        source = variant.task_from
    return source == "pretrained" and plan.scale.pretrained == "published"


def _uncoded(variant: Variant) -> bool:
    return CODECS[variant.codec].kind == "none"


def _tolerance(metric: str) -> float:
    return AP_TOLERANCE if find_metric(metric).family in _AP_FAMILIES else TOLERANCE


def _value(curves: pd.DataFrame, study: str, variant: str, metric: str) -> float:
    """Return a variant's value on original images, the mean over seeds; NaN if not measured."""
    own = curves[
        (curves["study"] == study) & (curves["variant"] == variant) & (curves["metric"] == metric)
    ]
    return float(np.mean(own["value"])) if len(own) else float("nan")
