"""Distances between features of networks that are never trained.

Filters are buffers outside the state dict: no optimiser changes them and no checkpoint stores them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from icmbench.errors import UserError
from icmbench.networks.pretrained import load_published, published_weights

_SEED = 20220322  # of the random filters, the same in every run
_WIDTHS = (16, 32, 64)
_EPSILON = 1e-6


class FrozenConv(nn.Module):
    """A convolution with fixed filters, followed by ReLU.

    Args:
        weight: [C', C, k, k].
        bias: [C'], or None.
        stride: of the convolution.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations of features [B, C, h, w]."""
        padding = self.weight.shape[-1] // 2
        return functional.relu(functional.conv2d(x, self.weight, self.bias, self.stride, padding))


class VggDistance(nn.Module):
    """Mean squared differences of VGG16's relu2_2 and of its relu3_3, summed.

    The distance of LCIC+ (Chang et al., "Conceptual compression via deep structure and texture
    synthesis", IEEE TIP 2022), on torchvision's ImageNet weights.

    Raises:
        UserError: where the weights are not in torch's cache and cannot be downloaded.
    """

    mean: Tensor
    std: Tensor

    # Indices of the convolutions in torchvision's ``features``; each row follows a pooling layer.
    stages = ((0, 2), (5, 7), (10, 12, 14))

    def __init__(self) -> None:
        super().__init__()
        state = _vgg_weights()
        self.convolutions = nn.ModuleList(
            nn.Sequential(
                *(
                    FrozenConv(state[f"features.{n}.weight"], state[f"features.{n}.bias"])
                    for n in stage
                )
            )
            for stage in self.stages
        )
        # Of ImageNet.
        mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, images: Tensor, decoded: Tensor) -> Tensor:
        """Return the distance of two batches [B, 3, H, W] in [0, 1], a scalar."""
        x, y = ((batch - self.mean) / self.std for batch in (images, decoded))
        total = images.new_zeros(())
        for stage, convolutions in enumerate(self.convolutions):
            if stage:
                x, y = functional.max_pool2d(x, 2), functional.max_pool2d(y, 2)
            with torch.no_grad():
                x = convolutions(x)
            y = convolutions(y)
            if stage:
                total = total + (x.float() - y.float()).square().mean()
        return total


class RandomDistance(nn.Module):
    """A substitute for VGG16 without published weights (ours).

    A pyramid of three convolutions of stride 2 with fixed random orthogonal filters. As in LPIPS
    (Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR
    2018) features are normalised to unit length at each position; squared distances are averaged
    over positions and over scales.
    """

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(_SEED)
        layers = []
        before = 3
        for size, after in zip((5, 3, 3), _WIDTHS, strict=True):
            weight = torch.empty(after, before, size, size)
            nn.init.orthogonal_(weight, gain=2**0.5, generator=generator)
            layers.append(FrozenConv(weight, stride=2))
            before = after
        self.layers = nn.ModuleList(layers)

    def forward(self, images: Tensor, decoded: Tensor) -> Tensor:
        """Return the distance of two batches [B, 3, H, W] in [0, 1], a scalar."""
        x, y = 2 * images - 1, 2 * decoded - 1
        total = images.new_zeros(())
        for layer in self.layers:
            with torch.no_grad():
                x = layer(x)
            y = layer(y)
            total = total + (_unit(x) - _unit(y)).square().sum(1).mean()
        return total / len(self.layers)


def _unit(features: Tensor) -> Tensor:
    features = features.float()
    return features * torch.rsqrt(features.square().sum(1, keepdim=True) + _EPSILON)


def make_distance(name: str) -> nn.Module:
    """Return the distance for a value of the parameter ``perceptual``.

    Draws nothing from torch's global generator, so it can be called during a training run.

    Raises:
        UserError: for ``none``, or where published weights are not available.
    """
    if name == "none":
        raise UserError(
            "loss term 'perceptual' has a weight, but the codec's parameter 'perceptual' is none; "
            "choose from vgg16, random, or remove the term from the loss"
        )
    return VggDistance() if name == "vgg16" else RandomDistance()


def _vgg_weights() -> dict[str, Tensor]:
    from torchvision.models import VGG16_Weights

    otherwise = ", or set the codec's parameter 'perceptual' to random"
    with published_weights("vgg16", otherwise):
        return load_published(VGG16_Weights.IMAGENET1K_V1.url)
