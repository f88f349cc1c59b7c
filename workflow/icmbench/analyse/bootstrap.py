"""Bootstrap over images and training seeds: shared resamples and their intervals.

Intervals over images are percentiles. Seeds are too few for percentiles: resamples of two or three
seeds contain only those few values. If a number has several seeds, its interval is therefore at
least that of Student's t (:func:`seed_interval`).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special  # type: ignore[import-untyped]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: A number and its R resamples, (R,).
Resampled = tuple[float, Floats]

#: A standard error and its degrees of freedom.
StandardError = tuple[float, float]

LEVEL = 0.95
_ROUNDING = 1e-12  # relative; a mean of 50,000 images that differs in one answer differs by 2e-5


def subtract(one: Resampled, other: Resampled) -> Resampled:
    """Return a difference; that of two equal infinite values is NaN: undefined.

    Means of fractions that are equal may differ in their last bits: what rounding leaves is 0.
    """

    def minus(a: float | Floats, b: float | Floats) -> Floats:
        difference = np.subtract(a, b)
        largest = np.maximum(np.abs(a), np.abs(b))
        return np.where(np.abs(difference) < _ROUNDING * largest, 0.0, difference)

    with np.errstate(invalid="ignore"):
        return float(minus(one[0], other[0])), minus(one[1], other[1])


@lru_cache(maxsize=8)
def image_weights(images: int, resamples: int, seed: int) -> Ints:
    """Return the number of copies of each image in each resample, (resamples, images).

    Each row draws ``images`` images with replacement. Columns belong to the images in ascending
    order of ``str(id)``, so all operating points on one set of images share their resamples, which
    makes comparisons paired.

    >>> image_weights(4, 2, 0)
    array([[1, 0, 0, 3],
           [0, 2, 2, 0]])
    """
    rng = np.random.default_rng([seed, 0])
    weights = rng.multinomial(images, np.full(images, 1 / images), size=resamples)
    weights.setflags(write=False)  # the cached array is shared
    return weights


def seed_draws(label: str, seeds: int, resamples: int, seed: int) -> Ints:
    """Return which of a variant's training seeds each resample uses, (resamples, draws).

    Drawn with replacement, the same for all rate points of the variant ``label`` (a seed is one
    repetition of the whole curve) and independently of other variants. S - 1 of S seeds are drawn:
    the variance of a mean of S draws would be too small by a factor (S - 1) / S (McCarthy and
    Snowden, 1985). The only column is 0 if there is one seed.
    """
    rng = np.random.default_rng([seed, 1, zlib.crc32(label.encode())])
    return rng.integers(seeds, size=(resamples, max(1, seeds - 1)))


def mean_over_seeds(samples: Sequence[Floats], label: str, seed: int) -> Floats:
    """Return the resamples of a mean over seeds, (R,).

    Args:
        samples: (R,) of each seed.
        label: variant that the seeds belong to.
        seed: of the draws.
    """
    drawn = seed_draws(label, len(samples), samples[0].size, seed)
    return np.take_along_axis(np.stack(samples, axis=1), drawn, axis=1).mean(axis=1)


def percentile_interval(samples: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Return the central percentile interval of the samples that are not NaN; NaN if all are.

    The bounds are samples themselves (no interpolation), so infinite samples are allowed.

    >>> percentile_interval(np.arange(1.0, 1001.0))
    (25.0, 975.0)
    """
    defined = samples[~np.isnan(samples)]
    if defined.size == 0:
        return float("nan"), float("nan")
    tail = round((1 - level) / 2, 12)  # 0.025, not the next number above it
    low, high = np.quantile(defined, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


@dataclass(frozen=True, eq=False)
class SeedNoise:
    """The variation of a number that comes from the seeds of one variant.

    Attributes:
        variant: that the seeds belong to.
        seeds: their number, at least 2.
        samples: (R,), the number if only these seeds are drawn.
    """

    variant: str
    seeds: int
    samples: Floats


def standard_errors(
    samples: Floats, images: int, noise: Sequence[SeedNoise]
) -> list[StandardError]:
    """Return the standard error due to images and, if seeds vary, the one due to seeds.

    The seeds of several variants have the degrees of freedom of Welch and Satterthwaite.

    Args:
        samples: (R,), images and seeds drawn; the variance that seeds do not explain is due to
            images.
        images: number of images, at least 2.
        noise: of each variant with several seeds.
    """
    total = _variance(samples)
    parts = [(min(_variance(part.samples), total), part.seeds - 1) for part in noise]
    of_seeds = sum(part for part, _ in parts)
    if math.isinf(of_seeds):
        return [(math.inf, 1)]
    # Equal seeds leave what rounding makes of the variance of a constant.
    if of_seeds <= _ROUNDING * total:
        return [(math.sqrt(total), images - 1)]
    freedom = 1 / sum((part / of_seeds) ** 2 / own for part, own in parts)
    return [(math.sqrt(max(0.0, total - of_seeds)), images - 1), (math.sqrt(of_seeds), freedom)]


def reach(errors: Sequence[StandardError], error_rate: float) -> float:
    """Return the half-width of the interval that misses the truth at a given rate.

    The half-widths of Student's t add up as errors do, in squares. A single t over the summed error
    would be too short: if two seeds agree by chance, it would have the degrees of freedom of the
    images.
    """
    return math.hypot(
        *(error * float(-special.stdtrit(own, error_rate / 2)) for error, own in errors)
    )


def two_sided_p(difference: float, errors: Sequence[StandardError]) -> float:
    """Return the error rate at which :func:`reach` equals a difference other than 0."""
    if all(error == 0 for error, _ in errors):
        return 0.0
    if len(errors) == 1:
        ((error, own),) = errors
        return 2 * float(special.stdtr(own, -abs(difference) / error))

    from scipy import optimize  # takes half a CPU second; only comparisons need it

    def beyond(logarithm: float) -> float:
        return reach(errors, math.exp(logarithm)) - abs(difference)

    lowest = -600.0  # exp(-600) is close to the smallest float
    return 0.0 if beyond(lowest) < 0 else math.exp(optimize.brentq(beyond, lowest, 0.0))


def seed_interval(
    value: float,
    samples: Floats,
    images: int,
    noise: Sequence[SeedNoise],
    level: float = LEVEL,
    *,
    percent: bool = False,
) -> tuple[float, float]:
    """Return the percentile interval, widened to that of Student's t if seeds vary.

    Args:
        value: the number; if it is not finite, the interval is that of percentiles.
        samples: (R,), images and seeds drawn.
        images: number of images; with fewer than 2 the interval is that of percentiles.
        noise: of each variant with several seeds; without any, the interval is that of percentiles.
        level: coverage.
        percent: whether the number is a relative difference in percent; its logarithm is used.
    """
    low, high = percentile_interval(samples, level)
    if not noise or not math.isfinite(value) or images < 2:
        return low, high
    scaled = [replace(part, samples=_linear(part.samples, percent)) for part in noise]
    errors = standard_errors(_linear(samples, percent), images, scaled)
    if len(errors) == 1 and math.isfinite(errors[0][0]):
        return low, high
    centre, most = _linear(value, percent), reach(errors, 1 - level)
    first, last = _from_linear(centre - most, percent), _from_linear(centre + most, percent)
    return min(low, first), max(high, last)


def _variance(samples: Floats) -> float:
    """Return the variance of the finite samples, infinite if there are fewer than two."""
    finite = samples[np.isfinite(samples)]
    return float(np.var(finite, ddof=1)) if finite.size > 1 else math.inf


def _linear(values: Any, percent: bool) -> Any:
    """Return numbers on a scale where they are approximately normal."""
    if not percent:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log1p(np.asarray(values) / 100)


def _from_linear(value: float, percent: bool) -> float:
    with np.errstate(over="ignore"):
        return 100 * float(np.expm1(value)) if percent else float(value)
