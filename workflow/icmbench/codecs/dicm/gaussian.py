"""Gaussians over integers: quantisation, likelihoods, and range coding.

CompressAI codes the rounded difference to the mean. A latent that is rounded itself needs another
table for each position of the mean between two integers. Here the mean is quantised to fractions of
an integer and the scale to a table, at a cost well below one per cent of the rate (tested).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from compressai._CXX import pmf_to_quantized_cdf
from compressai.ans import BufferedRansEncoder, RansDecoder
from compressai.ops import LowerBound
from torch import Tensor, nn

Array = np.ndarray[Any, np.dtype[Any]]

_PRECISION = 16  # bits of a probability in the range coder
# A rarer value is coded as an escape: its own table entry would cost the other values as much.
_RAREST = 2.0 ** -(_PRECISION + 1)
# CompressAI's encoder reserves one 32-bit word per symbol. With fewer symbols, of at most 16 bits
# each, its final state of two words would be written outside the buffer.
_FEWEST = 4

LOWEST, HIGHEST = -128, 127
MIN_LOG_SCALE = -7.0
_MIN_LIKELIHOOD = 1e-12


def quantise(values: Tensor, training: bool) -> Tensor:
    """Return values with additive uniform noise in training, else rounded, in [-128, 127]."""
    if training:
        noisy = values + torch.rand_like(values) - 0.5
        return noisy.clamp(LOWEST, HIGHEST)
    return values.round().clamp(LOWEST, HIGHEST)


class IntegerLikelihood(nn.Module):
    """Mass of a Gaussian in the unit bin around a value; the outermost bins hold the tails."""

    def __init__(self) -> None:
        super().__init__()
        self.least = LowerBound(_MIN_LIKELIHOOD)

    def forward(self, values: Tensor, means: Tensor, scales: Tensor) -> Tensor:
        """Return likelihoods of ``values``; the shapes of the three agree by broadcasting."""
        centred = values - means
        # Both edges on the left of the mean, where differences of the distribution are exact.
        distance = centred.abs()
        inner, outer = (0.5 - distance) / scales, (-0.5 - distance) / scales
        mass = torch.special.ndtr(inner) - torch.special.ndtr(outer)
        mass = torch.where(values <= LOWEST, torch.special.ndtr((centred + 0.5) / scales), mass)
        mass = torch.where(values >= HIGHEST, torch.special.ndtr((0.5 - centred) / scales), mass)
        likelihoods: Tensor = self.least(mass)
        return likelihoods


class ChannelGaussian(nn.Module):
    """A learned Gaussian for each channel: the prior of the hyper-latent.

    Args:
        channels: number of channels; each begins as a standard normal distribution (ours).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.zeros(channels))
        self.log_scales = nn.Parameter(torch.zeros(channels))

    def forward(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and scales of a map of the shape [B, C, h, w] of ``like``."""
        shape = (1, -1, 1, 1)
        scales = self.log_scales.clamp_min(MIN_LOG_SCALE).exp()
        return self.means.reshape(shape).expand_as(like), scales.reshape(shape).expand_as(like)


def log_spaced(lowest: float, highest: float, count: int) -> list[float]:
    """Return ``count`` scales from ``lowest`` to ``highest`` with equal ratios.

    >>> log_spaced(1.0, 4.0, 3)
    [1.0, 2.0, 4.0]
    """
    return [float(scale) for scale in np.geomspace(lowest, highest, count)]


class GaussianTables:
    """Coding tables of integers with a mean and a scale each, made when they are needed.

    Args:
        scales: standard deviations of the tables, increasing; a scale uses the one with the nearest
            logarithm.
        fractions: number of quantised means between two integers.
        reach: a value further than this from its mean is coded as an escape.
    """

    def __init__(self, scales: Sequence[float], fractions: int, reach: int = 256) -> None:
        self.scales = np.asarray(scales, dtype=np.float64)
        self.fractions = fractions
        self.reach = reach
        self._between = np.sqrt(self.scales[:-1] * self.scales[1:])
        # By number: cumulative frequencies, and the lowest value that they cover.
        self._tables: dict[int, tuple[list[int], int]] = {}

    def model(
        self, means: Array, scales: Array
    ) -> tuple[Array, list[int], tuple[list[list[int]], list[int], list[int]]]:
        """Return the integers below the means, each element's table, and the tables in use.

        Tables are given as cumulative frequencies, their lengths, and the lowest distance of each.
        """
        steps = np.floor(means.reshape(-1).astype(np.float64) * self.fractions + 0.5)
        floors, fractions = np.divmod(steps.astype(np.int64), self.fractions)
        levels = np.searchsorted(self._between, scales.reshape(-1).astype(np.float64))
        numbers, places = np.unique(levels * self.fractions + fractions, return_inverse=True)
        missing = [number for number in numbers.tolist() if number not in self._tables]
        if missing:
            self._make(missing)
        used = [self._tables[number] for number in numbers.tolist()]
        rows = [row for row, _ in used]
        offsets = [offset for _, offset in used]
        return floors, places.tolist(), (rows, [len(row) for row in rows], offsets)

    def _make(self, numbers: list[int]) -> None:
        levels, fractions = np.divmod(np.asarray(numbers), self.fractions)
        values = torch.arange(-self.reach, self.reach + 1, dtype=torch.float64)
        for number, level, fraction in zip(numbers, levels, fractions, strict=True):
            scale = float(self.scales[level])
            # Beyond nine standard deviations probabilities are 0 in 16 bits.
            near = min(self.reach, math.ceil(9 * scale) + 1)
            distances = values[self.reach - near : self.reach + near + 1]
            distances = (distances - float(fraction) / self.fractions).abs()
            masses = torch.special.ndtr((0.5 - distances) / scale)
            masses -= torch.special.ndtr((-0.5 - distances) / scale)
            kept = torch.nonzero(masses >= _RAREST).flatten()
            first, last = int(kept[0]), int(kept[-1])
            shares = masses[first : last + 1].tolist()
            escape = max(1.0 - math.fsum(shares), 0.0)
            frequencies = pmf_to_quantized_cdf([*shares, escape], _PRECISION)
            self._tables[number] = (frequencies, first - near)


class IntegerWriter:
    """Codes arrays one after the other into one string with a single coder state at its end.

    Args:
        tables: of the integers.
    """

    def __init__(self, tables: GaussianTables) -> None:
        self._tables = tables
        self._encoder = BufferedRansEncoder()
        self._count = 0

    def write(self, symbols: Array, means: Array, scales: Array) -> None:
        """Append integers; the three arrays have the same shape."""
        floors, places, tables = self._tables.model(means, scales)
        distances = symbols.reshape(-1).astype(np.int64) - floors
        self._encoder.encode_with_indexes(distances.tolist(), places, *tables)
        self._count += distances.size

    def finish(self) -> bytes:
        """Return the string."""
        if self._count < _FEWEST:
            # Nearly certain zeros cost nothing, and are never read.
            zeros = np.zeros(_FEWEST)
            self.write(zeros, zeros, zeros)
        string: bytes = self._encoder.flush()
        return string


class IntegerReader:
    """Reads the arrays of :class:`IntegerWriter`; one may decide means and scales of the next.

    Args:
        tables: as the writer's.
        data: the string.
    """

    def __init__(self, tables: GaussianTables, data: bytes) -> None:
        self._tables = tables
        self._decoder = RansDecoder()
        self._decoder.set_stream(data)

    def read(self, means: Array, scales: Array) -> Array:
        """Return the next integers, int32 of the shape of ``means``."""
        floors, places, tables = self._tables.model(means, scales)
        distances = self._decoder.decode_stream(places, *tables)
        symbols = np.asarray(distances, dtype=np.int64) + floors
        return symbols.astype(np.int32).reshape(means.shape)
