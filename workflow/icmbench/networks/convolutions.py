"""Convolutions that PyTorch computes wrongly or slowly on a CPU, computed in another way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from icmbench.networks.replace import replace_modules

_LARGE = 7  # smaller kernels gain nothing


class SubsampledPointwise(nn.Conv2d):
    """A 1 x 1 convolution of stride s, computed with stride 1 on every s-th position.

    The numbers are equal. With channels last, PyTorch's backward pass of such a convolution with
    few channels writes outside its memory on a CPU (torch 2.13 with oneDNN; it crashes in the first
    skip connection of cheng2020).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of [B, C, H, W]."""
        down, right = self.stride
        return functional.conv2d(x[:, :, ::down, ::right], self.weight, self.bias)


class LargeDepthwise(nn.Conv2d):
    """A depth-wise convolution that trains in float32 with channels last on a CPU.

    The gradient of the weights of a large kernel takes twice as long in bfloat16 and four times as
    long for contiguous images: a quarter of the time of training DICM (torch 2.13).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of [B, C, H, W], in the type of the input."""
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        last = x.float().contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", enabled=False):
            return super().forward(last).to(x.dtype)


def suit_cpu(network: Any) -> Any:
    """Replace these convolutions inside a network, in place; return the network."""
    replace_modules(network, _replacement)
    return network


def _replacement(module: nn.Module) -> type[nn.Module] | None:
    if type(module) is not nn.Conv2d or isinstance(module.padding, str):
        return None
    pointwise = module.kernel_size == (1, 1) and module.padding == (0, 0)
    if pointwise and module.stride != (1, 1) and module.groups == 1:
        return SubsampledPointwise
    depthwise = module.groups == module.in_channels > 1
    if depthwise and min(module.kernel_size) >= _LARGE:
        return LargeDepthwise
    return None
