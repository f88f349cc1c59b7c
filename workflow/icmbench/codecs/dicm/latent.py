"""Entropy model of the transmitted latent: hyper-latent, checkerboard context, Gaussians."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from compressai.ops import LowerBound
from torch import Tensor, nn

from icmbench.codecs.dicm.entries import DicmParameters
from icmbench.codecs.dicm.entroformer import (
    ContextModel,
    HyperDecoder,
    HyperEncoder,
    checkerboard,
    random_mask,
)
from icmbench.codecs.dicm.gaussian import (
    MIN_LOG_SCALE,
    Array,
    ChannelGaussian,
    GaussianTables,
    IntegerLikelihood,
    IntegerReader,
    IntegerWriter,
    log_spaced,
    quantise,
)
from icmbench.codecs.learned.base import bits_by_position, bits_of
from icmbench.networks.linear_start import Normalised, set_last

# With scales below 0.02 there is nothing to code unless a mean is halfway between integers; scales
# above 256 exceed the range of the latent.
_SCALES = log_spaced(0.02, 256.0, 96)
_FRACTIONS = 64
_HYPER_STRIDE = 4  # of the hyper-latent, in elements of the latent


class LatentModel(nn.Module):
    """Entropy model of a latent [B, M, h, w] of integers in [-128, 127].

    .. code-block:: none

        y -> hyper-encoder -> z -> Q -> (one Gaussian per channel) ->|bits|-> z_hat
        |                                                                      |
        |                    side information <- hyper-decoder <---------------+
        v                           |
        Q -> y_hat, odd positions:  mixer(side, 0)       -> Gaussians ->|bits|
             y_hat, even positions: mixer(side, context) -> Gaussians ->|bits|

        context: transformer over the odd positions, see ``entroformer.ContextModel``

    Args:
        parameters: sizes, and whether there is a context model.
    """

    def __init__(self, parameters: DicmParameters) -> None:
        super().__init__()
        latent, channels = parameters.widths[-1], parameters.hyper_dim
        heads, top_k = parameters.heads, parameters.top_k
        depths = parameters.hyper_depths
        self.channels = latent
        self.hyper_encoder = HyperEncoder(latent, channels, heads, depths, top_k)
        self.hyper_decoder = HyperDecoder(latent, channels, heads, depths, top_k)
        self.context = (
            ContextModel(latent, channels, heads, parameters.context_depth, top_k)
            if parameters.context
            else None
        )
        known = 2 * channels if self.context is not None else channels
        self.mixer = nn.Sequential(
            nn.Conv2d(known, 4 * channels, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * channels, 2 * latent, 1),
        )
        self.hyper_prior = ChannelGaussian(latent)
        if parameters.linear_start:
            self.hyper_encoder.embed = Normalised(self.hyper_encoder.embed, latent)
            if self.context is not None:
                self.context.embed = Normalised(self.context.embed, latent)
        self.likelihood = IntegerLikelihood()
        self.least_log_scale = LowerBound(MIN_LOG_SCALE)
        self.tables = GaussianTables(_SCALES, _FRACTIONS)

    def set_widths(self, widths: Tensor) -> None:
        """Let the Gaussians begin with these standard deviations of the latent's channels [M]."""
        set_last(self.mixer, torch.cat((widths.log(), torch.zeros_like(widths))))
        for module in self.modules():
            if isinstance(module, Normalised):
                module.widths.copy_(widths)

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the quantised latent (with noise in training), and the bits of y and z, a scalar.

        Args:
            y: the latent [B, M, h, w], float32; h and w are multiples of 4.
        """
        z_hat = quantise(self.hyper_encoder(y), self.training)
        side = self.hyper_decoder(z_hat)
        y_hat = quantise(y, self.training)
        visible = None
        if self.context is not None:
            visible = random_mask(y) if self.training else checkerboard(y)
            visible = visible.expand(y.shape[0], -1, -1, -1)
        means, scales = self._gaussians(side, y_hat, visible)
        bits = bits_of(self.likelihood(y_hat, means, scales))
        return y_hat, bits + bits_of(self.likelihood(z_hat, *self.hyper_prior(z_hat)))

    def _gaussians(
        self, side: Tensor, y_hat: Tensor, visible: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return means and scales of all elements, those at visible positions from ``side`` only.

        If ``visible`` is None, no position is visible, and none has context.
        """
        known = side
        if self.context is not None:
            context = torch.zeros_like(side) if visible is None else self.context(y_hat, visible)
            known = torch.cat((side, context), 1)
        log_scales, means = self.mixer(known).chunk(2, 1)
        return means, self.least_log_scale(log_scales).exp()

    # --- coding -------------------------------------------------------------------------------

    def encode(self, y: Tensor) -> tuple[bytes, Array, Tensor]:
        """Code a latent [1, M, h, w].

        Returns:
            One string of z and of each pass over y; the decoded latent, int8 [M, h, w]; the rate
            map, [h, w].
        """
        z = _symbols(quantise(self.hyper_encoder(y), False))
        symbols = _symbols(quantise(y, False))
        # From here on as in the decoder, from the same numbers.
        z_hat = self._values(z)
        means, scales = self.hyper_prior(z_hat)
        writer = IntegerWriter(self.tables)
        writer.write(z, _array(means), _array(scales))
        z_likelihoods = self.likelihood(z_hat, means, scales)
        side, y_hat = self.hyper_decoder(z_hat), self._values(symbols)
        likelihoods = torch.empty_like(y_hat)
        for visible, now in self._passes(y_hat):
            means, scales = self._gaussians(side, y_hat, visible)
            chosen = now.expand_as(y_hat)
            own, means, scales = y_hat[chosen], means[chosen], scales[chosen]
            writer.write(_symbols(own), _array(means), _array(scales))
            likelihoods[chosen] = self.likelihood(own, means, scales)
        rate_map = bits_by_position(likelihoods, z_likelihoods)
        return writer.finish(), symbols[0].astype(np.int8), rate_map

    def decode(self, data: bytes, height: int, width: int) -> Array:
        """Return the latent int8 [M, height, width] of its string."""
        device = self.hyper_prior.means.device
        shape = (1, self.channels, height // _HYPER_STRIDE, width // _HYPER_STRIDE)
        means, scales = self.hyper_prior(torch.empty(shape, device=device))
        reader = IntegerReader(self.tables, data)
        z_hat = self._values(reader.read(_array(means), _array(scales)))
        side = self.hyper_decoder(z_hat)
        y_hat = torch.zeros((1, self.channels, height, width), device=device)
        for visible, now in self._passes(y_hat):
            means, scales = self._gaussians(side, y_hat, visible)
            chosen = now.expand_as(y_hat)
            symbols = reader.read(_array(means[chosen]), _array(scales[chosen]))
            y_hat[chosen] = self._values(symbols)
        return _symbols(y_hat)[0].astype(np.int8)

    def _passes(self, y_hat: Tensor) -> Iterator[tuple[Tensor | None, Tensor]]:
        """Yield the positions visible before each pass and those it codes, bool [1, 1, h, w]."""
        first = checkerboard(y_hat)
        if self.context is None:
            yield None, torch.ones_like(first)
        else:
            yield None, first
            yield first, ~first

    def _values(self, symbols: Array) -> Tensor:
        return torch.from_numpy(symbols).to(self.hyper_prior.means.device, torch.float32)


def _symbols(values: Tensor) -> Array:
    return values.to(torch.int32).contiguous().cpu().numpy()


def _array(values: Tensor) -> Array:
    return values.contiguous().cpu().numpy()
