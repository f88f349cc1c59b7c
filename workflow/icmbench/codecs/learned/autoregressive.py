"""Hyperprior and autoregression: each latent element is also modelled from those decoded before it.

mbt2018: Minnen, Ballé, Toderici, NeurIPS 2018. cheng2020-anchor, cheng2020-attn: Cheng, Sun,
Takeuchi, Katto, "Learned image compression with discretized Gaussian mixture likelihoods and
attention modules", CVPR 2020, with CompressAI's single Gaussian. Decoding is sequential, one
position of the latent after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from compressai.ans import BufferedRansEncoder, RansDecoder
from compressai.layers import AttentionBlock, ResidualBlock, conv3x3
from compressai.models.google import JointAutoregressiveHierarchicalPriors
from compressai.models.waseda import Cheng2020Anchor, Cheng2020Attention
from torch import Tensor, nn
from torch.nn import functional

from icmbench.codecs.learned.base import bits_by_position, bits_of, rounded
from icmbench.codecs.learned.entries import PLACES, LearnedParameters
from icmbench.codecs.learned.fast_entropy import CodingTables
from icmbench.codecs.learned.hyperprior import HyperpriorCodec
from icmbench.networks.linear_start import set_last

_KERNEL = 5  # of the masked convolution over decoded elements
_BORDER = _KERNEL // 2
_BEFORE = _KERNEL * _BORDER + _BORDER  # positions in raster order before the centre


class Autoregressive(HyperpriorCodec):
    """Joint autoregressive and hierarchical prior, mbt2018."""

    zoo = "mbt2018"

    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network with N and M channels."""
        return JointAutoregressiveHierarchicalPriors(*sizes)

    def set_gaussians(self, widths: Tensor) -> None:
        """Let scales begin with these standard deviations, and means with zero."""
        set_last(self.network.entropy_parameters, torch.cat([widths, 0 * widths]))

    def _gaussians(self, y_hat: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Return scales and means of all elements, given decoded elements and side information."""
        net = self.network
        context = net.context_prediction(y_hat)
        scales, means = net.entropy_parameters(torch.cat((side, context), 1)).chunk(2, 1)
        return scales, means

    def model_latent(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the quantised latent and the bits of y and z.

        Coding subtracts the predicted means, which need the elements before. With ``quantisation:
        mixed`` the latent is rounded around a first guess of them, from plainly rounded elements;
        otherwise, as in CompressAI, quantisation here ignores them.
        """
        conditional = self.network.gaussian_conditional
        z_hat, z_bits = self.model_factorised(self.hyper_latent(y))
        side = self.network.h_s(z_hat)
        if self.settings.quantisation == "mixed":
            with torch.no_grad():
                guess = self._gaussians(rounded(y), side)[1]
            y_hat = rounded(y - guess) + guess
        else:
            y_hat = conditional.quantize(y, "noise" if self.training else "dequantize")
        scales, means = self._gaussians(y_hat, side)
        _, likelihoods = conditional(y, scales, means=means)
        return y_hat, bits_of(likelihoods) + z_bits

    def compress_latent(self, y: Tensor) -> tuple[list[bytes], Tensor, Tensor]:
        """Return the strings of y and z, the decoded y and the rate map of both."""
        z_string, z_hat, z_likelihoods = self.compress_hyper_latent(self.hyper_latent(y))
        side = self.network.h_s(z_hat)
        string, y_hat = SequentialCoder(self.network, side).encode(y)
        scales, means = self._gaussians(y_hat, side)
        likelihoods = self.network.gaussian_conditional(y_hat, scales, means=means)[1]
        return [string, z_string], y_hat, bits_by_position(likelihoods, z_likelihoods)

    def decompress_latent(self, strings: Sequence[bytes], rows: int, columns: int) -> Tensor:
        """Return y, one position after the other."""
        side = self.network.h_s(self.decompress_hyper_latent(strings[1], rows, columns))
        return SequentialCoder(self.network, side).decode(strings[0], self.network.M)


class ChengAnchor(Autoregressive):
    """Residual blocks and sub-pixel convolutions instead of GDN."""

    zoo = "cheng2020-anchor"
    network_class: ClassVar[type[Cheng2020Anchor]] = Cheng2020Anchor

    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network with N channels, and M of the latent if it is given."""
        n, m = sizes[0], sizes[-1]
        network = self.network_class(m)
        if m != n:
            narrow = self.network_class(n)
            network.g_a, network.g_s, network.N = narrow.g_a, narrow.g_s, n
            for transform, inner in ((network.g_a, -1), (network.g_s, 0)):
                widen(transform, inner, n, m)
        return network

    def sizes(self, parameters: LearnedParameters) -> tuple[int, ...]:
        """Return N and M."""
        return parameters.n, parameters.m or parameters.n


class ChengAttention(ChengAnchor):
    """The same with attention blocks."""

    zoo = "cheng2020-attn"
    network_class = Cheng2020Attention

    @staticmethod
    def rename_weight(name: str) -> str:
        """Return the name here of a parameter of :class:`ChengAnchor`."""
        parts = name.split(".")
        places = PLACES.get(parts[1], ()) if len(parts) > 2 else ()
        at = 3 if "own" in parts[2:3] else 2  # beside a linear path
        if places and parts[at].isdigit():
            parts[at] = str(places[int(parts[at])])
        return ".".join(parts)


def widen(transform: nn.Sequential, end: int, n: int, m: int) -> None:
    """Let the end of one of cheng2020's transforms that is at the latent have M channels, not N.

    Args:
        transform: g_a or g_s, changed in place.
        end: -1 for the last layer of g_a, 0 for the first of g_s.
        n, m: channels of the transforms and of the latent.
    """
    place = end % len(transform)
    if isinstance(transform[place], AttentionBlock):
        transform[place] = AttentionBlock(m)
        place += 1 if end == 0 else -1
    transform[place] = ResidualBlock(m, n) if end == 0 else conv3x3(n, m, stride=2)


class SequentialCoder:
    """Codes latents [1, M, h, w] of a joint autoregressive and hierarchical prior.

    It takes the same steps as CompressAI's loops, so strings are interchangeable, but is fast
    enough for whole data sets: what does not depend on decoded elements is computed once, and the
    range decoder is given only the tables it needs.

    Args:
        network: CompressAI's, with up-to-date coding tables.
        side: the hyper-decoder's output for each position, [1, 2 M, h, w].
    """

    def __init__(self, network: Any, side: Tensor) -> None:
        self.height, self.width = side.shape[-2:]
        context = network.context_prediction
        taps = context.weight.flatten(2)[:, :, :_BEFORE]
        self.context_weight, self.context_bias = taps.flatten(1), context.bias
        first, *layers = [layer for layer in network.entropy_parameters if hasattr(layer, "weight")]
        weight = first.weight[:, :, 0, 0]
        width = side.shape[1]
        self.first_weight = weight[:, width:].contiguous()
        # The side information's share of the first layer, for all positions at once.
        share = functional.conv2d(side, weight[:, :width, None, None], first.bias)
        self.share = share[0].permute(1, 2, 0).contiguous()
        self.layers = [(layer.weight[:, :, 0, 0].contiguous(), layer.bias) for layer in layers]
        conditional = network.gaussian_conditional
        # The lowest table is that of the bound on scales, and of all below it.
        self.scale_steps = conditional.scale_table[:-1].contiguous()
        self.tables: CodingTables = conditional.tables

    def _gaussians(self, padded: Tensor, row: int, column: int) -> tuple[list[int], Tensor]:
        """Return table indices and means of a position's M elements."""
        patch = padded[0, :, row : row + _KERNEL, column : column + _KERNEL]
        before = patch.reshape(patch.shape[0], -1)[:, :_BEFORE].reshape(-1)
        context = functional.linear(before, self.context_weight, self.context_bias)
        values = self.share[row, column] + functional.linear(context, self.first_weight)
        for weight, bias in self.layers:
            values = functional.linear(functional.leaky_relu(values), weight, bias)
        scales, means = values.chunk(2)
        indices = torch.bucketize(scales, self.scale_steps)
        return indices.tolist(), means

    def encode(self, y: Tensor) -> tuple[bytes, Tensor]:
        """Return the string of a latent and its decoded value."""
        padded = functional.pad(y, (_BORDER,) * 4)
        symbols: list[int] = []
        indices: list[int] = []
        for row, column in self._positions():
            index, means = self._gaussians(padded, row, column)
            element = padded[0, :, row + _BORDER, column + _BORDER]
            symbol = torch.round(element - means)
            padded[0, :, row + _BORDER, column + _BORDER] = symbol + means
            symbols += symbol.int().tolist()
            indices += index
        encoder = BufferedRansEncoder()
        places, tables = self.tables.used(indices)
        encoder.encode_with_indexes(symbols, places, *tables)
        return encoder.flush(), self._inner(padded)

    def decode(self, string: bytes, channels: int) -> Tensor:
        """Return the latent of a string."""
        size = (1, channels, self.height + 2 * _BORDER, self.width + 2 * _BORDER)
        padded = self.share.new_zeros(size)
        decoder = RansDecoder()
        decoder.set_stream(string)
        for row, column in self._positions():
            index, means = self._gaussians(padded, row, column)
            places, tables = self.tables.used(index)
            symbols = decoder.decode_stream(places, *tables)
            decoded = means.new_tensor(symbols) + means
            padded[0, :, row + _BORDER, column + _BORDER] = decoded
        return self._inner(padded)

    def _positions(self) -> list[tuple[int, int]]:
        return [(row, column) for row in range(self.height) for column in range(self.width)]

    def _inner(self, padded: Tensor) -> Tensor:
        inside = slice(_BORDER, -_BORDER)
        return padded[:, :, inside, inside].contiguous()
