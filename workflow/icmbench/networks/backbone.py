"""A ResNet of bottleneck blocks, split where features replace pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

# Of ImageNet, to normalise pixels in [0, 1].
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SplitResNet(nn.Module):
    """ResNet (He et al., CVPR 2016) with torchvision's layer names: ``head``, then ``tail``.

    ``head`` ends with ``layer1`` (stride 4), ``tail`` is ``layer2`` to ``layer4``. Blocks (3, 4, 6,
    3) and width 64 make ResNet-50.

    Args:
        blocks: bottleneck blocks of each of the four stages.
        width: channels of the stem; stage i has ``4 * width * 2**i`` output channels.
        classes: outputs of ``fc``; 0 builds none.

    Attributes:
        channels: output channels of ``layer1`` to ``layer4``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, blocks: Sequence[int] = (3, 4, 6, 3), width: int = 64, classes: int = 1000
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.channels = tuple(4 * width * 2**i for i in range(4))
        before = width
        for index, count in enumerate(blocks):
            inner, after = width * 2**index, self.channels[index]
            stride = 1 if index == 0 else 2
            shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )
            stage = [Bottleneck(before, inner, stride, shortcut)]
            stage += [Bottleneck(after, inner) for _ in range(count - 1)]
            self.add_module(f"layer{index + 1}", nn.Sequential(*stage))
            before = after
        self.fc = nn.Linear(before, classes) if classes else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).reshape(1, 3, 1, 1), persistent=False)

    def head(self, images: Tensor) -> Tensor:
        """Return the features [B, channels[0], H/4, W/4] of images [B, 3, H, W] in [0, 1]."""
        x = (images - self.mean) / self.std
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer1(x)  # type: ignore[operator]

    def tail(self, features: Tensor) -> list[Tensor]:
        """Return the outputs of ``layer2``, ``layer3`` and ``layer4`` for features of ``head``."""
        outputs = []
        for stage in (self.layer2, self.layer3, self.layer4):
            features = stage(features)  # type: ignore[operator]
            outputs.append(features)
        return outputs

    def head_modules(self) -> list[nn.Module]:
        """Return the modules of ``head``."""
        return [self.conv1, self.bn1, self.layer1]  # type: ignore[list-item]

    def tail_modules(self) -> list[nn.Module]:
        """Return the modules of ``tail``."""
        return [self.layer2, self.layer3, self.layer4]  # type: ignore[list-item]
