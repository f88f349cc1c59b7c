"""Bootstrap over images: shared resamples and percentile intervals."""

from __future__ import annotations

import zlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEVEL = 0.95


@lru_cache(maxsize=8)
def image_weights(images: int, resamples: int, seed: int) -> Ints:
    """Return how often each image stands in each resample, (resamples, images).

    Each row draws ``images`` images with replacement. Columns belong to the images in ascending
    order of ``str(id)``, so all operating points on one set of images share their resamples, which
    makes comparisons paired.
    """
    rng = np.random.default_rng([seed, 0])
    weights = rng.multinomial(images, np.full(images, 1 / images), size=resamples)
    weights.setflags(write=False)  # the cached array is shared
    return weights


def seed_draws(label: str, seeds: int, resamples: int, seed: int) -> Ints:
    """Return which of a variant's training seeds each resample uses, (resamples, seeds).

    Drawn with replacement, the same for all rate points of the variant ``label`` (a seed is one
    repetition of the whole curve) and independently of other variants. The first column is 0 where
    there is one seed.
    """
    rng = np.random.default_rng([seed, 1, zlib.crc32(label.encode())])
    return rng.integers(seeds, size=(resamples, seeds))


def interval(samples: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Return the central percentile interval of the samples that are not NaN; NaN if none is.

    The bounds are samples themselves (no interpolation), so infinite samples do no harm.
    """
    defined = samples[~np.isnan(samples)]
    if defined.size == 0:
        return float("nan"), float("nan")
    tail = round((1 - level) / 2, 12)  # 0.025, not the next number above it
    low, high = np.quantile(defined, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)
