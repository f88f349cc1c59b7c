"""Random textures that generated images are made of."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def noise(rng: np.random.Generator, size: int, slope: float) -> Array:
    """Return a float32 [size, size] field of unit variance whose amplitude is frequency^-slope.

    Natural images have a slope near 1 (Field, 1987); smooth surfaces have a steeper one.
    """
    frequency = _frequencies(size)
    shape = (2, *frequency.shape)
    real, imaginary = rng.standard_normal(shape, np.float32)
    field = np.fft.irfft2((real + 1j * imaginary) * frequency**-slope, s=(size, size))
    return ((field - field.mean()) / (field.std() + 1e-12)).astype(np.float32)


@lru_cache(maxsize=4)
def _frequencies(size: int) -> Array:
    """Return the radial frequency of each bin of a real FFT; the mean's is infinite."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    frequency[0, 0] = np.inf
    return frequency.astype(np.float32)
