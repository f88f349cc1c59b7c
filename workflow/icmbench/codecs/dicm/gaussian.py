"""Gaussians over the integers of [-128, 127]: quantisation and information."""

from __future__ import annotations

import torch
from compressai.ops import LowerBound
from torch import Tensor, nn

LOWEST, HIGHEST = -128, 127
MIN_LOG_SCALE = -7.0
_MIN_LIKELIHOOD = 1e-12


def quantise(values: Tensor, training: bool) -> Tensor:
    """Return values with additive uniform noise in training, else rounded; in [-128, 127]."""
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
    """A Gaussian for each channel, learned: the prior of the hyper-latent.

    Args:
        channels: how many; each begins as a standard normal distribution (ours).
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
