"""Bjøntegaard deltas of many resampled curve pairs at once, for bootstrap intervals.

Same definition and policy as :mod:`icmbench.metrics.bd`. One call of the ``bjontegaard`` package
takes about 0.7 ms, too long for a thousand resamples of every comparison, and SciPy's PCHIP needs
common abscissae for a batch, but every resample has its own. Hence the array version below (equal
to the package to 1e-9 in the tests). Akima and cubic call the package for each row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from icmbench.metrics import bd
from icmbench.metrics.bd import Floats, Method

# Rates and qualities of the anchor, then of the test curve: (R, points) each.
Curves = tuple[Floats, Floats, Floats, Floats]


def bd_rate_pct_resampled(
    anchor_rate: Floats,
    anchor_quality: Floats,
    test_rate: Floats,
    test_quality: Floats,
    method: Method = "pchip",
) -> Floats:
    """Return the BD-rate in percent of each resample, shape (R,); NaN if undefined.

    Args:
        anchor_rate: (R, points of the anchor), > 0.
        anchor_quality: same shape; rows with a value that is not finite give NaN.
        test_rate: (R, points of the test curve).
        test_quality: same shape.
        method: as for :func:`icmbench.metrics.bd.bd_rate_pct`.

    >>> rates = np.array([[0.1, 0.2, 0.4, 0.8], [0.1, 0.2, 0.4, 0.9]])
    >>> quality = np.array([[30.0, 32.0, 34.0, 36.0]] * 2)
    >>> bd_rate_pct_resampled(rates, quality, rates / 2, quality).round(3).tolist()
    [-50.0, -50.0]
    """
    curves = (anchor_rate, anchor_quality, test_rate, test_quality)
    if method != "pchip":
        return _row_by_row(curves, method, accuracy=False)
    return (10.0 ** _pchip_deltas(curves, accuracy=False) - 1.0) * 100.0


def bd_accuracy_resampled(
    anchor_rate: Floats,
    anchor_quality: Floats,
    test_rate: Floats,
    test_quality: Floats,
    method: Method = "pchip",
) -> Floats:
    """Return the BD-accuracy of each resample, shape (R,), in units of the quality.

    Arguments are those of :func:`bd_rate_pct_resampled`.

    >>> rates = np.array([[0.1, 0.2, 0.4, 0.8]])
    >>> quality = np.array([[30.0, 32.0, 34.0, 36.0]])
    >>> bd_accuracy_resampled(rates, quality, rates, quality + 1).round(3).tolist()
    [1.0]
    """
    curves = (anchor_rate, anchor_quality, test_rate, test_quality)
    if method != "pchip":
        return _row_by_row(curves, method, accuracy=True)
    return _pchip_deltas(curves, accuracy=True)


def _finite_rows(curves: Curves) -> npt.NDArray[np.intp]:
    finite = np.ones(curves[0].shape[0], dtype=np.bool_)
    for values in curves:
        finite &= np.isfinite(values).all(axis=1)
    return np.nonzero(finite)[0]


def _row_by_row(curves: Curves, method: Method, *, accuracy: bool) -> Floats:
    delta = bd.bd_accuracy if accuracy else bd.bd_rate_pct
    values = np.full(curves[0].shape[0], np.nan)
    anchor_rate, anchor_quality, test_rate, test_quality = curves
    for row in _finite_rows(curves):
        values[row] = delta(
            anchor_rate[row], anchor_quality[row], test_rate[row], test_quality[row], method
        ).value
    return values


def _pchip_deltas(curves: Curves, *, accuracy: bool) -> Floats:
    """Return the mean difference of log10(rate), or quality, over the common interval of rows."""
    values = np.full(curves[0].shape[0], np.nan)
    rows = _finite_rows(curves)
    anchor = _sorted_by_rate(curves[0][rows], curves[1][rows])
    test = _sorted_by_rate(curves[2][rows], curves[3][rows])

    # Exactly equal rates within one resample are rare; the scalar code averages them.
    ties = (np.diff(anchor[0]) == 0).any(axis=1) | (np.diff(test[0]) == 0).any(axis=1)
    for tied in np.nonzero(ties)[0]:
        points = [part[tied] for part in (*anchor, *test)]
        if accuracy:
            values[rows[tied]] = bd.bd_accuracy(*points).value
        else:
            values[rows[tied]] = np.log10(bd.bd_rate_pct(*points).value / 100.0 + 1.0)
    rows, anchor_rate, anchor_quality, test_rate, test_quality = (
        part[~ties] for part in (rows, *anchor, *test)
    )
    if rows.size == 0:
        return values
    if accuracy:
        values[rows] = _mean_difference(
            np.log10(anchor_rate), anchor_quality, np.log10(test_rate), test_quality
        )
        return values

    # Rows that keep the same points on their envelopes are computed together.
    keep_anchor = bd.on_envelope(anchor_quality)
    keep_test = bd.on_envelope(test_quality)
    kept = np.concatenate([keep_anchor, keep_test], axis=1)
    patterns, group = np.unique(kept, axis=0, return_inverse=True)
    n_anchor = keep_anchor.shape[1]
    for index, pattern in enumerate(patterns):
        members = np.nonzero(group.ravel() == index)[0]
        of_anchor = np.ix_(members, np.nonzero(pattern[:n_anchor])[0])
        of_test = np.ix_(members, np.nonzero(pattern[n_anchor:])[0])
        values[rows[members]] = _mean_difference(
            anchor_quality[of_anchor],
            np.log10(anchor_rate[of_anchor]),
            test_quality[of_test],
            np.log10(test_rate[of_test]),
        )
    return values


def _sorted_by_rate(rate: Floats, quality: Floats) -> tuple[Floats, Floats]:
    order = np.argsort(rate, axis=1, kind="stable")
    return np.take_along_axis(rate, order, axis=1), np.take_along_axis(quality, order, axis=1)


def _mean_difference(anchor_x: Floats, anchor_y: Floats, test_x: Floats, test_y: Floats) -> Floats:
    """Return the mean of test minus anchor over the common x of each row; NaN if there is none."""
    if min(anchor_x.shape[1], test_x.shape[1]) < 2:
        return np.full(anchor_x.shape[0], np.nan)
    low = np.maximum(anchor_x[:, 0], test_x[:, 0])
    high = np.minimum(anchor_x[:, -1], test_x[:, -1])
    difference = _pchip_integral(test_x, test_y, low, high)
    difference -= _pchip_integral(anchor_x, anchor_y, low, high)
    defined = high > low
    return np.divide(difference, high - low, out=np.full(low.size, np.nan), where=defined)


def _pchip_integral(x: Floats, y: Floats, low: Floats, high: Floats) -> Floats:
    """Integrate each row's PCHIP interpolant (x strictly increasing) from low to high.

    x, y: (rows, points); low, high: (rows,) within the row's x.
    """
    step = np.diff(x, axis=1)
    slope = np.diff(y, axis=1) / step
    d = _pchip_derivatives(step, slope)
    quadratic = (3 * slope - 2 * d[:, :-1] - d[:, 1:]) / step
    cubic = (d[:, :-1] + d[:, 1:] - 2 * slope) / step**2

    def primitive(s: Floats) -> Floats:
        return s * (y[:, :-1] + s * (d[:, :-1] / 2 + s * (quadratic / 3 + s * cubic / 4)))

    start = np.clip(low[:, None] - x[:, :-1], 0, step)
    stop = np.clip(high[:, None] - x[:, :-1], 0, step)
    integral: Floats = (primitive(stop) - primitive(start)).sum(axis=1)
    return integral


def _pchip_derivatives(step: Floats, slope: Floats) -> Floats:
    """Return the derivatives at the points of each row (Fritsch and Butland, as in SciPy)."""
    if step.shape[1] == 1:
        return np.repeat(slope, 2, axis=1)
    d = np.zeros((step.shape[0], step.shape[1] + 1))
    before, after = slope[:, :-1], slope[:, 1:]
    same_sign = before * after > 0
    weight_before = 2 * step[:, 1:] + step[:, :-1]
    weight_after = step[:, 1:] + 2 * step[:, :-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        harmonic = (weight_before + weight_after) / (weight_before / before + weight_after / after)
    d[:, 1:-1] = np.where(same_sign, harmonic, 0.0)
    d[:, 0] = _end_derivative(step[:, 0], step[:, 1], slope[:, 0], slope[:, 1])
    d[:, -1] = _end_derivative(step[:, -1], step[:, -2], slope[:, -1], slope[:, -2])
    return d


def _end_derivative(h0: Floats, h1: Floats, m0: Floats, m1: Floats) -> Floats:
    """Return the three-point derivative at an end, limited to keep the curve monotone."""
    d = ((2 * h0 + h1) * m0 - h0 * m1) / (h0 + h1)
    d = np.where(np.sign(d) != np.sign(m0), 0.0, d)
    too_steep = (np.sign(m0) != np.sign(m1)) & (np.abs(d) > 3 * np.abs(m0))
    return np.where(too_steep, 3 * m0, d)
