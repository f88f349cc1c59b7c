"""Convolutions that PyTorch computes wrongly or slowly on a CPU, computed another way there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_LARGE = 7  # smaller kernels gain nothing


class SubsampledPointwise(nn.Conv2d):
    """A 1 x 1 convolution of stride s as one of stride 1 on every s-th position: equal numbers.

    With channels last, the backward pass of such a convolution of few channels writes outside its
    memory on a CPU (torch 2.13 with oneDNN, seen as crashes in cheng2020's first skip).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of [B, C, H, W]."""
        down, right = self.stride
        return functional.conv2d(x[:, :, ::down, ::right], self.weight, self.bias)


class LargeDepthwise(nn.Conv2d):
    """A depth-wise convolution that trains in float32, channels last, on a CPU.

    There, the gradient of a large kernel's weights costs twice as much in bfloat16 and four times
    as much for contiguous images; a quarter of the time of DICM's training (torch 2.13).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of [B, C, H, W], of the input's type."""
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        last = x.float().contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", enabled=False):
            return super().forward(last).to(x.dtype)


def suit_cpu(network: Any) -> Any:
    """Replace, in place, how some convolutions are computed; weights and names stay."""
    for module in network.modules():
        if type(module) is not nn.Conv2d or isinstance(module.padding, str):
            continue
        pointwise = module.kernel_size == (1, 1) and module.padding == (0, 0)
        if pointwise and module.stride != (1, 1) and module.groups == 1:
            module.__class__ = SubsampledPointwise
        depthwise = module.groups == module.in_channels > 1
        if depthwise and min(module.kernel_size) >= _LARGE:
            module.__class__ = LargeDepthwise
    return network
