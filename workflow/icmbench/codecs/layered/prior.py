"""The entropy model of one layer: a mean and scale hyperprior, optionally given another layer.

Minnen, Ballé, Toderici, "Joint autoregressive and hierarchical priors for learned image
compression", NeurIPS 2018, without the autoregression. The entropy models are CompressAI's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from compressai.ans import BufferedRansEncoder, RansDecoder
from compressai.models.utils import conv, deconv
from torch import Tensor, nn

from icmbench.codecs.learned.base import bits_of, rounded
from icmbench.codecs.learned.fast_entropy import CodingTables, CompactGaussian, SteadyBottleneck

HYPER_STRIDE = 4


class LayerPrior(nn.Module):
    """Models the latent [B, channels, h, w] of a layer; h and w are multiples of 4.

    Args:
        channels: of the layer.
        hyper: of the hyper-latent and inside the hyper-networks.
        context: channels of the decoded layer that this one is conditioned on; 0 for none.
        mixed: in training, decode rounded latents while the rate is that of noisy ones.
    """

    def __init__(self, channels: int, hyper: int, context: int = 0, mixed: bool = False) -> None:
        super().__init__()
        self.mixed = mixed
        self.h_a = nn.Sequential(
            conv(channels, hyper, kernel_size=3, stride=1),
            nn.ReLU(inplace=True),
            conv(hyper, hyper),
            nn.ReLU(inplace=True),
            conv(hyper, hyper),
        )
        self.h_s = nn.Sequential(
            deconv(hyper, hyper),
            nn.ReLU(inplace=True),
            deconv(hyper, hyper),
            nn.ReLU(inplace=True),
        )
        self.entropy_parameters = nn.Sequential(
            conv(hyper + context, 2 * hyper, kernel_size=3, stride=1),
            nn.ReLU(inplace=True),
            conv(2 * hyper, 2 * channels, kernel_size=3, stride=1),
        )
        self.entropy_bottleneck = SteadyBottleneck(hyper)
        self.gaussian_conditional = CompactGaussian(None)

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the quantised latent, its bits and its bits when rounded (scalars).

        Bits include those of the hyper-latent. Evaluation mode rounds, and both are equal. In
        training mode the first are those of noisy latents, the second have no gradient; the latent
        is noisy as well, or rounded with a straight-through gradient (``mixed``).
        """
        z = self.h_a(y)
        z_hat, z_likelihoods = self.entropy_bottleneck(z)
        rounds = self.training and self.mixed
        if rounds:
            medians = self._medians()
            z_hat = rounded(z - medians) + medians
        scales, means = self._statistics(z_hat, context)
        y_hat, likelihoods = self.gaussian_conditional(y, scales, means=means)
        if rounds:
            y_hat = rounded(y - means) + means
        bits = bits_of(likelihoods) + bits_of(z_likelihoods)
        return y_hat, bits, self._coded_bits(y, z, context) if self.training else bits.detach()

    @torch.no_grad()
    def _coded_bits(self, y: Tensor, z: Tensor, context: Tensor | None) -> Tensor:
        z_hat, z_likelihoods = self.entropy_bottleneck(z, training=False)
        scales, means = self._statistics(z_hat, context)
        _, likelihoods = self.gaussian_conditional(y, scales, means=means, training=False)
        return bits_of(likelihoods) + bits_of(z_likelihoods)

    def compress(self, y: Tensor, context: Tensor | None = None) -> tuple[bytes, Tensor, float]:
        """Return the string of a latent [1, channels, h, w], its decoded value, estimated bits.

        Hyper-latent and latent share one string: the range coder ends each string with about 8
        bytes, which are several percent of a small image's rate.
        """
        bottleneck, conditional = self.entropy_bottleneck, self.gaussian_conditional
        encoder = BufferedRansEncoder()

        def write(symbols: Tensor, indexes: Tensor, tables: CodingTables) -> Tensor:
            places, used = tables.used(indexes.flatten().tolist())
            values = symbols.flatten().tolist()
            encoder.encode_with_indexes(values, places, *used)
            # Through lists, so that the memory layout is the decoder's: convolutions round
            # differently in different layouts.
            return as_symbols(values, indexes)

        z, medians = self.h_a(y), self._medians()
        z_symbols = bottleneck.quantize(z, "symbols", medians)
        z_symbols = write(z_symbols, channel_indexes(z_symbols.shape, z), CodingTables(bottleneck))
        scales, means = self._statistics(z_symbols + medians, context)
        symbols = conditional.quantize(y, "symbols", means)
        symbols = write(symbols, conditional.build_indexes(scales), conditional.tables)
        bits = bits_of(conditional(y, scales, means=means)[1]) + bits_of(bottleneck(z)[1])
        return encoder.flush(), symbols + means, float(bits)

    def decompress(
        self, string: bytes, height: int, width: int, context: Tensor | None = None
    ) -> Tensor:
        """Return the latent [1, channels, height, width] of the string of :meth:`compress`."""
        bottleneck, conditional = self.entropy_bottleneck, self.gaussian_conditional
        decoder = RansDecoder()
        decoder.set_stream(string)

        def read(indexes: Tensor, tables: CodingTables) -> Tensor:
            places, used = tables.used(indexes.flatten().tolist())
            return as_symbols(decoder.decode_stream(places, *used), indexes)

        medians = self._medians()
        shape = (1, medians.shape[1], height // HYPER_STRIDE, width // HYPER_STRIDE)
        z_symbols = read(channel_indexes(shape, medians), CodingTables(bottleneck))
        scales, means = self._statistics(z_symbols + medians, context)
        return read(conditional.build_indexes(scales), conditional.tables) + means

    def predict(self, context: Tensor) -> Tensor:
        """Return the means that the context implies if nothing of this layer was decoded.

        The hyper-latent is set to its medians.
        """
        batch, _, height, width = context.shape
        shape = (batch, -1, height // HYPER_STRIDE, width // HYPER_STRIDE)
        return self._statistics(self._medians().expand(shape), context)[1]

    def _medians(self) -> Tensor:
        return self.entropy_bottleneck.quantiles[:, :, 1].detach().reshape(1, -1, 1, 1)

    def _statistics(self, z_hat: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        features = self.h_s(z_hat)
        if context is not None:
            features = torch.cat([features, context], 1)
        scales, means = self.entropy_parameters(features).chunk(2, 1)
        return scales, means


def channel_indexes(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return the channel of each element [1, C, h, w], int32, which is the index of its table."""
    channels = torch.arange(shape[1], dtype=torch.int32, device=like.device)
    return channels.reshape(1, -1, 1, 1).expand(tuple(shape))


def as_symbols(values: list[int], like: Tensor) -> Tensor:
    """Return decoded numbers, row by row, in the shape and on the device of a tensor."""
    return torch.tensor(values, dtype=torch.int32).reshape(like.shape).to(like.device)
