"""The policy of the BD functions, and properties that every BD result must have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icmbench.errors import UserError
from icmbench.metrics.bd import METHODS, bd_accuracy, bd_rate_pct

RATE = [0.1, 0.2, 0.4, 0.8]
QUALITY = [28.0, 31.0, 33.5, 35.0]

# No deadline: the first example pays for importing SciPy and matplotlib.
timeless = settings(deadline=None, max_examples=50)


@st.composite
def curves(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """A strictly increasing curve of 4 to 8 points that rises by 1 to 3 dB a step."""
    size = draw(st.integers(4, 8))
    steps = st.lists(st.floats(0.3, 1.0), min_size=size, max_size=size)
    rises = st.lists(st.floats(1.0, 3.0), min_size=size, max_size=size)
    rate = 0.05 * 2 ** np.cumsum(draw(steps))
    quality = draw(st.floats(25.0, 30.0)) + np.cumsum(draw(rises))
    return rate, quality


@timeless
@given(curves(), st.sampled_from(METHODS))
def test_bd_of_equal_curves_is_zero(curve: tuple[np.ndarray, np.ndarray], method: Any) -> None:
    rate = bd_rate_pct(*curve, *curve, method=method)
    accuracy = bd_accuracy(*curve, *curve, method=method)
    assert rate.overlap == accuracy.overlap == 1.0
    for result in (rate, accuracy):
        if "cubic-unstable" not in result.flags:
            assert result.value == pytest.approx(0.0, abs=1e-9)


@timeless
@given(curves(), st.floats(0.2, 5.0), st.sampled_from(METHODS))
def test_bd_rate_of_scaled_rates(
    curve: tuple[np.ndarray, np.ndarray], factor: float, method: Any
) -> None:
    rate, quality = curve
    result = bd_rate_pct(rate, quality, rate * factor, quality, method=method)
    if "cubic-unstable" not in result.flags:
        assert result.value == pytest.approx(100 * (factor - 1), abs=1e-6)


@timeless
@given(curves(), st.floats(-3.0, 3.0))
def test_bd_accuracy_of_raised_qualities(curve: tuple[np.ndarray, np.ndarray], gain: float) -> None:
    rate, quality = curve
    result = bd_accuracy(rate, quality, rate, quality + gain)
    assert result.value == pytest.approx(gain, abs=1e-9)


@timeless
@given(curves(), curves(), st.sampled_from(METHODS))
def test_bd_is_inverted_by_swapping_curves(
    anchor: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], method: Any
) -> None:
    there = bd_rate_pct(*anchor, *test, method=method)
    back = bd_rate_pct(*test, *anchor, method=method)
    assert there.overlap == back.overlap
    assert there.flags == back.flags
    if not math.isnan(there.value):
        product = (1 + there.value / 100) * (1 + back.value / 100)
        assert product == pytest.approx(1.0, rel=1e-7)
    there = bd_accuracy(*anchor, *test, method=method)
    back = bd_accuracy(*test, *anchor, method=method)
    assert there.value == pytest.approx(-back.value, abs=1e-7, nan_ok=True)


@timeless
@given(curves(), st.permutations(range(4)))
def test_bd_rate_ignores_the_order_of_points(
    curve: tuple[np.ndarray, np.ndarray], order: list[int]
) -> None:
    rate, quality = (part[:4] for part in curve)
    shuffled = bd_rate_pct(RATE, QUALITY, rate[order], quality[order])
    assert shuffled == bd_rate_pct(RATE, QUALITY, rate, quality)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("function", [bd_rate_pct, bd_accuracy])
def test_bd_refuses_an_invalid_rate(function: Any, bad: float) -> None:
    with pytest.raises(UserError, match=r"^test curve: rate"):
        function(RATE, QUALITY, [bad, 0.2, 0.4, 0.8], QUALITY)
    with pytest.raises(UserError, match=r"^anchor curve: rate"):
        function([0.1, 0.2, bad, 0.8], QUALITY, RATE, QUALITY)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bd_refuses_an_invalid_quality(bad: float) -> None:
    with pytest.raises(UserError, match=r"^anchor curve: .*0\.4"):
        bd_rate_pct(RATE, [28.0, 31.0, bad, 35.0], RATE, QUALITY)


def test_bd_rate_checks_lengths_and_method() -> None:
    with pytest.raises(UserError, match=r"test curve: 3 .* 4"):
        bd_rate_pct(RATE, QUALITY, RATE[:3], QUALITY)
    with pytest.raises(UserError, match=r"'spline'.*pchip"):
        bd_rate_pct(RATE, QUALITY, RATE, QUALITY, method="spline")  # type: ignore[arg-type]


def test_bd_rate_reduces_a_curve_to_its_envelope() -> None:
    rate = [0.1, 0.2, 0.25, 0.4, 0.5, 0.8]
    quality = [28.0, 31.0, 30.0, 33.5, 33.5, 35.0]
    result = bd_rate_pct(RATE, QUALITY, rate, quality)
    assert result.flags == ("non-monotone:2",)
    assert result.value == pytest.approx(0.0, abs=1e-9)
    # BD-accuracy is defined there and sees the dip.
    accuracy = bd_accuracy(RATE, QUALITY, rate, quality)
    assert accuracy.flags == ()
    assert accuracy.value < -0.1


def test_bd_averages_equal_rates() -> None:
    rate = [0.1, 0.2, 0.2, 0.4, 0.8]
    quality = [28.0, 30.5, 31.5, 33.5, 35.0]
    for function in (bd_rate_pct, bd_accuracy):
        result = function(RATE, QUALITY, rate, quality)
        assert result.flags == ("duplicate-rates:1",)
        assert result.value == pytest.approx(0.0, abs=1e-9)


def test_bd_rate_overlap_is_intersection_over_union() -> None:
    shifted = [q + 3.5 for q in QUALITY]  # 28..35 and 31.5..38.5
    result = bd_rate_pct(RATE, QUALITY, RATE, shifted)
    assert result.overlap == pytest.approx(3.5 / 10.5)
    assert result.flags == ("low-overlap",)
    assert math.isfinite(result.value)


def test_bd_without_overlap_is_undefined() -> None:
    result = bd_rate_pct(RATE, QUALITY, RATE, [q + 7.0 for q in QUALITY])  # touch in one point
    assert math.isnan(result.value)
    assert (result.overlap, result.flags) == (0.0, ("no-overlap",))
    result = bd_accuracy(RATE, QUALITY, [r * 100 for r in RATE], QUALITY)
    assert math.isnan(result.value)
    assert result.flags == ("no-overlap",)


@pytest.mark.parametrize("size", [0, 1, 2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_bd_rate_flags_few_points(method: Any, size: int) -> None:
    rate = [2 * r for r in RATE[:size]]
    result = bd_rate_pct(RATE, QUALITY, rate, QUALITY[:size], method=method)
    assert "few-points" in result.flags
    computable = size >= 2 and method != "cubic"
    assert ("too-few-points" in result.flags) is not computable
    assert math.isnan(result.value) is not computable


def test_bd_rate_of_two_points_is_a_line_in_log_rate() -> None:
    result = bd_rate_pct([0.1, 0.4], [30.0, 32.0], [0.2, 0.4], [30.0, 32.0])
    # log10 differences 0.301 at 30 dB and 0 at 32 dB: mean half of log10(2).
    assert result.value == pytest.approx(100 * (math.sqrt(2) - 1))
    assert result.flags == ("few-points",)


def test_bd_rate_flags_a_slightly_wavy_cubic() -> None:
    anchor = [4593.6, 9487.76, 26875.24, 82472.76], [38.615, 40.037, 41.404, 43.825]
    test = [4469.0, 9787.8, 33952.04, 99896.96], [38.651, 40.121, 41.875, 44.731]
    result = bd_rate_pct(*anchor, *test, method="cubic")
    assert "cubic-non-monotone" in result.flags
    assert result.value == pytest.approx(-4.699438, abs=1e-6)
