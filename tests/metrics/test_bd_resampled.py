"""The array version of PCHIP against the package, row by row."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from icmbench.metrics.bd import METHODS, bd_accuracy, bd_rate_pct
from icmbench.metrics.bd_resampled import bd_accuracy_resampled, bd_rate_pct_resampled


def random_curves(
    rng: np.random.Generator, rows: int, points: int, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rising curves with noise: many rows are not monotone, in rate or in quality."""
    rate = 0.1 * 2.0 ** np.arange(points) * np.exp(rng.normal(0, noise, (rows, points)))
    quality = 25 + 3 * np.log2(rate / 0.1) + rng.normal(0, 5 * noise, (rows, points))
    return rate, quality


@pytest.mark.parametrize("noise", [0.01, 0.3])
@pytest.mark.parametrize("sizes", [(2, 2), (3, 5), (4, 4), (6, 8)])
def test_bd_resampled_equals_the_package(sizes: tuple[int, int], noise: float) -> None:
    from bjontegaard import bd_psnr, bd_rate

    rng = np.random.default_rng(7)
    curves = (*random_curves(rng, 60, sizes[0], noise), *random_curves(rng, 60, sizes[1], noise))
    rates = bd_rate_pct_resampled(*curves)
    accuracies = bd_accuracy_resampled(*curves)
    compared = 0
    for row in range(60):
        parts = [part[row] for part in curves]
        assert rates[row] == pytest.approx(bd_rate_pct(*parts).value, abs=1e-9, nan_ok=True)
        assert accuracies[row] == pytest.approx(bd_accuracy(*parts).value, abs=1e-9, nan_ok=True)
        rising = all((np.diff(part) > 0).all() for part in parts)
        if rising and not np.isnan(rates[row]):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                options: dict[str, Any] = {
                    "method": "pchip",
                    "require_matching_points": False,
                    "min_overlap": 0,
                }
                assert rates[row] == pytest.approx(bd_rate(*parts, **options), abs=1e-9)
                assert accuracies[row] == pytest.approx(
                    bd_psnr(*parts, **options), abs=1e-9, nan_ok=True
                )
            compared += 1
    assert compared > 0


@pytest.mark.parametrize("method", METHODS)
def test_bd_resampled_undefined_rows_are_nan(method: Any) -> None:
    rate = np.tile([0.1, 0.2, 0.4, 0.8], (5, 1))
    quality = np.tile([28.0, 31.0, 33.5, 35.0], (5, 1))
    test_rate, test_quality = rate * 1.1, quality.copy()
    test_quality[1] += 10  # no overlap in quality
    test_quality[2, 1] = np.nan
    test_quality[3, 2] = np.inf
    values = bd_rate_pct_resampled(rate, quality, test_rate, test_quality, method)
    assert np.isnan(values).tolist() == [False, True, True, True, False]
    assert values[[0, 4]] == pytest.approx(10.0, abs=1e-6)
    values = bd_accuracy_resampled(rate, quality, test_rate, test_quality, method)
    assert np.isnan(values).tolist() == [False, False, True, True, False]


def test_bd_resampled_averages_equal_rates() -> None:
    rate = np.array([[0.1, 0.2, 0.4, 0.8], [0.1, 0.2, 0.4, 0.8]])
    quality = np.array([[28.0, 31.0, 33.5, 35.0], [28.0, 31.0, 33.5, 35.0]])
    test_rate = np.array([[0.1, 0.2, 0.2, 0.8], [0.1, 0.2, 0.4, 0.8]])
    test_quality = quality + 0.1
    rates = bd_rate_pct_resampled(rate, quality, test_rate, test_quality)
    accuracies = bd_accuracy_resampled(rate, quality, test_rate, test_quality)
    for row in range(2):
        parts = (rate[row], quality[row], test_rate[row], test_quality[row])
        assert rates[row] == pytest.approx(bd_rate_pct(*parts).value, abs=1e-9)
        assert accuracies[row] == pytest.approx(bd_accuracy(*parts).value, abs=1e-9)
    assert bd_rate_pct(*(p[0] for p in (rate, quality, test_rate, test_quality))).flags
