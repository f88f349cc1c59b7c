"""Published curves against measured ones, and against each other: ``published.csv``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from icmbench.analyse.bootstrap import Floats
from icmbench.analyse.compressai_json import read_curve_file
from icmbench.analyse.protocols import network_obstacle, set_obstacle
from icmbench.config.published import Protocol, published_points
from icmbench.config.study import PublishedCurveFile, Study, published_path
from icmbench.config.summary import PlanSummary
from icmbench.metrics.bd import Method, bd_rate_pct
from icmbench.metrics.catalogue import PIXEL_METRICS, find_metric

#: One row for each published curve, metric and ``what``:
#:
#: * bd_rate_pct: BD-rate of the measured variant against the published curve, in percent.
#: * max_bpp_difference_pct, max_quality_difference: largest distance of a measured point from the
#:   published point at the same place in the order of rate; quality in the metric's unit. Only if
#:   both curves have equally many points and quality rises with rate.
#: * published_bd_rate_pct: BD-rate of the published curve against the published curve of the
#:   study's first comparison anchor that has one, to compare with the row of ``bd.csv``. Points
#:   outside the rates that the measured variants reach (with a margin of 10 %) are left out.
#:
#: label and variant: the published curve and the measured variant that it belongs to (empty without
#: one); against: label of the published curve compared with; n_points: of the measured curve (of
#: the published one for published_bd_rate_pct), n_points_against: of the other; overlap and flags:
#: see :mod:`icmbench.metrics.bd`, empty for distances. Rates are means over images of bits per
#: pixel.
COLUMNS = [
    "study",
    "label",
    "variant",
    "metric",
    "what",
    "against",
    "value",
    "n_points",
    "n_points_against",
    "overlap",
    "flags",
]

_RATE_MARGIN = 1.1

Points = tuple[Floats, Floats]  # rates, rising, and qualities


def obstacle(
    plan: PlanSummary, curves: pd.DataFrame, study: str, published: PublishedCurveFile
) -> str | None:
    """Return why a published curve cannot be compared with measured ones; None if it can.

    Both must be measured by one protocol: see :mod:`icmbench.analyse.protocols`. A curve that names
    none is of the complete data set at its native size.

    Args:
        plan: content of ``plan.json``.
        curves: ``tables/curves.csv``.
        study: name of the study.
        published: one of the study's published curves.
    """
    if published.protocol is not None:
        protocol = published_points().protocols[published.protocol]
    else:
        protocol = Protocol(
            dataset=published.dataset, images=published.images, rate_pixels="native"
        )
    return protocol_obstacle(plan, curves, study, protocol, published.variant)


def protocol_obstacle(
    plan: PlanSummary,
    curves: pd.DataFrame,
    study: str,
    protocol: Protocol,
    variant: str | None = None,
) -> str | None:
    """Return why no coded variant was measured by a protocol; None if one was.

    Args:
        plan, curves, study: as of :func:`obstacle`.
        protocol: of published numbers.
        variant: the only one to look at; None for all of the study.
    """
    own = curves[curves["study"] == study]
    images = dict(zip(own["variant"], own["n_images"], strict=True))
    found = "its variant was not measured"
    for point in plan.points:
        if (
            point.study == study
            and point.variant in images
            and point.encoding is not None
            and variant in (None, point.variant)
        ):
            dataset = plan.datasets[point.dataset]
            reason = set_obstacle(dataset, images[point.variant], protocol)
            reason = reason or network_obstacle(plan, curves, study, point.dataset, protocol)
            if reason is None:
                return None
            found = reason
    return found


def published_results(
    plan: PlanSummary, curves: pd.DataFrame, method: Method = "pchip"
) -> pd.DataFrame:
    """Return ``COLUMNS`` for every published curve that can be compared; no rows if none can.

    Args:
        plan: content of ``plan.json``.
        curves: ``tables/curves.csv``.
        method: see :mod:`icmbench.metrics.bd`.

    Raises:
        UserError: for a malformed file of a published curve.
    """
    rows: list[dict[str, Any]] = []
    for name, study in plan.studies.items():
        shown = [
            entry for entry in study.published_curves if obstacle(plan, curves, name, entry) is None
        ]
        for metric in PIXEL_METRICS:
            found = _rows(study, shown, metric, curves[curves["study"] == name], method)
            rows += [{"study": name, "metric": metric} | row for row in found]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(
    study: Study,
    shown: Sequence[PublishedCurveFile],
    metric: str,
    curves: pd.DataFrame,
    method: Method,
) -> list[dict[str, Any]]:
    """Return the rows of one study and metric."""
    ours = {entry.label: _measured(curves, entry.variant, metric) for entry in shown}
    theirs = {entry.label: _published(entry.file, metric) for entry in shown}
    comparable = {label: _within(theirs[label], ours[label]) for label in theirs}
    labels = {entry.variant: entry.label for entry in reversed(shown)}
    anchors = [labels[c.anchor] for c in study.comparisons if c.anchor in labels]
    rows: list[dict[str, Any]] = []
    for entry in shown:
        label = entry.label
        fixed = {"label": label, "variant": entry.variant or ""}
        if theirs[label][0].size == 0:
            continue
        if ours[label][0].size:
            bd = _bd("bd_rate_pct", theirs[label], ours[label], method)
            found = [bd, *_distances(ours[label], theirs[label])]
            sizes = _sizes(ours[label], theirs[label])
            rows += [fixed | row | sizes | {"against": label} for row in found]
        if anchors and anchors[0] != label:
            test, base = comparable[label], comparable[anchors[0]]
            bd = _bd("published_bd_rate_pct", base, test, method)
            rows.append(fixed | bd | _sizes(test, base) | {"against": anchors[0]})
    return rows


def _measured(curves: pd.DataFrame, variant: str | None, metric: str) -> Points:
    """Return a measured curve of a study, averaged over seeds."""
    own = curves[
        (curves["variant"] == variant) & (curves["metric"] == metric) & np.isfinite(curves["value"])
    ]
    means = own.groupby("rate_index")[["bpp_mean", "value"]].mean().sort_values("bpp_mean")
    return means["bpp_mean"].to_numpy(np.float64), means["value"].to_numpy(np.float64)


def _published(file: str, metric: str) -> Points:
    """Return a published curve; no points if it lacks the metric."""
    results = read_curve_file(published_path(file)).results
    quality = results.get(find_metric(metric).json_key, np.full(results["bpp"].size, math.nan))
    known = np.isfinite(quality)
    return results["bpp"][known], quality[known]


def _within(published: Points, measured: Points) -> Points:
    """Return the published points at the rates of a measured curve; all if there is none."""
    rates = measured[0]
    if rates.size == 0:
        return published
    inside = (published[0] >= rates[0] / _RATE_MARGIN) & (published[0] <= rates[-1] * _RATE_MARGIN)
    return published[0][inside], published[1][inside]


def _sizes(test: Points, against: Points) -> dict[str, int]:
    return {"n_points": test[0].size, "n_points_against": against[0].size}


def _bd(what: str, anchor: Points, test: Points, method: Method) -> dict[str, Any]:
    result = bd_rate_pct(*anchor, *test, method=method)
    return {
        "what": what,
        "value": result.value,
        "overlap": result.overlap,
        "flags": ";".join(result.flags),
    }


def _distances(ours: Points, theirs: Points) -> list[dict[str, Any]]:
    if ours[0].size != theirs[0].size or any((np.diff(p[1]) <= 0).any() for p in (ours, theirs)):
        return []
    rate = 100 * np.abs(ours[0] / theirs[0] - 1).max()
    quality = np.abs(ours[1] - theirs[1]).max()
    found = (("max_bpp_difference_pct", rate), ("max_quality_difference", quality))
    return [
        {"what": what, "value": float(value), "overlap": math.nan, "flags": ""}
        for what, value in found
    ]
