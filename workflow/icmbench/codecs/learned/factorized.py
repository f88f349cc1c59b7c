"""bmshj2018-factorized: a factorised prior, no side information.

Ballé, Minnen, Singh, Hwang, Johnston, ICLR 2018; Ballé, Laparra, Simoncelli, ICLR 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

from compressai.models.google import FactorizedPrior
from torch import Tensor, nn

from icmbench.codecs.learned.base import LearnedCodec, bits_of


class Factorized(LearnedCodec):
    """The latent's elements are independent, each channel with a learned density."""

    multiple = 16
    zoo = "bmshj2018-factorized"
    strings = 1

    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network with N and M channels."""
        return FactorizedPrior(*sizes)

    def model_latent(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the quantised latent and its bits."""
        return self.model_factorised(y)

    def compress_latent(self, y: Tensor) -> tuple[list[bytes], Tensor, float]:
        """Return the string, the decoded latent and the estimated bits."""
        bottleneck = self.network.entropy_bottleneck
        strings = bottleneck.compress(y)
        y_hat, likelihoods = bottleneck(y)
        return strings, y_hat, float(bits_of(likelihoods))

    def decompress_latent(self, strings: Sequence[bytes], height: int, width: int) -> Tensor:
        """Return the latent of the string."""
        return self.network.entropy_bottleneck.decompress(
            list(strings), (height // self.multiple, width // self.multiple)
        )
