"""Networks of zhang2022's analysis: stems for latents and images, trunks, heads.

The paper gives parameter counts only (26.9 million for one task, 54.8 for two). As in cResNet
(Torfason et al., ICLR 2018), latents enter a ResNet at the stage of their stride. The counts
suggest a separate trunk for each task.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import ResNet50_Weights
from torchvision.models.resnet import Bottleneck
from torchvision.models.segmentation.deeplabv3 import ASPP

from icmbench.networks.backbone import SplitResNet
from icmbench.networks.pretrained import load_published
from icmbench.tasks.entries import FaceParameters

_RESNET50 = (3, 4, 6, 3)
_SMALL = (1, 1, 1, 1)


def _layout(parameters: FaceParameters) -> tuple[tuple[int, int, int, int], int]:
    """Return blocks per stage and width."""
    if parameters.backbone == "resnet50":
        return _RESNET50, 64
    return _SMALL, parameters.width


def _convolution(before: int, after: int) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    ]


class LatentStem(nn.Module):
    """Latents [B, C, h, w] to the output of ``layer2`` of a ResNet, at the same stride of 16.

    Two 3 x 3 convolutions instead of the stages that reduce the resolution, then the rest of
    ``layer2``.
    """

    stride = 16

    def __init__(self, parameters: FaceParameters, channels: int) -> None:
        super().__init__()
        blocks, width = _layout(parameters)
        after = 8 * width
        self.layers = nn.Sequential(
            *_convolution(channels, after),
            *_convolution(after, after),
            *(Bottleneck(after, after // 4) for _ in range(blocks[1] - 1)),
        )
        _initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        """Return [B, 8 width, h, w]."""
        return self.layers(features)


class ImageStem(nn.Module):
    """A ResNet up to ``layer2``, of stride 8."""

    stride = 8

    def __init__(self, parameters: FaceParameters) -> None:
        super().__init__()
        blocks, width = _layout(parameters)
        self.network = SplitResNet(blocks, width, classes=0)
        # These stages are in the trunks.
        del self.network.layer3, self.network.layer4

    def forward(self, images: Tensor) -> Tensor:
        """Return [B, 8 width, H/8, W/8] for images [B, 3, H, W] in [0, 1]."""
        return self.network.layer2(self.network.head(images))  # type: ignore[operator]


class Trunk(nn.Module):
    """``layer3`` and ``layer4`` of a ResNet, with strides or with dilation instead.

    Args:
        parameters: blocks and width.
        dilations: of the two stages; 1 keeps a stage's stride, more replaces the stride, as in
            DeepLab (Chen et al., 2017).
        first_stride: of ``layer3`` if it is not dilated; 1 for features at stride 16.
    """

    def __init__(
        self, parameters: FaceParameters, dilations: tuple[int, int], first_stride: int
    ) -> None:
        super().__init__()
        blocks, width = _layout(parameters)
        self.channels = 32 * width
        plain = (first_stride, 2)
        strides = [s if d == 1 else 1 for s, d in zip(plain, dilations, strict=True)]
        self.layer3 = _stage(8 * width, 4 * width, blocks[2], strides[0], dilations[0])
        self.layer4 = _stage(16 * width, 8 * width, blocks[3], strides[1], dilations[1])
        _initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        """Return [B, 32 width, h', w']."""
        return self.layer4(self.layer3(features))


def _stage(before: int, inner: int, count: int, stride: int, dilation: int) -> nn.Sequential:
    after = 4 * inner
    shortcut = nn.Sequential(
        nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
    )
    # As in torchvision, the first block of a dilated stage still has the earlier dilation.
    first = Bottleneck(before, inner, stride, shortcut, dilation=max(1, dilation // 2))
    return nn.Sequential(first, *(Bottleneck(after, inner, dilation=dilation)
                                  for _ in range(count - 1)))  # fmt: skip


class AttributeNetwork(nn.Module):
    """A trunk, the mean over all places, one logit for each attribute.

    The small network averages within 4 x 4 regions: with few channels and steps it cannot learn to
    distinguish them by content, and faces are aligned.
    """

    def __init__(self, parameters: FaceParameters, stride: int) -> None:
        super().__init__()
        regions = 4 if parameters.backbone == "small" else 1
        self.trunk = Trunk(parameters, (1, 1), first_stride=1 if stride == 16 else 2)
        self.pool = nn.AdaptiveAvgPool2d(regions)
        self.head = nn.Linear(self.trunk.channels * regions**2, parameters.attributes)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits [B, A] for the stem's output."""
        return self.head(self.pool(self.trunk(features)).flatten(1))


class ParsingNetwork(nn.Module):
    """A dilated trunk, atrous pyramid pooling, and upsampling to every pixel.

    Upsampling is learned up to half the resolution; the last and most expensive step is bilinear.

    Args:
        parameters: blocks, width, classes.
        stride: of the stem's output, a power of two.
    """

    def __init__(self, parameters: FaceParameters, stride: int) -> None:
        super().__init__()
        _, width = _layout(parameters)
        self.trunk = Trunk(parameters, (1, 2) if stride == 16 else (2, 4), first_stride=1)
        reduced, pooled = 8 * width, 4 * width
        # DeepLab's rates are for 33 x 33 positions; faces have half as many per side.
        rates = [3, 6, 9] if stride == 16 else [6, 12, 18]
        self.reduce = nn.Sequential(
            nn.Conv2d(self.trunk.channels, reduced, 1, bias=False),
            nn.BatchNorm2d(reduced),
            nn.ReLU(inplace=True),
        )
        self.pyramid = ASPP(reduced, rates, pooled)
        layers: list[nn.Module] = []
        before = pooled
        for _ in range(stride.bit_length() - 2):
            after = max(before // 2, 16)
            layers += [
                nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
            before = after
        self.upsample = nn.Sequential(*layers, nn.Conv2d(before, parameters.parsing, 3, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits [B, classes, stride h, stride w] for the stem's output [B, C, h, w]."""
        logits = self.upsample(self.pyramid(self.reduce(self.trunk(features))))
        return functional.interpolate(logits, scale_factor=2, mode="bilinear")


def _initialise(network: nn.Module) -> None:
    """Initialise convolutions as torchvision's ResNet does."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def load_imagenet(stem: ImageStem, trunks: list[Trunk]) -> None:
    """Load torchvision's ResNet-50 (IMAGENET1K_V2) into a stem and every trunk."""
    copy_resnet(load_published(ResNet50_Weights.IMAGENET1K_V2.url), stem, trunks)


def copy_resnet(state: dict[str, Tensor], stem: ImageStem, trunks: list[Trunk]) -> None:
    """Copy a ResNet's state dict, in torchvision's names, into its stem and trunks."""
    for network in (stem.network, *trunks):
        own = {name: state[name] for name in network.state_dict()}
        network.load_state_dict({name: torch.as_tensor(value) for name, value in own.items()})
