"""Strided 1 x 1 convolutions computed another way: same numbers, and no crash."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from icmbench.networks.pointwise import SubsampledPointwise, avoid_strided_pointwise


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_numbers_and_gradients_are_equal(stride: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 4, 1, stride=stride)
    other = nn.Conv2d(5, 4, 1, stride=stride)
    other.load_state_dict(plain.state_dict())
    assert type(avoid_strided_pointwise(other)) is SubsampledPointwise
    x = torch.rand(2, 5, *size)
    ours, theirs = other(x), plain(x)
    assert torch.allclose(ours, theirs, atol=1e-6)
    for network, y in ((plain, theirs), (other, ours)):
        y.square().sum().backward()
        assert network.weight.grad is not None
    assert torch.allclose(plain.weight.grad, other.weight.grad, atol=1e-5)  # type: ignore[arg-type]


def test_only_strided_pointwise_layers_change() -> None:
    kept = [nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(3, 3, 1, 2, groups=3)]
    avoid_strided_pointwise(nn.Sequential(*kept))
    assert all(type(layer) is nn.Conv2d for layer in kept)


def test_backward_with_channels_last_survives() -> None:
    # In a process of its own: the fault it guards against kills the process.
    program = (
        "import torch; from torch import nn\n"
        "from icmbench.networks.pointwise import avoid_strided_pointwise as avoid\n"
        "layer = avoid(nn.Conv2d(3, 128, 1, stride=2)).to(memory_format=torch.channels_last)\n"
        "x = torch.rand(2, 3, 256, 256).contiguous(memory_format=torch.channels_last)\n"
        "[layer(x).mean().backward() for _ in range(4)]\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
