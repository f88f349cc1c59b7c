"""Published rate-quality curves against measured ones, and against each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from icmbench.analyse.compressai_json import read_curve
from icmbench.config.study import published_path
from icmbench.metrics.bd import Method, bd_rate_pct
from icmbench.metrics.catalogue import PIXEL_METRICS, find_metric

#: One row for each published curve, metric and ``what``:
#:
#: * bd_rate_pct: BD-rate of the measured variant against the published curve, in percent.
#: * max_bpp_difference_pct, max_quality_difference: largest distance of a measured point from the
#:   published one of the same place in the order of rate; quality in the metric's unit. Only where
#:   both have equally many points and quality rises with rate.
#: * published_bd_rate_pct: BD-rate of the published curve against another published one, that of
#:   the study's first comparison anchor that has one, to stand beside the row of ``bd.csv``. Points
#:   at rates that the variants beside them do not reach are left out (10 % are allowed).
#:
#: label and variant: the published curve and the variant it stands beside (empty without one);
#: against: label of the published curve compared with; n_points: of the measured curve (of the
#: published one for published_bd_rate_pct), n_points_against: of the other; overlap and flags: see
#: :mod:`icmbench.metrics.bd`, empty for distances. Rates are means over images of bits per pixel.
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

Floats = npt.NDArray[np.float64]
Row = Mapping[str, Any]
Points = tuple[Floats, Floats]  # rates, rising, and qualities


def obstacle(plan: Row, curves: Iterable[Row], study: str, published: Row) -> str | None:
    """Return why a published curve cannot stand beside measured ones; None where it can.

    Both must be means over the same whole data set at its native size.

    Args:
        plan: content of ``plan.json``.
        curves: rows of ``tables/curves.csv``.
        study: name of the study.
        published: an entry of the study's ``published_curves``.
    """
    images = {row["variant"]: row["n_images"] for row in curves if row["study"] == study}
    found = "no variant beside it was measured"
    for point in plan["points"]:
        variant = point["variant"]
        if (
            point["study"] == study
            and variant in images
            and point["encoding"] is not None
            and published["variant"] in (None, variant)
        ):
            reason = _obstacle(plan["datasets"][point["dataset"]], images[variant], published)
            if reason is None:
                return None
            found = reason
    return found


def _obstacle(dataset: Row, images: int, published: Row) -> str | None:
    if dataset["source"] != "catalogue":
        return "this run measured generated scenes"
    if dataset["name"] != published["dataset"]:
        return f"this run measured {dataset['name']}"
    if dataset["allow_subset"]:
        return "this run accepts a part of the data set"
    if dataset["short_side"] is not None:
        return "this run resized the images"
    # Plans of before these keys have neither.
    if dataset.get("center_crop") is not None:
        return "this run cropped the images"
    if dataset.get("rate_pixels", "native") != "native":
        return "this run divides rates by other pixels than the images' own"
    if dataset["splits"]["test"]["limit"] is not None or images != published["images"]:
        return f"this run measured {images} of its {published['images']} images"
    return None


def published_table(plan: Row, curves: pd.DataFrame, method: Method = "pchip") -> pd.DataFrame:
    """Return ``COLUMNS`` for every published curve that can be compared; no rows where none can.

    Args:
        plan: content of ``plan.json``.
        curves: ``tables/curves.csv``.
        method: see :mod:`icmbench.metrics.bd`.

    Raises:
        UserError: for a malformed file of a published curve.
    """
    rows: list[dict[str, Any]] = []
    measured = [{str(k): v for k, v in row.items()} for row in curves.to_dict("records")]
    for name, study in plan["studies"].items():
        shown = [
            entry
            for entry in study["published_curves"]
            if obstacle(plan, measured, name, entry) is None
        ]
        for metric in PIXEL_METRICS:
            rows += _rows(name, study, shown, metric, curves, method)
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(
    name: str, study: Row, shown: Sequence[Row], metric: str, curves: pd.DataFrame, method: Method
) -> list[dict[str, Any]]:
    """Return the rows of one study and metric."""
    ours = {e["label"]: _measured(curves, name, e["variant"], metric) for e in shown}
    theirs = {e["label"]: _published(e["file"], metric) for e in shown}
    comparable = {label: _within(theirs[label], ours[label]) for label in theirs}
    anchor = _anchor(study, shown)
    rows: list[dict[str, Any]] = []
    for entry in shown:
        label = entry["label"]
        if theirs[label][0].size == 0:
            continue
        words = {"study": name, "label": label, "variant": entry["variant"] or "", "metric": metric}
        if ours[label][0].size:
            pair = {
                "against": label,
                "n_points": ours[label][0].size,
                "n_points_against": theirs[label][0].size,
            }
            rows.append({**words, **_bd("bd_rate_pct", theirs[label], ours[label], method), **pair})
            rows += [{**words, **row, **pair} for row in _distances(ours[label], theirs[label])]
        if anchor not in (None, label):
            test, base = comparable[label], comparable[anchor]
            pair = {"against": anchor, "n_points": test[0].size, "n_points_against": base[0].size}
            rows.append({**words, **_bd("published_bd_rate_pct", base, test, method), **pair})
    return rows


def _measured(curves: pd.DataFrame, study: str, variant: str | None, metric: str) -> Points:
    """Return a measured curve, averaged over seeds."""
    own = curves[
        (curves["study"] == study)
        & (curves["variant"] == variant)
        & (curves["metric"] == metric)
        & np.isfinite(curves["value"])
    ]
    means = own.groupby("rate_index")[["bpp_mean", "value"]].mean().sort_values("bpp_mean")
    return means["bpp_mean"].to_numpy(np.float64), means["value"].to_numpy(np.float64)


def _published(file: str, metric: str) -> Points:
    """Return a published curve; no points where it lacks the metric."""
    results = read_curve(published_path(file)).results
    quality = results.get(find_metric(metric).json_key, np.full(results["bpp"].size, math.nan))
    known = np.isfinite(quality)
    return results["bpp"][known], quality[known]


def _within(published: Points, measured: Points) -> Points:
    """Return the published points at the rates of a measured curve; all where there is none."""
    rates = measured[0]
    if rates.size == 0:
        return published
    inside = (published[0] >= rates[0] / _RATE_MARGIN) & (published[0] <= rates[-1] * _RATE_MARGIN)
    return published[0][inside], published[1][inside]


def _anchor(study: Row, shown: Sequence[Row]) -> Any:
    for comparison in study["comparisons"]:
        for entry in shown:
            if entry["variant"] == comparison["anchor"]:
                return entry["label"]
    return None


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
