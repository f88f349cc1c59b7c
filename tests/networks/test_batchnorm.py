"""Which statistics batch norm uses, and which it updates."""

from __future__ import annotations

import torch
from torch import nn

from icmbench.networks.batchnorm import (
    freeze_statistics,
    frozen_statistics,
    unchanged_statistics,
    updated_statistics,
)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)).train()


def test_freeze_statistics_spares_trained_layers() -> None:
    layers = network()
    freeze_statistics(layers, trained=[layers[2]])
    assert [layer.training for layer in layers] == [False, True, True]
    assert len(list(updated_statistics(layers))) == 2  # mean and variance of the last layer


def test_frozen_statistics_restores_modes_and_keeps_averages() -> None:
    layers = network()
    layers[0].eval()
    before = layers[2].running_mean.clone()
    with frozen_statistics(layers):
        layers(torch.rand(4, 2, 3, 3))
    assert torch.equal(layers[2].running_mean, before)
    assert [layer.training for layer in layers] == [False, True, True]


def test_unchanged_statistics_normalises_by_the_batch_without_updating() -> None:
    layers = network()
    before = {name: value.clone() for name, value in layers.state_dict().items()}
    with unchanged_statistics(layers):
        out = layers[0](5 + torch.rand(64, 2, 8, 8))
    assert abs(out.mean().item()) < 1e-4 and layers[0].track_running_stats
    assert all(torch.equal(value, before[name]) for name, value in layers.state_dict().items())
