"""CompressAI's entropy models, faster: equal numbers, equal strings.

CompressAI passes its 64 tables to the range coder as new lists at every call, each padded to
thousands of entries. This takes several milliseconds, more than the transforms of a small image.
Here a call passes only the tables that its symbols need, at their own length.
"""

from __future__ import annotations

from typing import Any

import torch
from compressai.ans import RansDecoder, RansEncoder
from compressai.entropy_models import EntropyBottleneck, EntropyBottleneckVbr, GaussianConditional
from torch import Tensor, nn

from icmbench.networks.replace import replace_modules

Tables = tuple[list[list[int]], list[int], list[int]]


class CodingTables:
    """The tables of an entropy model as lists, made once.

    Args:
        model: with up-to-date tables.
    """

    def __init__(self, model: Any) -> None:
        self.lengths: list[int] = model.cdf_length.tolist()
        rows = zip(model.quantized_cdf.tolist(), self.lengths, strict=True)
        self.rows: list[list[int]] = [row[:length] for row, length in rows]
        self.offsets: list[int] = model.offset.tolist()

    def used(self, indexes: list[int]) -> tuple[list[int], Tables]:
        """Return the tables that occur in ``indexes``, and indexes into these."""
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

    def update_scale_table(self, *arguments: Any, **settings: Any) -> bool:
        """Update the tables; the lists are made when they are needed."""
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
    """An EntropyBottleneck whose forward pass never waits for a GPU.

    CompressAI's reads the order of dimensions from the device, 13 times in each call.
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


class VariableBottleneck(EntropyBottleneckVbr):
    """An EntropyBottleneckVbr whose likelihoods are those of its quantisation step.

    CompressAI's forward pass (1.2.8) hands the step over in place of ``stop_gradient``: it takes
    the likelihoods of a step of 1, and trains no density. Coding tables are right there.
    """

    def forward(self, x: Tensor, qs: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return values quantised with a step, and their likelihoods, both like ``x`` [B, C, h, w].

        Args:
            x: the values.
            qs: the step, a scalar; None is a step of 1.
        """
        channels_first = x.transpose(0, 1).contiguous()
        values = channels_first.reshape(x.shape[1], 1, -1)
        step = torch.ones((), device=x.device) if qs is None else qs
        mode = "noise" if self.training else "dequantize"
        outputs = self.quantize_variable(values, mode, self._get_medians(), step)
        likelihood, _, _ = self._likelihood_variable(outputs, qs=step)
        if self.use_likelihood_bound:
            likelihood = self.likelihood_lower_bound(likelihood)

        def back(flat: Tensor) -> Tensor:
            return flat.reshape(channels_first.shape).transpose(0, 1).contiguous()

        return back(outputs), back(likelihood)


_FAST: dict[type[nn.Module], type[nn.Module]] = {
    GaussianConditional: CompactGaussian,
    EntropyBottleneck: SteadyBottleneck,
    EntropyBottleneckVbr: VariableBottleneck,
}


def use_fast_entropy_models(network: nn.Module) -> None:
    """Replace the entropy models of one of CompressAI's networks, in place."""
    replace_modules(network, lambda module: _FAST.get(type(module)))
