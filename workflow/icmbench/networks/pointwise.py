"""A way around a fault of PyTorch's CPU convolutions that damages memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class SubsampledPointwise(nn.Conv2d):
    """A 1 x 1 convolution of stride s as one of stride 1 on every s-th position: equal numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of [B, C, H, W]."""
        down, right = self.stride
        return functional.conv2d(x[:, :, ::down, ::right], self.weight, self.bias)


def avoid_strided_pointwise(network: Any) -> Any:
    """Replace, in place, how strided 1 x 1 convolutions are computed; weights and names stay.

    With channels last, the backward pass of such a convolution of few channels writes outside its
    memory on a CPU (torch 2.13 with oneDNN, seen as crashes in cheng2020's first skip).
    """
    for module in network.modules():
        plain = type(module) is nn.Conv2d and module.kernel_size == (1, 1)
        if plain and module.stride != (1, 1) and module.padding == (0, 0) and module.groups == 1:
            module.__class__ = SubsampledPointwise
    return network
