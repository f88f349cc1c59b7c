"""Which statistics batch norm uses, and whether it updates its running averages.

In training mode batch norm normalises with the statistics of the batch and updates its running
averages; in evaluation mode it uses the running averages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Return all batch norm layers of a network."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def freeze_statistics(network: nn.Module, trained: Collection[nn.Module] = ()) -> None:
    """Put batch norm into evaluation mode, except the layers that are among ``trained``."""
    kept = {id(module) for module in trained}
    for layer in batch_norms(network):
        if id(layer) not in kept:
            layer.eval()


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Use and keep the running averages inside the block, e.g. for validation in training mode."""
    layers = [layer for layer in batch_norms(network) if layer.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


@contextmanager
def unchanged_statistics(network: nn.Module) -> Iterator[None]:
    """Keep layers in training mode from updating their running averages inside the block."""
    layers = [layer for layer in batch_norms(network) if layer.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def updated_statistics(network: nn.Module) -> Iterator[Tensor]:
    """Yield the running means and variances that a training step updates."""
    for layer in batch_norms(network):
        if layer.training and layer.track_running_stats:
            yield from (s for s in (layer.running_mean, layer.running_var) if s is not None)
