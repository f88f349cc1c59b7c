"""Quality at one rate, or averaged over a range of rates, of a curve and of its resamples.

Between operating points a curve is a PCHIP interpolant of quality over log10(rate), as in the
BD-accuracy; it is never continued beyond its points.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped]

from icmbench.analyse.bd_table import Curve, Floats
from icmbench.metrics.bd import prepare_curve

# A number and its R resamples.
Resampled = tuple[float, Floats]
# Lowest and highest rate.
Range = tuple[Resampled, Resampled]


def common_rates(curves: list[Curve]) -> Range:
    """Return the lowest and the highest rate that all curves cover, also in each resample."""
    low = max(float(curve.rate.min()) for curve in curves)
    high = min(float(curve.rate.max()) for curve in curves)
    lows = np.max([curve.rate_samples.min(axis=1) for curve in curves], axis=0)
    highs = np.min([curve.rate_samples.max(axis=1) for curve in curves], axis=0)
    return (low, lows), (high, highs)


def quality_at(curve: Curve, rate: Resampled) -> Resampled:
    """Return the quality at a rate (bpp), NaN where the curve does not reach it."""
    value = _at(curve.rate, curve.quality, rate[0])
    rows = zip(curve.rate_samples, curve.quality_samples, rate[1], strict=True)
    return value, np.array([_at(*row) for row in rows])


def mean_quality(curve: Curve, low: Resampled, high: Resampled) -> Resampled:
    """Return the mean quality over log10(rate) between two rates, NaN where that is undefined."""
    value = _mean(curve.rate, curve.quality, low[0], high[0])
    rows = zip(curve.rate_samples, curve.quality_samples, low[1], high[1], strict=True)
    return value, np.array([_mean(*row) for row in rows])


def _at(rate: Floats, quality: Floats, where: float) -> float:
    fit = _fit(rate, quality)
    return float("nan") if fit is None else float(fit(np.log10(where)))


def _mean(rate: Floats, quality: Floats, low: float, high: float) -> float:
    fit = _fit(rate, quality)
    if fit is None or not low < high:
        return float("nan")
    ends = np.log10([low, high])
    return float(fit.integrate(*ends) / (ends[1] - ends[0]))


def _fit(rate: Floats, quality: Floats) -> PchipInterpolator | None:
    if not np.isfinite(quality).all():
        return None
    rates, qualities, _ = prepare_curve(rate, quality, "claimed")
    if rates.size < 2:
        return None
    return PchipInterpolator(np.log10(rates), qualities, extrapolate=False)
