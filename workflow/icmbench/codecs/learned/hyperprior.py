"""A factorised prior without side information, and hyperpriors, which send side information.

bmshj2018-factorized: Ballé, Laparra, Simoncelli, "End-to-end optimized image compression", ICLR
2017, and, with bmshj2018-hyperprior: Ballé, Minnen, Singh, Hwang, Johnston, "Variational image
compression with a scale hyperprior", ICLR 2018. mbt2018-mean: Minnen, Ballé, Toderici, "Joint
autoregressive and hierarchical priors for learned image compression", NeurIPS 2018, without the
autoregression.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from compressai.models.google import FactorizedPrior, MeanScaleHyperprior, ScaleHyperprior
from torch import Tensor, nn

from icmbench.codecs.learned.base import bits_by_position, bits_of, rounded
from icmbench.codecs.learned.compressai_codec import CompressaiCodec
from icmbench.networks.linear_start import Normalised, set_densities, set_last


class Factorized(CompressaiCodec):
    """Independent elements, with a learned density for each channel.

    .. code-block:: none

        x -> g_a -> y -> Q -> EB ->|bits|-> y_hat -> g_s -> x_hat

        EB = entropy bottleneck (learned density for each channel), Q = quantisation
    """

    multiple = latent_stride = 16
    strings = 1
    zoo = "bmshj2018-factorized"

    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network with N and M channels."""
        return FactorizedPrior(*sizes)

    def set_widths(self, widths: Tensor) -> None:
        """Let the densities begin with these standard deviations of the latent's channels."""
        set_densities(self.network.entropy_bottleneck, widths)

    def model_latent(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the quantised latent and its bits."""
        return self.model_factorised(y)

    def compress_latent(self, y: Tensor) -> tuple[list[bytes], Tensor, Tensor]:
        """Return the string, the decoded latent and the rate map."""
        bottleneck = self.network.entropy_bottleneck
        strings = bottleneck.compress(y)
        y_hat, likelihoods = bottleneck(y)
        return strings, y_hat, bits_by_position(likelihoods)

    def decompress_latent(self, strings: Sequence[bytes], rows: int, columns: int) -> Tensor:
        """Return the latent of the string."""
        bottleneck = self.network.entropy_bottleneck
        y_hat: Tensor = bottleneck.decompress(list(strings), (rows, columns))
        return y_hat


class HyperpriorCodec(CompressaiCodec):
    """What codecs with a hyper-latent z share.

    .. code-block:: none

        x -> g_a -> y ----------> Q -> GC ->|bits|-> GC -> y_hat -> g_s -> x_hat
                    |                  ^             ^
                    v                  +------+------+
                   h_a                        | scales (and means)
                    |                        h_s
                    v                         ^
                    z -> Q -> EB ->|bits|-> z_hat

        GC = Gaussian conditional, EB = entropy bottleneck, Q = quantisation
    """

    def add_linear_path(self) -> None:
        """Put linear transforms beside analysis and synthesis."""
        super().add_linear_path()
        self.network.h_a = Normalised(self.network.h_a, self.network_sizes[-1])

    def set_widths(self, widths: Tensor) -> None:
        """Let the entropy model begin with these standard deviations of the latent's channels."""
        self.network.h_a.widths.copy_(widths)
        self.set_gaussians(widths)

    @abstractmethod
    def set_gaussians(self, widths: Tensor) -> None:
        """Let what models the latent begin with Gaussians of these standard deviations."""

    def hyper_latent(self, y: Tensor) -> Tensor:
        """Return z of a latent."""
        z: Tensor = self.network.h_a(y)
        return z

    def compress_hyper_latent(self, z: Tensor) -> tuple[bytes, Tensor, Tensor]:
        """Return the string of z, its decoded value and its likelihoods."""
        bottleneck = self.network.entropy_bottleneck
        string = bottleneck.compress(z)[0]
        # y must be coded with exactly the value that the decoder will have.
        z_hat = bottleneck.decompress([string], z.shape[-2:])
        return string, z_hat, bottleneck(z)[1]

    def decompress_hyper_latent(self, string: bytes, rows: int, columns: int) -> Tensor:
        """Return the decoded z of a latent of ``rows`` x ``columns`` positions."""
        step = self.multiple // self.latent_stride
        shape = (rows // step, columns // step)
        z_hat: Tensor = self.network.entropy_bottleneck.decompress([string], shape)
        return z_hat


class Hyperprior(HyperpriorCodec):
    """Scale hyperprior: zero-mean Gaussians whose scales are sent as side information."""

    zoo = "bmshj2018-hyperprior"

    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network with N and M channels."""
        return ScaleHyperprior(*sizes)

    def set_gaussians(self, widths: Tensor) -> None:
        """Let the scales begin with these standard deviations."""
        set_last(self.network.h_s, widths)

    def hyper_latent(self, y: Tensor) -> Tensor:
        """Return z of a latent's magnitudes."""
        return super().hyper_latent(torch.abs(y))

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

    def compress_latent(self, y: Tensor) -> tuple[list[bytes], Tensor, Tensor]:
        """Return the strings of y and z, the decoded y and the rate map of both."""
        z_string, z_hat, z_likelihoods = self.compress_hyper_latent(self.hyper_latent(y))
        scales, means = self.statistics(z_hat)
        conditional = self.network.gaussian_conditional
        string = conditional.compress(y, conditional.build_indexes(scales), means=means)[0]
        y_hat, likelihoods = conditional(y, scales, means=means)
        return [string, z_string], y_hat, bits_by_position(likelihoods, z_likelihoods)

    def decompress_latent(self, strings: Sequence[bytes], rows: int, columns: int) -> Tensor:
        """Return y."""
        scales, means = self.statistics(self.decompress_hyper_latent(strings[1], rows, columns))
        conditional = self.network.gaussian_conditional
        indexes = conditional.build_indexes(scales)
        y_hat: Tensor = conditional.decompress([strings[0]], indexes, means=means)
        return y_hat


class MeanHyperprior(Hyperprior):
    """Mean and scale hyperprior."""

    zoo = "mbt2018-mean"

    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network with N and M channels."""
        return MeanScaleHyperprior(*sizes)

    def set_gaussians(self, widths: Tensor) -> None:
        """Let scales begin with these standard deviations, and means with zero."""
        set_last(self.network.h_s, torch.cat([widths, 0 * widths]))

    def hyper_latent(self, y: Tensor) -> Tensor:
        """Return z of a latent."""
        z: Tensor = self.network.h_a(y)
        return z

    def statistics(self, z_hat: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return scales and means of the latent's elements."""
        scales, means = self.network.h_s(z_hat).chunk(2, 1)
        return scales, means
