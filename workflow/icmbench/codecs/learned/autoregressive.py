"""Hyperprior and autoregression: each latent element also sees those decoded before it.

mbt2018: Minnen, Ballé, Toderici, NeurIPS 2018. cheng2020-anchor, cheng2020-attn: Cheng, Sun,
Takeuchi, Katto, "Learned image compression with discretized Gaussian mixture likelihoods and
attention modules", CVPR 2020, with CompressAI's single Gaussian. Decoding is sequential, one of the
latent's positions after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from compressai.models.google import JointAutoregressiveHierarchicalPriors
from compressai.models.waseda import Cheng2020Anchor, Cheng2020Attention
from torch import Tensor, nn

from icmbench.codecs import LearnedParameters
from icmbench.codecs.learned.base import bits_of, rounded
from icmbench.codecs.learned.hyperprior import HyperpriorCodec
from icmbench.codecs.learned.sequential import SequentialCoder


class Autoregressive(HyperpriorCodec):
    """Joint autoregressive and hierarchical prior, mbt2018."""

    zoo = "mbt2018"

    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network with N and M channels."""
        return JointAutoregressiveHierarchicalPriors(*sizes)

    def _gaussians(self, y_hat: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Return scales and means given decoded elements and side information, all at once."""
        net = self.network
        context = net.context_prediction(y_hat)
        scales, means = net.entropy_parameters(torch.cat((side, context), 1)).chunk(2, 1)
        return scales, means

    def model_latent(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the quantised latent and the bits of y and z.

        As in CompressAI, quantisation here ignores the predicted means, which need the elements
        before; coding subtracts them.
        """
        conditional = self.network.gaussian_conditional
        z_hat, z_bits = self.model_factorised(self.hyper_latent(y))
        if self.rounds_while_training:
            y_hat = rounded(y)
        else:
            y_hat = conditional.quantize(y, "noise" if self.training else "dequantize")
        scales, means = self._gaussians(y_hat, self.network.h_s(z_hat))
        _, likelihoods = conditional(y, scales, means=means)
        return y_hat, bits_of(likelihoods) + z_bits

    def compress_latent(self, y: Tensor) -> tuple[list[bytes], Tensor, float]:
        """Return the strings of y and z, the decoded y and the estimated bits of both."""
        z_string, z_hat, z_bits = self.compress_hyper_latent(self.hyper_latent(y))
        side = self.network.h_s(z_hat)
        string, y_hat = SequentialCoder(self.network, side).encode(y)
        scales, means = self._gaussians(y_hat, side)
        likelihoods = self.network.gaussian_conditional(y_hat, scales, means=means)[1]
        return [string, z_string], y_hat, float(bits_of(likelihoods)) + z_bits

    def decompress_latent(self, strings: Sequence[bytes], height: int, width: int) -> Tensor:
        """Return y, one position after the other."""
        side = self.network.h_s(self.decompress_hyper_latent(strings[1], height, width))
        return SequentialCoder(self.network, side).decode(strings[0], self.network.M)


class ChengAnchor(Autoregressive):
    """Residual blocks and sub-pixel convolutions in the place of GDN."""

    zoo = "cheng2020-anchor"

    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network with N channels."""
        return Cheng2020Anchor(*sizes)

    def sizes(self, parameters: LearnedParameters) -> tuple[int, ...]:
        """Return N, which is also M."""
        return (parameters.n,)


# Where the layers of ChengAnchor's transforms stand between the attention blocks.
_PLACES = {"g_a": (0, 1, 2, 4, 5, 6, 7), "g_s": (1, 2, 3, 4, 6, 7, 8, 9)}


class ChengAttention(ChengAnchor):
    """The same with attention blocks."""

    zoo = "cheng2020-attn"

    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network with N channels."""
        return Cheng2020Attention(*sizes)

    @staticmethod
    def rename_weight(name: str) -> str:
        """Return what a parameter of :class:`ChengAnchor` is called here."""
        parts = name.split(".")
        places = _PLACES.get(parts[1], ()) if len(parts) > 2 else ()
        if places:
            parts[2] = str(places[int(parts[2])])
        return ".".join(parts)
