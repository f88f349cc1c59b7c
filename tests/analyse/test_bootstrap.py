from __future__ import annotations

import numpy as np
import pytest

from icmbench.analyse.bootstrap import image_weights, interval, seed_draws


def test_image_weights_are_draws_with_replacement() -> None:
    weights = image_weights(50, 400, 3)
    assert weights.shape == (400, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert weights.mean(axis=0) == pytest.approx(1.0, abs=0.3)
    # A bootstrap count is close to Poisson(1): 37 % of the images are left out.
    assert (weights == 0).mean() == pytest.approx(0.364, abs=0.02)
    assert np.array_equal(weights, image_weights(50, 400, 3))
    assert not np.array_equal(weights, image_weights(50, 400, 4))


def test_seed_draws_depend_on_the_variant_only() -> None:
    draws = seed_draws("study/a", 3, 200, 0)
    assert set(np.unique(draws)) == {0, 1, 2}
    assert np.array_equal(draws, seed_draws("study/a", 3, 200, 0))
    assert not np.array_equal(draws, seed_draws("study/b", 3, 200, 0))
    assert not seed_draws("study/a", 1, 200, 0).any()


def test_interval_is_the_central_percentiles_of_defined_samples() -> None:
    samples = np.array([*range(1, 1001), *[np.nan] * 50], float)
    assert interval(samples) == (25.0, 975.0)
    assert interval(samples, level=0.5) == (250.0, 750.0)
    assert interval(np.array([1.0, np.inf, np.inf])) == (1.0, np.inf)
    assert np.isnan(interval(np.full(3, np.nan))).all()


def test_interval_covers_the_mean() -> None:
    """Of 200 samples of 40 normal values, about 95 % of the intervals hold the true mean."""
    rng = np.random.default_rng(0)
    weights = image_weights(40, 500, 0)
    covered = 0
    for _ in range(200):
        low, high = interval(weights @ rng.normal(size=40) / 40)
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.99
