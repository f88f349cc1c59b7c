"""CompressAI's entropy models, faster: equal numbers, equal strings.

CompressAI hands the range coder its 64 tables, padded to thousands of entries each, as new lists at
every call: several milliseconds, more than a small image's transforms. Here a call passes the
tables its symbols need, at their own length. The strings are the same.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import torch
from compressai.ans import RansDecoder, RansEncoder
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from torch import Tensor, nn

Tables = tuple[list[list[int]], list[int], list[int]]


class CodingTables:
    """The tables of a Gaussian model as lists, made once.

    Args:
        conditional: whose tables are up to date.
    """

    def __init__(self, conditional: Any) -> None:
        self.lengths: list[int] = conditional.cdf_length.tolist()
        rows = zip(conditional.quantized_cdf.tolist(), self.lengths, strict=True)
        self.rows: list[list[int]] = [row[:length] for row, length in rows]
        self.offsets: list[int] = conditional.offset.tolist()

    def used(self, indexes: list[int]) -> tuple[list[int], Tables]:
        """Return indexes into the tables that are used, and these."""
        numbers = sorted(set(indexes))
        place = {number: position for position, number in enumerate(numbers)}
        tables = tuple(
            [table[number] for number in numbers]
            for table in (self.rows, self.lengths, self.offsets)
        )
        return [place[index] for index in indexes], tables  # type: ignore[return-value]


class CompactGaussian(GaussianConditional):
    """A GaussianConditional that codes with :class:`CodingTables`."""

    _tables: CodingTables | None = None

    @staticmethod
    def _standardized_quantile(quantile: float) -> float:
        """Return SciPy's norm.ppf(quantile) without importing scipy.stats, half a CPU second."""
        return NormalDist().inv_cdf(quantile)

    def update_scale_table(self, *arguments: Any, **settings: Any) -> bool:
        """Make the tables anew; the lists follow when they are needed."""
        self._tables = None
        updated: bool = super().update_scale_table(*arguments, **settings)
        return updated

    @property
    def tables(self) -> CodingTables:
        """The tables as lists."""
        if self._tables is None:
            self._tables = CodingTables(self)
        return self._tables

    def compress(self, inputs: Tensor, indexes: Tensor, means: Tensor | None = None) -> list[bytes]:
        """Return the string of each element of a batch."""
        symbols = self.quantize(inputs, "symbols", means)
        strings = []
        for own, index in zip(symbols, indexes, strict=True):
            places, tables = self.tables.used(index.reshape(-1).int().tolist())
            values = own.reshape(-1).int().tolist()
            strings.append(RansEncoder().encode_with_indexes(values, places, *tables))
        return strings

    def decompress(
        self,
        strings: list[bytes],
        indexes: Tensor,
        dtype: torch.dtype = torch.float,
        means: Tensor | None = None,
    ) -> Tensor:
        """Return the batch of the strings."""
        outputs = torch.empty(indexes.shape, dtype=torch.int32)
        for place, (string, index) in enumerate(zip(strings, indexes, strict=True)):
            places, tables = self.tables.used(index.reshape(-1).int().tolist())
            values = RansDecoder().decode_with_indexes(string, places, *tables)
            outputs[place] = torch.tensor(values, dtype=torch.int32).reshape(index.shape)
        return self.dequantize(outputs.to(indexes.device), means, dtype)


class SteadyBottleneck(EntropyBottleneck):
    """An EntropyBottleneck whose forward pass never waits for a GPU; equal numbers.

    CompressAI's reads the order of dimensions back from the device, 13 times in each call.
    """

    def forward(self, x: Tensor, training: bool | None = None) -> tuple[Tensor, Tensor]:
        """Return quantised values and their likelihoods, both like ``x`` [B, C, ...]."""
        order = (1, 0, *range(2, x.ndim))
        channels_first = x.permute(order).contiguous()
        values = channels_first.reshape(x.shape[1], 1, -1)
        mode = "noise" if (self.training if training is None else training) else "dequantize"
        outputs = self.quantize(values, mode, self._get_medians())
        likelihood, _, _ = self._likelihood(outputs)
        if self.use_likelihood_bound:
            likelihood = self.likelihood_lower_bound(likelihood)

        def back(flat: Tensor) -> Tensor:
            return flat.reshape(channels_first.shape).permute(order).contiguous()

        return back(outputs), back(likelihood)


_OURS: dict[type[nn.Module], type[nn.Module]] = {
    GaussianConditional: CompactGaussian,
    EntropyBottleneck: SteadyBottleneck,
}


def use_own_entropy_models(network: nn.Module) -> None:
    """Let the entropy models of CompressAI's network compute in our way; equal numbers."""
    for module in network.modules():
        if type(module) in _OURS:
            # Only the methods differ: parameters, buffers and state stay where they are.
            module.__class__ = _OURS[type(module)]
