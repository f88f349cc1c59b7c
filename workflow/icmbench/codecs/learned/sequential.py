"""Coding a latent one position after the other, each modelled from those decoded before it.

The same steps as CompressAI's loops, so the strings are interchangeable, but fast enough for whole
data sets: what does not depend on decoded elements is computed once, and the range decoder is given
only the tables it needs.
"""

from __future__ import annotations

from typing import Any

import torch
from compressai.ans import BufferedRansEncoder, RansDecoder
from torch import Tensor
from torch.nn import functional

from icmbench.codecs.learned.fast_entropy import CodingTables

_KERNEL = 5  # of the masked convolution over decoded elements
_BORDER = _KERNEL // 2
_BEFORE = _KERNEL * _BORDER + _BORDER  # positions in raster order before the centre


class SequentialCoder:
    """Codes latents [1, M, h, w] of a joint autoregressive and hierarchical prior.

    Args:
        network: CompressAI's, its coding tables being up to date.
        side: what the hyper-decoder says of each position, [1, 2 M, h, w].
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
        self.scale_bound = conditional.lower_bound_scale
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
        indices = torch.bucketize(self.scale_bound(scales), self.scale_steps)
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
