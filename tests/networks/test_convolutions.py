"""Convolutions computed in another way on a CPU: same numbers, and no crash."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from icmbench.networks.convolutions import LargeDepthwise, SubsampledPointwise, suit_cpu


def suited(layer: nn.Module) -> Any:
    """Return a copy of a layer as it is computed on a CPU."""
    return suit_cpu(nn.Sequential(copy.deepcopy(layer)))[0]


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_subsampled_pointwise_gives_equal_numbers(stride: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 4, 1, stride=stride)
    other = suited(plain)
    assert type(other) is SubsampledPointwise
    x = torch.rand(2, 5, *size)
    ours, theirs = other(x), plain(x)
    assert torch.allclose(ours, theirs, atol=1e-6)
    for network, y in ((plain, theirs), (other, ours)):
        y.square().sum().backward()
        assert network.weight.grad is not None
    assert torch.allclose(plain.weight.grad, other.weight.grad, atol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kernel", [7, 11])
def test_large_depthwise_gives_equal_numbers_and_gradients(
    kernel: int, memory: torch.memory_format
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 6, kernel, padding=kernel // 2, groups=6)
    other = suited(plain)
    assert type(other) is LargeDepthwise
    x = torch.rand(2, 6, 13, 10).contiguous(memory_format=memory)
    gradients = []
    for network in (plain, other):
        inputs = x.clone().requires_grad_()
        network(inputs).square().sum().backward()
        assert network.weight.grad is not None
        assert inputs.grad is not None
        gradients.append((inputs.grad, network.weight.grad))
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_large_depthwise_trains_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    layer = suited(nn.Conv2d(6, 6, 7, padding=3, groups=6))
    x = torch.rand(2, 6, 8, 8, dtype=torch.bfloat16)
    exact = functional.conv2d(x.float(), layer.weight, layer.bias, padding=3, groups=6)
    with torch.autocast("cpu", torch.bfloat16):
        ours = layer(x)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, exact.bfloat16())


def test_suit_cpu_keeps_other_layers() -> None:
    kept = [
        nn.Conv2d(3, 4, 1),
        nn.Conv2d(3, 4, 3, stride=2),
        nn.Conv2d(3, 3, 1, 2, groups=3),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(3, 4, 7),
        nn.Conv2d(1, 1, 7),
    ]
    network = suit_cpu(nn.Sequential(*kept))
    assert all(own is layer for own, layer in zip(network, kept, strict=True))


def test_subsampled_pointwise_survives_backward_with_channels_last() -> None:
    # In another process, since the fault would kill it.
    program = (
        "import torch; from torch import nn\n"
        "from icmbench.networks.convolutions import suit_cpu\n"
        "layer = suit_cpu(nn.Sequential(nn.Conv2d(3, 128, 1, stride=2)))\n"
        "layer = layer.to(memory_format=torch.channels_last)\n"
        "x = torch.rand(2, 3, 256, 256).contiguous(memory_format=torch.channels_last)\n"
        "[layer(x).mean().backward() for _ in range(4)]\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
