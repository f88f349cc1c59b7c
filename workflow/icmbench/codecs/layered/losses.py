"""The discriminator of the synthesis, and the terms of the loss without their weights.

The slides of zhang2022 give, for image x, decoded x', latent y' and discriminator D:
L_EGP = E[-lambda log P(y') + d(x, x') - beta log D(x', y')] and
L_D = E[-log(1 - D(x', y'))] + E[-log D(x, y')]. This is the form of HiFiC: Mentzer et al.,
"High-fidelity generative image compression", NeurIPS 2020, section 3.1. D is the sigmoid of the
discriminator's logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pytorch_msssim import ssim
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

_CONDITION = 12  # channels of the latent after its own convolution
_STRIDE = 16  # pixels per position of the latent


class Discriminator(nn.Module):
    """Rates how real each patch of an image is, given the latent.

    HiFiC, section 3.2: a single patch discriminator with spectral norm; its input is the image and
    the upsampled latent.

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
            # 4 x 4; at stride 1 the patch grid loses a row and a column, which does not matter.
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
    """Let gradients pass through ``module`` to its input, but not to its parameters."""
    wanted = [(p, p.requires_grad) for p in module.parameters()]
    try:
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, before in wanted:
            parameter.requires_grad_(before)


def adversarial_loss(fake: Tensor) -> Tensor:
    """Return the mean of -log D(x', y') over the logits of decoded images."""
    return functional.softplus(-fake).mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean of -log(1 - D(x', y')) plus that of -log D(x, y').

    Args:
        real: logits of the original images.
        fake: logits of the decoded images.
    """
    return functional.softplus(fake).mean() + functional.softplus(-real).mean()


def ssim_loss(images: Tensor, decoded: Tensor) -> Tensor:
    """Return 1 - SSIM, averaged over a batch [B, 3, H, W] in [0, 1]; sides of 11 pixels or more.

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment", IEEE TIP 2004, by pytorch-msssim.
    """
    # Its variances are small differences of large means, too small for bfloat16.
    with torch.autocast(images.device.type, enabled=False):
        value: Tensor = ssim(decoded.float(), images.float(), data_range=1.0)
    return 1 - value
