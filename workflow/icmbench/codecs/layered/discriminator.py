"""The adversary of the synthesis, conditioned on the decoded latent.

Mentzer et al., "High-fidelity generative image compression", NeurIPS 2020, section 3.2: a single
patch discriminator with spectral norm that sees the image beside the upsampled latent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

_CONDITION = 12  # channels that the latent is brought to
_STRIDE = 16  # of the latent


class Discriminator(nn.Module):
    """Says of every patch of an image how real it is, given the latent.

    Args:
        latent: channels of the latent.
        width: channels of the first layer.
    """

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.condition = nn.Sequential(
            spectral_norm(nn.Conv2d(latent, _CONDITION, 3, padding=1)),
            nn.LeakyReLU(0.2, inplace=True),
        )
        layers: list[nn.Module] = []
        before = 3 + _CONDITION
        for factor, stride in ((1, 2), (2, 2), (4, 2), (8, 1)):
            after = factor * width
            # 4 x 4; at stride 1 the patch grid loses a row and a column, which nothing depends on.
            layer = nn.Conv2d(before, after, 4, stride=stride, padding=1)
            layers += [spectral_norm(layer), nn.LeakyReLU(0.2, inplace=True)]
            before = after
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(before, 1, 1)))

    def forward(self, images: Tensor, latent: Tensor) -> Tensor:
        """Return logits [B, 1, h, w] of being real.

        Args:
            images: [B, 3, H, W] in [0, 1].
            latent: decoded latent [B, C, H/16, W/16].
        """
        condition = functional.interpolate(self.condition(latent), scale_factor=float(_STRIDE))
        logits: Tensor = self.layers(torch.cat([2 * images - 1, condition], 1))
        return logits.float()


@contextmanager
def fixed(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through ``module`` to its input, not to its parameters."""
    wanted = [(p, p.requires_grad) for p in module.parameters()]
    try:
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, before in wanted:
            parameter.requires_grad_(before)
