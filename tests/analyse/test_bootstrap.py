from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from icmbench.analyse.bootstrap import (
    SeedNoise,
    image_weights,
    mean_over_seeds,
    percentile_interval,
    reach,
    seed_draws,
    seed_interval,
    standard_errors,
    subtract,
    two_sided_p,
)


def test_image_weights_draw_with_replacement() -> None:
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


def test_percentile_interval_uses_defined_samples() -> None:
    samples = np.array([*range(1, 1001), *[np.nan] * 50], float)
    assert percentile_interval(samples) == (25.0, 975.0)
    assert percentile_interval(samples, level=0.5) == (250.0, 750.0)
    assert percentile_interval(np.array([1.0, np.inf, np.inf])) == (1.0, np.inf)
    assert np.isnan(percentile_interval(np.full(3, np.nan))).all()


def test_percentile_interval_covers_the_mean() -> None:
    """Of 200 samples of 40 normal values, about 95 % of the intervals hold the true mean."""
    rng = np.random.default_rng(0)
    weights = image_weights(40, 500, 0)
    covered = 0
    for _ in range(200):
        low, high = percentile_interval(weights @ rng.normal(size=40) / 40)
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_seed_draws_vary_as_means_do() -> None:
    """The mean of S seeds has their variance (ddof 1) over S, for two seeds already."""
    for seeds in (2, 3, 5):
        values = np.random.default_rng(seeds).normal(size=seeds)
        samples = mean_over_seeds([np.full(40_000, value) for value in values], "s/v", 0)
        assert samples.mean() == pytest.approx(values.mean(), abs=0.03)
        assert samples.var() == pytest.approx(values.var(ddof=1) / seeds, rel=0.03)
    alone = np.random.default_rng(0).normal(size=50)
    assert np.array_equal(mean_over_seeds([alone], "s/v", 0), alone)


def test_difference_of_equal_sums_is_zero_whatever_their_order() -> None:
    """The reference: sums of fractions of one denominator, which are exact."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 21, size=(300, 2000))
    values, permuted = counts / 20, rng.permuted(counts, axis=0) / 20
    one, other = (np.array([sum(column) for column in v.T]) / 300 for v in (values, permuted))
    assert (one != other).any()
    value, samples = subtract((one[0], one), (other[0], other))
    assert value == 0 and not samples.any()
    counts[0] += 1  # one answer of 6,000 more, in one image
    more = np.array([sum(column) for column in (counts / 20).T]) / 300
    assert subtract((more[0], more), (one[0], one))[1] == pytest.approx(1 / 6000)
    infinite = np.array([np.inf, np.inf, -np.inf])
    _, samples = subtract((0.0, infinite), (0.0, np.array([1.0, np.inf, 0.0])))
    np.testing.assert_array_equal(samples, [np.inf, np.nan, -np.inf])


def noise_of(values: np.ndarray, variant: str = "v") -> SeedNoise:
    fixed = [np.full(2000, value) for value in values]
    return SeedNoise(variant, values.size, mean_over_seeds(fixed, variant, 0))


def test_seed_interval_is_students() -> None:
    """Without variation of images it is the t interval; one seed gives percentiles."""
    values = np.array([1.0, 2.0, 4.0])
    noise = noise_of(values)
    low, high = seed_interval(values.mean(), noise.samples, 100, [noise])
    error = values.std(ddof=1) / np.sqrt(3)
    expected = values.mean() + np.array([-1, 1]) * stats.t.isf(0.025, 2) * error
    assert [low, high] == pytest.approx(expected, rel=0.05)
    assert seed_interval(values.mean(), noise.samples, 100, []) == percentile_interval(
        noise.samples
    )
    same = noise_of(np.array([2.0, 2.0]))
    images = np.random.default_rng(0).normal(2, 1, 2000)
    assert seed_interval(2.0, images, 100, [same]) == percentile_interval(images)
    # A BD-rate is a ratio: no interval reaches below -100 %.
    assert seed_interval(-50.0, -50 + 9 * noise.samples, 100, [noise_of(-50 + 9 * values)],
                         percent=True)[0] > -100  # fmt: skip


def test_equal_seeds_add_no_error() -> None:
    samples = np.random.default_rng(0).normal(0.7, 0.01, 1000)
    # Its variance is 1e-32 or so, not 0.
    constant = np.full(1000, 0.1)
    assert constant.var(ddof=1) > 0
    noise = [SeedNoise("a", 3, constant)]
    assert standard_errors(samples, 300, noise) == [(samples.std(ddof=1), 299)]


def test_standard_errors_add_images_and_seeds() -> None:
    a, b = noise_of(np.array([0.0, 2.0]), "a"), noise_of(np.array([0.0, 2.0]), "b")
    images = np.random.default_rng(0).normal(0, 3, 2000)
    (of_images, many), (of_seeds, freedom) = standard_errors(
        images + a.samples - b.samples, 50, [a, b]
    )
    assert (of_images, many) == (pytest.approx(3, rel=0.05), 49)
    assert (of_seeds, freedom) == (pytest.approx(np.sqrt(2), rel=0.05), pytest.approx(2, rel=0.05))
    assert reach([(1.0, 9), (2.0, 1)], 0.05) == pytest.approx(
        np.hypot(stats.t.isf(0.025, 9), 2 * stats.t.isf(0.025, 1))
    )


@pytest.mark.parametrize("errors", [[(1.0, 9)], [(1.0, 9), (2.0, 1)], [(0.0, 9), (2.0, 2)]])
def test_two_sided_p_inverts_reach(errors: list[tuple[float, float]]) -> None:
    for p in (0.5, 0.05, 1e-9):
        assert two_sided_p(-reach(errors, p), errors) == pytest.approx(p, rel=1e-6)
    assert two_sided_p(1.0, [(0.0, 9)]) == 0


def test_seed_interval_is_wider_if_seed_samples_are_undefined() -> None:
    lost = SeedNoise("v", 2, np.full(50, np.nan))
    drawn = np.random.default_rng(0).normal(1, 1, 50)
    low, high = seed_interval(1.0, drawn, 9, [lost])
    assert low < percentile_interval(drawn)[0] and high > percentile_interval(drawn)[1]
