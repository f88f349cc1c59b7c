"""The table of BD results: each variant against its anchor, with bootstrap intervals.

A curve has one point for each rate index; the runs (seeds) of a rate index are averaged, in rate
and in quality. A resample draws images with replacement (the same images for both curves) and,
where a rate index has several seeds, seeds with replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from icmbench.analyse.bootstrap import mean_over_seeds, seed_interval
from icmbench.analyse.points import Evaluation, PointFiles
from icmbench.analyse.seeds import Sides, by_rate_index, seed_noise
from icmbench.errors import UserError
from icmbench.metrics.bd import BDResult, Method, bd_accuracy, bd_rate_pct
from icmbench.metrics.bd_resampled import bd_accuracy_resampled, bd_rate_pct_resampled
from icmbench.metrics.catalogue import find_metric

Floats = npt.NDArray[np.float64]
Quantity = Literal["bd_rate_pct", "bd_accuracy_points"]

#: bd_rate_pct: percent of the anchor's rate at equal quality, negative is better; low and high are
#: its 95 % interval. bd_accuracy_points: difference of quality at equal rate, positive is better:
#: percentage points (100 times a metric in [0, 1]), but dB for PSNR; accuracy_low and
#: accuracy_high are its interval. overlap: share of the quality range that both curves cover;
#: accuracy_overlap: of the log-rate range. flags: see :mod:`icmbench.metrics.bd`, joined by ``;``,
#: those of the BD-accuracy with the prefix ``accuracy:``. n_points: rate points of the variant;
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
    "flags",
    "n_points",
    "n_points_anchor",
    "n_seeds",
    "n_resamples",
    "n_resamples_used",
    "accuracy_n_resamples_used",
]


class Versus(NamedTuple):
    """One variant against its anchor.

    Attributes:
        study: of both.
        variant: whose gain is measured.
        anchor: the variant that it is compared with.
        metrics: to compare by, of those that both have; None takes all.
    """

    study: str
    variant: str
    anchor: str
    metrics: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Curve:
    """One variant's rate against one metric, averaged over seeds.

    N rate points, R resamples. Points whose metric is not finite (PSNR of a lossless image) cannot
    be on a BD curve and are left out.
    """

    rate: Floats  # (N,) bpp
    quality: Floats  # (N,) percentage points, dB or the metric's own unit
    rate_samples: Floats  # (R, N)
    quality_samples: Floats  # (R, N)
    seeds: int
    left_out: int
    sign: float  # -1.0 where a lower quality is better, else 1.0


def curve_of(
    label: str, points: Sequence[tuple[PointFiles, Evaluation]], metric: str, seed: int
) -> Curve:
    """Return the curve of one variant's points; ``label`` keys the draws of seeds."""
    by_rate = by_rate_index(points)
    seeds = max(len(runs) for runs in by_rate.values())
    resamples = points[0][1].rate_samples.size
    described = find_metric(metric)
    scale = described.difference_factor
    columns: list[tuple[float, float, Floats, Floats]] = []
    for own in by_rate.values():
        runs = [run for _, run in own]
        quality = float(np.mean([run.values[metric] for run in runs])) * scale
        if not np.isfinite(quality):
            continue
        qualities = [run.value_samples[metric] * scale for run in runs]
        columns.append(
            (
                float(np.mean([run.rates["bpp"] for run in runs])),
                quality,
                mean_over_seeds([run.rate_samples for run in runs], label, seed),
                mean_over_seeds(qualities, label, seed),
            )
        )
    return Curve(
        rate=np.array([column[0] for column in columns]),
        quality=np.array([column[1] for column in columns]),
        rate_samples=np.array([column[2] for column in columns]).reshape(-1, resamples).T,
        quality_samples=np.array([column[3] for column in columns]).reshape(-1, resamples).T,
        seeds=seeds,
        left_out=len(by_rate) - len(columns),
        sign=described.sign,
    )


def measured_bd(
    quantity: Quantity, anchor: Curve, test: Curve, method: Method
) -> tuple[BDResult, Floats]:
    """Return a BD metric and its resamples, (R,): all NaN where the metric is."""
    sign = anchor.sign  # a BD metric takes larger qualities as better
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
        # Where the result is undefined its resamples say nothing.
        return result, np.full(anchor.rate_samples.shape[0], np.nan)
    return result, resampled(*samples, method=method)


def left_out_flags(anchor: Curve, test: Curve) -> list[str]:
    """Return the flag of points that are on neither curve because they are not finite, if any."""
    count = anchor.left_out + test.left_out
    return [f"non-finite:{count}"] if count else []


def bd_table(
    points: Sequence[tuple[PointFiles, Evaluation]],
    comparisons: Sequence[Versus],
    *,
    method: Method = "pchip",
    seed: int = 0,
) -> pd.DataFrame:
    """Return one row for each comparison and metric, with ``COLUMNS``, sorted.

    Args:
        points: all evaluated operating points.
        comparisons: what is compared with what, and by which metrics.
        method: see :mod:`icmbench.metrics.bd`.
        seed: of the draws of training seeds.

    Raises:
        UserError: for a variant without points, or curves over different images.
    """
    by_variant: dict[tuple[str, str], list[tuple[PointFiles, Evaluation]]] = {}
    for point, evaluation in points:
        by_variant.setdefault((point.study, point.variant), []).append((point, evaluation))
    rows = []
    for study, variant, anchor, metrics in (Versus(*entry) for entry in comparisons):
        sides = {name: _points_of(by_variant, study, name) for name in (anchor, variant)}
        both = [point for points in sides.values() for point in points]
        _require_same_images(study, both)
        common = set.intersection(*(set(e.values) for _, e in both))
        for metric in sorted(common if metrics is None else common & set(metrics)):
            compared = _Compared(study, variant, anchor, metric, method, seed)
            row = {"study": study, "variant": variant, "anchor": anchor, "metric": metric}
            rows.append(row | compared.numbers(sides))
    table = pd.DataFrame(rows, columns=COLUMNS)
    order = ["study", "variant", "anchor", "metric"]
    return table.sort_values(order, kind="stable", ignore_index=True)


def _points_of(
    by_variant: dict[tuple[str, str], list[tuple[PointFiles, Evaluation]]], study: str, variant: str
) -> list[tuple[PointFiles, Evaluation]]:
    if (study, variant) not in by_variant:
        known = ", ".join(sorted(name for of, name in by_variant if of == study)) or "none"
        raise UserError(f"comparison: {study} has no points of {variant!r}; variants: {known}")
    return by_variant[study, variant]


def _require_same_images(study: str, points: Sequence[tuple[PointFiles, Evaluation]]) -> None:
    first, expected = points[0][0], points[0][1].image_ids
    for point, evaluation in points:
        if evaluation.image_ids != expected:
            raise UserError(
                f"comparison in {study}: {point.variant!r} (rate {point.rate_index}, "
                f"{len(evaluation.image_ids)} images) and {first.variant!r} ({len(expected)}) were "
                "evaluated on different images; evaluate both on the same ones"
            )


@dataclass(frozen=True)
class _Compared:
    """One variant against its anchor in one metric."""

    study: str
    variant: str
    anchor: str
    metric: str
    method: Method
    seed: int

    def curves(self, sides: Sides) -> tuple[Curve, Curve]:
        """Return the curves of anchor and variant."""
        anchor, test = (
            curve_of(f"{self.study}/{name}", sides[name], self.metric, self.seed)
            for name in (self.anchor, self.variant)
        )
        return anchor, test

    def measured(self, sides: Sides, quantity: Quantity) -> tuple[BDResult, Floats]:
        """Return a BD metric and its resamples."""
        return measured_bd(quantity, *self.curves(sides), self.method)

    def bounds(
        self, sides: Sides, quantity: Quantity, value: float, samples: Floats
    ) -> tuple[float, float]:
        """Return the interval of a BD metric."""
        images = len(sides[self.anchor][0][1].image_ids)
        noise = seed_noise(sides, lambda alone: self.measured(alone, quantity)[1])
        percent = quantity == "bd_rate_pct"
        return seed_interval(value, samples, images, noise, percent=percent)

    def numbers(self, sides: Sides) -> dict[str, object]:
        """Return what the table says of the pair."""
        anchor, test = self.curves(sides)
        rate, rates = measured_bd("bd_rate_pct", anchor, test, self.method)
        accuracy, accuracies = measured_bd("bd_accuracy_points", anchor, test, self.method)
        low, high = self.bounds(sides, "bd_rate_pct", rate.value, rates)
        accuracy_low, accuracy_high = self.bounds(
            sides, "bd_accuracy_points", accuracy.value, accuracies
        )
        flags = [*rate.flags, *(f"accuracy:{flag}" for flag in accuracy.flags)]
        return {
            "bd_rate_pct": rate.value,
            "bd_accuracy_points": accuracy.value,
            "low": low,
            "high": high,
            "accuracy_low": accuracy_low,
            "accuracy_high": accuracy_high,
            "method": self.method,
            "overlap": rate.overlap,
            "accuracy_overlap": accuracy.overlap,
            "flags": ";".join([*flags, *left_out_flags(anchor, test)]),
            "n_points": test.rate.size,
            "n_points_anchor": anchor.rate.size,
            "n_seeds": test.seeds,
            "n_resamples": rates.size,
            "n_resamples_used": int(np.isfinite(rates).sum()),
            "accuracy_n_resamples_used": int(np.isfinite(accuracies).sum()),
        }
