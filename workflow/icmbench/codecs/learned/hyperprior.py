"""Hyperpriors: side information gives each latent element a scale, or a mean and a scale.

bmshj2018-hyperprior: Ballé, Minnen, Singh, Hwang, Johnston, "Variational image compression with a
scale hyperprior", ICLR 2018. mbt2018-mean: Minnen, Ballé, Toderici, "Joint autoregressive and
hierarchical priors for learned image compression", NeurIPS 2018, without the autoregression.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from compressai.models.google import MeanScaleHyperprior, ScaleHyperprior
from torch import Tensor, nn

from icmbench.codecs.learned.base import LearnedCodec, bits_of, rounded


class HyperpriorCodec(LearnedCodec):
    """What codecs with a hyper-latent z share."""

    def hyper_latent(self, y: Tensor) -> Tensor:
        """Return z of a latent."""
        return self.network.h_a(y)

    def compress_hyper_latent(self, z: Tensor) -> tuple[bytes, Tensor, float]:
        """Return the string of z, its decoded value and its estimated bits."""
        bottleneck = self.network.entropy_bottleneck
        string = bottleneck.compress(z)[0]
        # What the decoder will have, and nothing else, decides how y is coded.
        z_hat = bottleneck.decompress([string], z.shape[-2:])
        return string, z_hat, float(bits_of(bottleneck(z)[1]))

    def decompress_hyper_latent(self, string: bytes, height: int, width: int) -> Tensor:
        """Return the decoded z of an image padded to ``height`` x ``width`` pixels."""
        shape = (height // self.multiple, width // self.multiple)
        return self.network.entropy_bottleneck.decompress([string], shape)


class Hyperprior(HyperpriorCodec):
    """Scale hyperprior: zero-mean Gaussians whose scales are sent as side information."""

    zoo = "bmshj2018-hyperprior"

    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network with N and M channels."""
        return ScaleHyperprior(*sizes)

    def hyper_latent(self, y: Tensor) -> Tensor:
        """Return z of a latent's magnitudes."""
        return self.network.h_a(torch.abs(y))

    def statistics(self, z_hat: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return scales and means of the latent's elements; no means are zeros."""
        return self.network.h_s(z_hat), None

    def model_latent(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the quantised latent and the bits of y and z."""
        z_hat, z_bits = self.model_factorised(self.hyper_latent(y))
        scales, means = self.statistics(z_hat)
        y_hat, likelihoods = self.network.gaussian_conditional(y, scales, means=means)
        if self.rounds_while_training:
            y_hat = rounded(y) if means is None else rounded(y - means) + means
        return y_hat, bits_of(likelihoods) + z_bits

    def compress_latent(self, y: Tensor) -> tuple[list[bytes], Tensor, float]:
        """Return the strings of y and z, the decoded y and the estimated bits of both."""
        z_string, z_hat, z_bits = self.compress_hyper_latent(self.hyper_latent(y))
        scales, means = self.statistics(z_hat)
        conditional = self.network.gaussian_conditional
        string = conditional.compress(y, conditional.build_indexes(scales), means=means)[0]
        y_hat, likelihoods = conditional(y, scales, means=means)
        return [string, z_string], y_hat, float(bits_of(likelihoods)) + z_bits

    def decompress_latent(self, strings: Sequence[bytes], height: int, width: int) -> Tensor:
        """Return y."""
        scales, means = self.statistics(self.decompress_hyper_latent(strings[1], height, width))
        conditional = self.network.gaussian_conditional
        return conditional.decompress([strings[0]], conditional.build_indexes(scales), means=means)


class MeanHyperprior(Hyperprior):
    """Mean and scale hyperprior."""

    zoo = "mbt2018-mean"

    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network with N and M channels."""
        return MeanScaleHyperprior(*sizes)

    def hyper_latent(self, y: Tensor) -> Tensor:
        """Return z of a latent."""
        return self.network.h_a(y)

    def statistics(self, z_hat: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return scales and means of the latent's elements."""
        scales, means = self.network.h_s(z_hat).chunk(2, 1)
        return scales, means
