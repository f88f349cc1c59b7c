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

from icmbench.codecs.learned.base import bits_by_position, rounded
from icmbench.codecs.learned.fast_entropy import CodingTables, CompactGaussian, SteadyBottleneck
from icmbench.networks.linear_start import set_densities, set_last

HYPER_STRIDE = 4
# Initial standard deviation of a linear start's hyper-latent. CompressAI's 3 costs more bits than
# a small image has at a low rate, until training has found that most are zero.
_HYPER_WIDTH = 0.3


class LayerPrior(nn.Module):
    """Models the latent [B, channels, h, w] of a layer; h and w are multiples of 4.

    Args:
        channels: of the layer.
        hyper: of the hyper-latent and inside the hyper-networks.
        context: channels of the decoded layer that this one is conditioned on; 0 for none.
        mixed: in training, decode rounded latents while the rate is that of noisy ones.

    Attributes:
        widths: the unit of each channel, a buffer; its networks read latents and state means and
            scales in these units. Ones, unless a linear start sets it.
        context_widths: the same of the context.
    """

    widths: Tensor
    context_widths: Tensor

    def __init__(self, channels: int, hyper: int, context: int = 0, mixed: bool = False) -> None:
        super().__init__()
        self.mixed = mixed
        self.register_buffer("widths", torch.ones(channels))
        self.register_buffer("context_widths", torch.ones(context))
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

    @torch.no_grad()
    def set_widths(self, widths: Tensor, context: Tensor | None = None) -> None:
        """Begin with zero-mean Gaussians of these standard deviations, of a context of such."""
        self.widths.copy_(widths)
        if context is not None:
            self.context_widths.copy_(context)
        ones = torch.ones_like(widths)
        set_last(self.entropy_parameters, torch.cat([ones, 0 * ones]))
        hyper = self.entropy_bottleneck.channels
        set_densities(self.entropy_bottleneck, torch.full((hyper,), _HYPER_WIDTH))

    @torch.no_grad()
    def rescale(self, factor: float) -> None:
        """Model latents, and contexts, that are ``factor`` times as large."""
        self.widths.mul_(factor)
        self.context_widths.mul_(factor)

    def forward(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the quantised latent, its bits, and each image's bits when rounded [B].

        Bits include those of the hyper-latent. Evaluation mode rounds, and the second are those of
        each image. In training mode the first are those of noisy latents, the second have no
        gradient; the latent is noisy as well, or rounded with a straight-through gradient
        (``mixed``).
        """
        z = self._hyper_latent(y)
        z_hat, z_likelihoods = self.entropy_bottleneck(z)
        rounds = self.training and self.mixed
        if rounds:
            medians = self._medians()
            z_hat = rounded(z - medians) + medians
        scales, means = self._statistics(z_hat, context)
        y_hat, likelihoods = self.gaussian_conditional(y, scales, means=means)
        if rounds:
            y_hat = rounded(y - means) + means
        bits = _bits_of_images(likelihoods) + _bits_of_images(z_likelihoods)
        coded = self._coded_bits(y, z, context) if self.training else bits.detach()
        return y_hat, bits.sum(), coded

    @torch.no_grad()
    def _coded_bits(self, y: Tensor, z: Tensor, context: Tensor | None) -> Tensor:
        z_hat, z_likelihoods = self.entropy_bottleneck(z, training=False)
        scales, means = self._statistics(z_hat, context)
        _, likelihoods = self.gaussian_conditional(y, scales, means=means, training=False)
        return _bits_of_images(likelihoods) + _bits_of_images(z_likelihoods)

    def compress(self, y: Tensor, context: Tensor | None = None) -> tuple[bytes, Tensor, Tensor]:
        """Return the string of a latent [1, channels, h, w], its decoded value, the rate map.

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

        z, medians = self._hyper_latent(y), self._medians()
        z_symbols = bottleneck.quantize(z, "symbols", medians)
        z_symbols = write(z_symbols, channel_indexes(z_symbols.shape, z), CodingTables(bottleneck))
        scales, means = self._statistics(z_symbols + medians, context)
        symbols = conditional.quantize(y, "symbols", means)
        symbols = write(symbols, conditional.build_indexes(scales), conditional.tables)
        likelihoods = conditional(y, scales, means=means)[1]
        rate_map = bits_by_position(likelihoods, bottleneck(z)[1])
        return encoder.flush(), symbols + means, rate_map

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

    def _hyper_latent(self, y: Tensor) -> Tensor:
        z: Tensor = self.h_a(y / self.widths[:, None, None])
        return z

    def _statistics(self, z_hat: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        features = self.h_s(z_hat)
        if context is not None:
            features = torch.cat([features, context / self.context_widths[:, None, None]], 1)
        scales, means = self.entropy_parameters(features).chunk(2, 1)
        widths = self.widths[:, None, None]
        return widths * scales, widths * means


def range_coded_bytes(bits: Tensor) -> Tensor:
    """Return the bytes of a range coder's string with some bits of information.

    CompressAI's coder has a state of 64 bits, of which the first 31 are used when it begins. It
    moves 32 bits at a time, and its whole state at the end.
    """
    return 4 * (1 + torch.ceil(bits / 32))


def _bits_of_images(likelihoods: Tensor) -> Tensor:
    """Return the information of each element of a batch in bits [B]."""
    return -torch.log2(likelihoods).flatten(1).sum(1)


def channel_indexes(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return the channel of each element [1, C, h, w], int32, which is the index of its table."""
    channels = torch.arange(shape[1], dtype=torch.int32, device=like.device)
    return channels.reshape(1, -1, 1, 1).expand(tuple(shape))


def as_symbols(values: list[int], like: Tensor) -> Tensor:
    """Return decoded numbers, row by row, in the shape and on the device of a tensor."""
    return torch.tensor(values, dtype=torch.int32).reshape(like.shape).to(like.device)
