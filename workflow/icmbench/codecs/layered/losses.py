"""Terms of the loss of zhang2022, without their weights.

The slides give, for image x, decoded x', latent y' and discriminator D:
L_EGP = E[-lambda log P(y') + d(x, x') - beta log D(x', y')] and
L_D = E[-log(1 - D(x', y'))] + E[-log D(x, y')], which is HiFiC's form (Mentzer et al., NeurIPS
2020, section 3.1). D is the sigmoid of the discriminator's logits.
"""

from __future__ import annotations

import torch
from pytorch_msssim import ssim
from torch import Tensor
from torch.nn import functional


def adversarial_loss(fake: Tensor) -> Tensor:
    """Return the mean of -log D(x', y') over the logits of decoded images."""
    return functional.softplus(-fake).mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean of -log(1 - D(x', y')) plus that of -log D(x, y').

    Args:
        real: logits of the original images.
        fake: logits of the decoded ones.
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
