"""BD metrics of each variant against its anchor, with bootstrap intervals: ``bd.csv``.

A curve has one point for each rate index; the seeds of a rate index are averaged, in rate and in
quality. A resample draws images with replacement (the same images for both curves) and, if a rate
index has several seeds, seeds with replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from icmbench.analyse.bootstrap import Floats, seed_interval
from icmbench.analyse.curves import Curve, EvaluatedPoint, Sides, by_variant, curve_of, seed_noise
from icmbench.errors import UserError
from icmbench.metrics.bd import BDResult, Method, bd_accuracy, bd_rate_pct
from icmbench.metrics.bd_resampled import bd_accuracy_resampled, bd_rate_pct_resampled

Quantity = Literal["bd_rate_pct", "bd_accuracy_points"]

#: bd_rate_pct: percent of the anchor's rate at equal quality, negative is better; low and high are
#: its 95 % interval. bd_accuracy_points: difference of quality at equal rate, positive is better:
#: percentage points (100 times a metric in [0, 1]), but dB for PSNR; accuracy_low and
#: accuracy_high are its interval. overlap: share of the quality range that both curves cover;
#: accuracy_overlap: of the log-rate range. flags: see :mod:`icmbench.metrics.bd`, joined by ``;``,
#: those of the BD-accuracy with the prefix ``accuracy:``. n_points: rate points of the variant;
#: n_points_used (accuracy_n_points_used): those left of the curve with fewer of them;
#: n_resamples_used (accuracy_n_resamples_used): resamples out of n_resamples whose BD is defined.
COLUMNS = [
    "study",
    "variant",
    "anchor",
    "metric",
    "bd_rate_pct",
    "bd_accuracy_points",
    "low",
    "high",
    "accuracy_low",
    "accuracy_high",
    "method",
    "overlap",
    "accuracy_overlap",
    "n_points_used",
    "accuracy_n_points_used",
    "flags",
    "n_points",
    "n_points_anchor",
    "n_seeds",
    "n_resamples",
    "n_resamples_used",
    "accuracy_n_resamples_used",
]

# Prefix of a quantity's columns and flags.
_PREFIX: dict[Quantity, str] = {"bd_rate_pct": "", "bd_accuracy_points": "accuracy"}


class BdComparison(NamedTuple):
    """One variant against its anchor.

    Attributes:
        study: of both.
        variant: whose gain is measured.
        anchor: the reference variant.
        metrics: to compare by, of those that both have; None takes all.
    """

    study: str
    variant: str
    anchor: str
    metrics: tuple[str, ...] | None = None


def measured_bd(
    quantity: Quantity, anchor: Curve, test: Curve, method: Method
) -> tuple[BDResult, Floats]:
    """Return a BD metric and its resamples, (R,); all are NaN if the metric is."""
    sign = anchor.sign  # for BD metrics, larger qualities are better
    curves = (anchor.rate, sign * anchor.quality, test.rate, sign * test.quality)
    samples = (
        anchor.rate_samples,
        sign * anchor.quality_samples,
        test.rate_samples,
        sign * test.quality_samples,
    )
    if quantity == "bd_rate_pct":
        result, resampled = bd_rate_pct(*curves, method=method), bd_rate_pct_resampled
    else:
        result, resampled = bd_accuracy(*curves, method=method), bd_accuracy_resampled
    if np.isnan(result.value):
        # Resamples of an undefined result have no meaning.
        return result, np.full(anchor.rate_samples.shape[0], np.nan)
    return result, resampled(*samples, method=method)


def left_out_flags(anchor: Curve, test: Curve) -> list[str]:
    """Return the flag of points that are on neither curve because they are not finite, if any."""
    count = anchor.left_out + test.left_out
    return [f"non-finite:{count}"] if count else []


def bd_results(
    points: Sequence[EvaluatedPoint],
    comparisons: Sequence[BdComparison],
    *,
    method: Method = "pchip",
    seed: int = 0,
) -> pd.DataFrame:
    """Return one row for each comparison and metric, with ``COLUMNS``, sorted.

    Args:
        points: all evaluated operating points.
        comparisons: the pairs of variants, and the metrics to compare them by.
        method: see :mod:`icmbench.metrics.bd`.
        seed: of the draws of training seeds.

    Raises:
        UserError: for curves over different images.
    """
    variants = by_variant(points)
    rows = []
    for pair in (BdComparison(*entry) for entry in comparisons):
        sides = {name: variants[pair.study, name] for name in (pair.anchor, pair.variant)}
        both = [point for points in sides.values() for point in points]
        _require_same_images(pair.study, both)
        common = set.intersection(*(set(evaluation.values) for _, evaluation in both))
        wanted = common if pair.metrics is None else common & set(pair.metrics)
        rows += [_row(pair, metric, sides, method, seed) for metric in sorted(wanted)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    order = ["study", "variant", "anchor", "metric"]
    return table.sort_values(order, kind="stable", ignore_index=True)


def _require_same_images(study: str, points: Sequence[EvaluatedPoint]) -> None:
    first, expected = points[0][0], points[0][1].image_ids
    for point, evaluation in points:
        if evaluation.image_ids != expected:
            raise UserError(
                f"comparison in {study}: {point.variant!r} (rate {point.rate_index}, "
                f"{len(evaluation.image_ids)} images) and {first.variant!r} ({len(expected)}) were "
                "evaluated on different images; evaluate both on the same ones"
            )


def _row(
    pair: BdComparison, metric: str, sides: Sides, method: Method, seed: int
) -> dict[str, object]:
    """Return the row of one comparison and metric."""

    def curves(of: Sides) -> tuple[Curve, Curve]:
        anchor, test = (
            curve_of(f"{pair.study}/{name}", of[name], metric, seed)
            for name in (pair.anchor, pair.variant)
        )
        return anchor, test

    anchor, test = curves(sides)
    images = len(sides[pair.anchor][0][1].image_ids)
    row: dict[str, object] = {}
    flags: list[str] = []
    for quantity, name in _PREFIX.items():
        result, samples = measured_bd(quantity, anchor, test, method)

        def samples_of(alone: Sides, quantity: Quantity = quantity) -> Floats:
            return measured_bd(quantity, *curves(alone), method)[1]

        noise = seed_noise(sides, samples_of)
        percent = quantity == "bd_rate_pct"
        low, high = seed_interval(result.value, samples, images, noise, percent=percent)
        prefix = f"{name}_" if name else ""
        flags += [f"{name}:{flag}" if name else flag for flag in result.flags]
        row |= {
            quantity: result.value,
            f"{prefix}low": low,
            f"{prefix}high": high,
            f"{prefix}overlap": result.overlap,
            f"{prefix}n_points_used": result.points,
            f"{prefix}n_resamples_used": int(np.isfinite(samples).sum()),
        }
    return row | {
        "study": pair.study,
        "variant": pair.variant,
        "anchor": pair.anchor,
        "metric": metric,
        "method": method,
        "flags": ";".join([*flags, *left_out_flags(anchor, test)]),
        "n_points": test.rate.size,
        "n_points_anchor": anchor.rate.size,
        "n_seeds": test.seeds,
        "n_resamples": anchor.rate_samples.shape[0],
    }
