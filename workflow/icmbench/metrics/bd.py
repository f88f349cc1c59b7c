"""Bjøntegaard deltas (BD-rate, BD-accuracy) with a documented policy for irregular curves.

The numbers come from the ``bjontegaard`` package (methods: PCHIP, Akima, and ``cubic``, the single
third-order polynomial of Bjøntegaard, VCEG-M33, 2001). BD-rate is the mean difference of
log10(rate) at equal quality, as a percentage of the anchor's rate; BD-accuracy is the mean
difference of quality at equal log10(rate). Both are means over the interval that the two curves
share.

Policy
------
* Points are sorted by rate. A rate that is zero, negative, NaN or infinite, or a quality that is
  not finite, raises a :class:`UserError` that names the curve.
* Points of exactly equal rate are replaced by one point with their mean quality:
  flag ``duplicate-rates:<points removed>``.
* BD-rate needs quality to increase with rate. Each curve is reduced to its upper envelope: a point
  whose quality does not exceed that of every point of lower rate is dropped, because the other
  point is better in both; flag ``non-monotone:<points dropped>``. BD-accuracy is defined on any
  curve and keeps all points.
* Fewer than 4 points left in a curve: flag ``few-points``. Fewer than the method needs
  (2 for PCHIP and Akima, which then are a straight line; 4 for cubic): NaN, ``too-few-points``.
* No common interval: NaN, ``no-overlap``. Overlap below 0.5: ``low-overlap``.
* A delta with ``few-points`` or ``low-overlap`` is a number, but decides nothing
  (:func:`weakness`): it describes a small part of the curves, and papers print figures such
  as -88.573 % for curves that share no accuracy at all.
* A cubic that, within the common interval, leaves the range of its own points by more than 10 % of
  that range is rejected: NaN, ``cubic-unstable`` (a saturated quality can otherwise give results
  such as +100421 %). A cubic that is only not monotone there is kept: ``cubic-non-monotone``
  (BD-rate only).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from icmbench.errors import UserError, unknown

Method = Literal["pchip", "akima", "cubic"]
METHODS: tuple[str, ...] = get_args(Method)

FEW_POINTS = 4
LOW_OVERLAP = 0.5
CUBIC_OVERSHOOT = 0.1

#: Flags of a delta that is computed but decides nothing.
WEAK_FLAGS = frozenset({"few-points", "low-overlap"})

Floats = npt.NDArray[np.float64]
ArrayLike = Sequence[float] | npt.NDArray[np.floating]


@dataclass(frozen=True)
class BDResult:
    """A Bjøntegaard delta, with the information needed to interpret it.

    Attributes:
        value: percent of rate (BD-rate) or units of the quality (BD-accuracy); NaN if undefined.
        method: interpolation, one of ``METHODS``.
        overlap: length of the common interval divided by the length of the union of both, in
            [0, 1]; along quality for BD-rate, along log10(rate) for BD-accuracy.
        points: number of points that are left of the curve with fewer of them.
        flags: see the policy of this module; empty for a regular pair of curves.
    """

    value: float
    method: str
    overlap: float
    points: int
    flags: tuple[str, ...] = ()


def bd_rate_pct(
    anchor_rate: ArrayLike,
    anchor_quality: ArrayLike,
    test_rate: ArrayLike,
    test_quality: ArrayLike,
    method: Method = "pchip",
) -> BDResult:
    """Return the BD-rate of the test curve against the anchor, in percent (negative: fewer bits).

    Args:
        anchor_rate: rates of the anchor, > 0, any unit (bpp, kbit/s), any order.
        anchor_quality: quality of the same points, larger is better.
        test_rate: rates of the tested curve, in the anchor's unit.
        test_quality: quality of the same points.
        method: ``"pchip"``, ``"akima"`` or ``"cubic"``.

    Raises:
        UserError: for rates that are not positive and finite, qualities that are not finite,
            lists of different length, or an unknown method.

    Half the rate at equal quality:

    >>> anchor = ([0.2, 0.4, 0.8, 1.6], [30.0, 32.0, 34.0, 36.0])
    >>> test = ([0.1, 0.2, 0.4, 0.8], [30.0, 32.0, 34.0, 36.0])
    >>> result = bd_rate_pct(*anchor, *test)
    >>> round(result.value, 3), result.overlap, result.flags
    (-50.0, 1.0, ())

    Curves without a common quality:

    >>> bd_rate_pct(*anchor, [0.1, 0.2, 0.4, 0.8], [20.0, 22.0, 24.0, 26.0]).flags
    ('no-overlap',)
    """
    _check_method(method)
    anchor_rates, anchor_qualities, merged_anchor = prepare_curve(
        anchor_rate, anchor_quality, "anchor"
    )
    test_rates, test_qualities, merged_test = prepare_curve(test_rate, test_quality, "test")
    keep_anchor = on_envelope(anchor_qualities)
    keep_test = on_envelope(test_qualities)
    dropped = int((~keep_anchor).sum() + (~keep_test).sum())
    flags = _merged_flag(merged_anchor + merged_test)
    if dropped:
        flags.append(f"non-monotone:{dropped}")
    result = _delta(
        anchor_qualities[keep_anchor],
        np.log10(anchor_rates[keep_anchor]),
        test_qualities[keep_test],
        np.log10(test_rates[keep_test]),
        method,
        flags,
        monotone=True,
    )
    return replace(result, value=to_percent(result.value))


def bd_accuracy(
    anchor_rate: ArrayLike,
    anchor_quality: ArrayLike,
    test_rate: ArrayLike,
    test_quality: ArrayLike,
    method: Method = "pchip",
) -> BDResult:
    """Return the BD-accuracy (BD-PSNR if quality is PSNR), in units of quality (positive: better).

    Arguments and errors are those of :func:`bd_rate_pct`.

    >>> rates = [0.1, 0.2, 0.4, 0.8]
    >>> result = bd_accuracy(rates, [30.0, 32.0, 34.0, 36.0], rates, [30.5, 32.5, 34.5, 36.5])
    >>> round(result.value, 3)
    0.5
    """
    _check_method(method)
    anchor_rates, anchor_qualities, merged_anchor = prepare_curve(
        anchor_rate, anchor_quality, "anchor"
    )
    test_rates, test_qualities, merged_test = prepare_curve(test_rate, test_quality, "test")
    return _delta(
        np.log10(anchor_rates),
        anchor_qualities,
        np.log10(test_rates),
        test_qualities,
        method,
        _merged_flag(merged_anchor + merged_test),
        monotone=False,
    )


def weak_flags(overlap: float, points: int) -> tuple[str, ...]:
    """Return those of ``WEAK_FLAGS`` that hold; without any overlap the flag is another one."""
    found = {"few-points": points < FEW_POINTS, "low-overlap": 0 < overlap < LOW_OVERLAP}
    return tuple(flag for flag, holds in found.items() if holds)


def weakness(overlap: float, points: int, axis: str) -> str:
    """Return why a delta of two curves decides nothing, in words; empty if it may.

    Args:
        overlap: see :class:`BDResult`.
        points: see :class:`BDResult`.
        axis: name of what the overlap is a share of.

    >>> weakness(0.2, 4, "qualities"), weakness(0.5, 4, "qualities")
    ('the curves share 20 % of their qualities, less than 50 %', '')
    """
    if overlap < LOW_OVERLAP:
        share = f"{100 * overlap:.3g} % of their {axis}"
        return f"the curves share {share}, less than {100 * LOW_OVERLAP:g} %"
    if points < FEW_POINTS:
        return f"a curve has {points} usable points, fewer than {FEW_POINTS}"
    return ""


def prepare_curve(rate: ArrayLike, quality: ArrayLike, name: str) -> tuple[Floats, Floats, int]:
    """Return rates (strictly increasing), qualities, and the number of points merged.

    Raises:
        UserError: naming the curve, for values that a curve cannot have.
    """
    rates = np.asarray(rate, dtype=np.float64)
    qualities = np.asarray(quality, dtype=np.float64)
    if rates.ndim != 1 or rates.shape != qualities.shape:
        raise UserError(
            f"{name} curve: {rates.size} rates and {qualities.size} qualities; "
            "give one quality for each rate"
        )
    bad_rates = ~(np.isfinite(rates) & (rates > 0))
    if bad_rates.any():
        raise UserError(
            f"{name} curve: rate {rates[bad_rates][0]:g} is not allowed; "
            "rates must be finite and greater than 0"
        )
    bad_qualities = ~np.isfinite(qualities)
    if bad_qualities.any():
        raise UserError(
            f"{name} curve: quality {qualities[bad_qualities][0]:g} at rate "
            f"{rates[bad_qualities][0]:g} is not allowed; leave such points out"
        )
    unique, inverse, counts = np.unique(rates, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, weights=qualities, minlength=unique.size) / counts
    return unique, means, rates.size - unique.size


def on_envelope(quality: Floats) -> npt.NDArray[np.bool_]:
    """Return which points (last axis, sorted by rate) exceed the quality of all points before."""
    keep = np.ones(quality.shape, dtype=np.bool_)
    if quality.shape[-1] > 1:
        best_before = np.maximum.accumulate(quality, axis=-1)[..., :-1]
        keep[..., 1:] = quality[..., 1:] > best_before
    return keep


def to_percent(log10_ratio: float) -> float:
    """Return a difference of log10(rate) as percent of the anchor's rate."""
    return float((10.0**log10_ratio - 1.0) * 100.0)


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise UserError(unknown("BD method", method, METHODS))


def _merged_flag(merged: int) -> list[str]:
    return [f"duplicate-rates:{merged}"] if merged else []


def _delta(
    anchor_x: Floats,
    anchor_y: Floats,
    test_x: Floats,
    test_y: Floats,
    method: str,
    flags: list[str],
    *,
    monotone: bool,
) -> BDResult:
    """Mean of test minus anchor over the common part of x (x strictly increasing)."""
    fewest = min(anchor_x.size, test_x.size)
    overlap = _overlap(anchor_x, test_x) if fewest else 0.0
    flags += weak_flags(overlap, fewest)
    if fewest < (4 if method == "cubic" else 2):
        return BDResult(float("nan"), method, overlap, fewest, (*flags, "too-few-points"))
    if overlap == 0:
        return BDResult(float("nan"), method, overlap, fewest, (*flags, "no-overlap"))

    # Imported here because it imports matplotlib and SciPy (about 2 s).
    from bjontegaard import bd_linear

    with warnings.catch_warnings():
        # NumPy considers the standard cubic through qualities of 30 to 40 dB poorly conditioned;
        # the check below detects the cases that matter.
        warnings.filterwarnings("ignore", message="Polyfit may be poorly conditioned")
        value, fit_anchor, fit_test = bd_linear(
            anchor_x,
            anchor_y,
            test_x,
            test_y,
            method=method,
            require_matching_points=False,
            interpolators=True,
            min_overlap=0,
        )
    if method == "cubic":
        common = np.linspace(
            max(anchor_x[0], test_x[0]), min(anchor_x[-1], test_x[-1]), num=1001, endpoint=True
        )
        fits = [(fit_anchor(common), anchor_y), (fit_test(common), test_y)]
        if any(_overshoots(curve, points) for curve, points in fits):
            return BDResult(float("nan"), method, overlap, fewest, (*flags, "cubic-unstable"))
        if monotone and any((np.diff(curve) < 0).any() for curve, _ in fits):
            flags.append("cubic-non-monotone")
    return BDResult(float(value), method, overlap, fewest, tuple(flags))


def _overlap(a: Floats, b: Floats) -> float:
    """Intersection over union of the intervals that two sorted sets of points span."""
    common = min(a[-1], b[-1]) - max(a[0], b[0])
    union = max(a[-1], b[-1]) - min(a[0], b[0])
    return float(common / union) if common > 0 else 0.0


def _overshoots(curve: Floats, points: Floats) -> bool:
    margin = CUBIC_OVERSHOOT * float(np.ptp(points))
    return bool(curve.max() > points.max() + margin or curve.min() < points.min() - margin)
