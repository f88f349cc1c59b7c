"""ELIC: uneven channel groups, each coded in two checkerboard passes.

He, Yang, Peng, Ma, Qin, Wang, "ELIC: efficient learned image compression with unevenly grouped
space-channel contextual adaptive coding", CVPR 2022. The network is CompressAI's, which publishes
no weights for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from compressai.models.sensetime import Elic2022Official
from torch import Tensor, nn

from icmbench.codecs.learned.base import bits_by_position, bits_of
from icmbench.codecs.learned.compressai_codec import CompressaiCodec
from icmbench.codecs.learned.entries import ElicParameters, LearnedParameters
from icmbench.networks.linear_start import Normalised, set_last

_PASSES = 2  # strings of each group
_HYPER_STRIDE = 4  # of the hyper-latent, in positions of the latent


class Elic(CompressaiCodec):
    """CompressAI's ELIC, whose quantisation in training is already the mixed one."""

    settings: ElicParameters

    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network with N channels, M latent channels and the groups."""
        n, m, *groups = sizes
        return Elic2022Official(N=n, M=m, groups=groups)

    def sizes(self, parameters: LearnedParameters) -> tuple[int, ...]:
        """Return N, M and the channels of each group."""
        assert isinstance(parameters, ElicParameters)
        return parameters.n, parameters.m, *parameters.groups

    def add_linear_path(self) -> None:
        """Put linear transforms beside analysis and synthesis."""
        super().add_linear_path()
        hyper = self.network.latent_codec.hyper
        hyper.h_a = Normalised(hyper.h_a, self.settings.m)

    def set_widths(self, widths: Tensor) -> None:
        """Let each group begin with these standard deviations, and with means of zero."""
        codec = self.network.latent_codec
        codec.hyper.h_a.widths.copy_(widths)
        for number, own in enumerate(widths.split(self.settings.groups)):
            group = codec.y.latent_codec[f"y{number}"]
            set_last(group.entropy_parameters, torch.cat([own, 0 * own]))

    @property
    def strings(self) -> int:  # type: ignore[override]
        """Two strings per group, then z's."""
        return _PASSES * len(self.settings.groups) + 1

    @property
    def network_sizes(self) -> tuple[int, ...]:
        """The channels of the transforms and of the latent."""
        return self.settings.n, self.settings.m

    def model_latent(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the quantised latent and the bits of y and z."""
        out = self.network.latent_codec(y)
        bits = torch.stack([bits_of(likelihoods) for likelihoods in out["likelihoods"].values()])
        return out["y_hat"], bits.sum()

    def compress_latent(self, y: Tensor) -> tuple[list[bytes], Tensor, Tensor]:
        """Return the strings of y's groups and z, the decoded y and the rate map."""
        out = self.network.latent_codec.compress(y)
        strings = [string[0] for string in out["strings"]]
        likelihoods = self.network.latent_codec(y)["likelihoods"]
        return strings, out["y_hat"], bits_by_position(likelihoods["y"], likelihoods["z"])

    def decompress_latent(self, strings: Sequence[bytes], rows: int, columns: int) -> Tensor:
        """Return y, group by group."""
        shape = {
            "y": [(group, rows, columns) for group in self.settings.groups],
            "hyper": (rows // _HYPER_STRIDE, columns // _HYPER_STRIDE),
        }
        out = self.network.latent_codec.decompress([[string] for string in strings], shape)
        y_hat: Tensor = out["y_hat"]
        return y_hat
