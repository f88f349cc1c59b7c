"""A small codec of 8 x 8 blocks, trained in minutes (ours).

Its entropy model is the mean and scale hyperprior of Minnen, Ballé, Toderici, "Joint autoregressive
and hierarchical priors for learned image compression", NeurIPS 2018. Its transforms are the linear
ones of a linear start with their refinements, and nothing beside them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from compressai.models.google import MeanScaleHyperprior
from compressai.models.utils import conv, deconv
from torch import Tensor, nn

from icmbench.codecs.learned.entries import BlockParameters, LearnedParameters
from icmbench.codecs.learned.hyperprior import MeanHyperprior
from icmbench.networks.linear_start import LinearAnalysis, LinearSynthesis, Normalised

_BLOCK = 8  # pixels


class BlockHyperprior(MeanHyperprior):
    """Mean and scale hyperprior behind a transform of blocks.

    .. code-block:: none

        x -> 8 x 8 blocks, linear -> refine -> * gain -> y
        y_hat -> * gain -> refine -> linear, transposed -> deblock -> x_hat

        The latent has one position per block, the hyper-latent one per 4 x 4 blocks.
    """

    multiple = 32
    latent_stride = _BLOCK
    zoo = ""

    settings: BlockParameters

    def build(self, *sizes: int) -> nn.Module:
        """Return a network with N channels of the hyper-latent and M of the latent."""
        n, m = sizes
        network = MeanScaleHyperprior(n, m)
        channels = (3, m, _BLOCK, self.settings.hidden)
        network.g_a = LinearAnalysis(None, *channels)
        network.g_s = LinearSynthesis(None, *channels)
        network.h_a = nn.Sequential(
            conv(m, n, kernel_size=3, stride=1),
            nn.LeakyReLU(),
            conv(n, n),
            nn.LeakyReLU(),
            conv(n, n),
        )
        network.h_s = nn.Sequential(
            deconv(n, n),
            nn.LeakyReLU(),
            deconv(n, 2 * n),
            nn.LeakyReLU(),
            conv(2 * n, 2 * m, kernel_size=3, stride=1),
        )
        return network

    def add_linear_path(self) -> None:
        """Let the hyper-analysis read latents of equal widths; the transforms are linear paths."""
        self.register_buffer("started", torch.tensor(False))
        self.network.h_a = Normalised(self.network.h_a, self.settings.m)

    @classmethod
    def parameters_of(
        cls, parameters: LearnedParameters, state: Mapping[str, Tensor]
    ) -> LearnedParameters:
        """Return the parameters in the size of a state dict, as far as it is of such a network."""
        sizes = {
            key: len(state[name])
            for key, name in (
                ("n", "network.h_a.own.0.weight"),
                ("m", "network.g_a.linear.weight"),
                ("hidden", "network.g_a.refine.0.first.weight"),
            )
            if name in state
        }
        return parameters.model_copy(update=sizes)
