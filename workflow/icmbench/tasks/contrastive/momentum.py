"""The key side of MoCo (He et al., CVPR 2020): momentum network and queue of keys."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import MoCoProjectionHead
from lightly.models.utils import update_momentum
from torch import Tensor, nn

from icmbench.networks.backbone import SplitResNet


def make_projection(channels: int, dimension: int) -> nn.Module:
    """Return MoCo v2's projection: a hidden layer as wide as the features, ReLU, no batch norm."""
    return MoCoProjectionHead(channels, channels, dimension)


class MomentumNetwork(nn.Module):
    """Backbone and projection that follow those of the query; they take no gradient.

    Args:
        blocks: of the backbone, see :class:`SplitResNet`.
        width: of the backbone.
        dimension: of the keys.
    """

    started: Tensor

    def __init__(self, blocks: Sequence[int], width: int, dimension: int) -> None:
        super().__init__()
        self.backbone = SplitResNet(blocks, width, classes=0)
        self.projection = make_projection(self.backbone.channels[-1], dimension)
        self.requires_grad_(False)
        # At first it is a copy of the query network, which is not known yet.
        self.register_buffer("started", torch.tensor(False))

    @torch.no_grad()
    def follow(self, backbone: SplitResNet, projection: nn.Module, momentum: float) -> None:
        """Move every weight: momentum x own + (1 - momentum) x the query's.

        Statistics of batch norm are not averaged but its own, as in MoCo.
        """
        started = bool(self.started)
        for query, key in self._pairs(backbone, projection):
            if started:
                update_momentum(query, key, momentum)
            else:
                key.load_state_dict(query.state_dict())
        self.started.fill_(True)

    def take_modes(self, backbone: SplitResNet, projection: nn.Module) -> None:
        """Put every layer into the mode, training or evaluation, of the query's layer.

        The trainer knows only trained parts and would leave these in evaluation mode.
        """
        for query, key in self._pairs(backbone, projection):
            for theirs, own in zip(query.modules(), key.modules(), strict=True):
                own.training = theirs.training

    def _pairs(
        self, backbone: SplitResNet, projection: nn.Module
    ) -> list[tuple[nn.Module, nn.Module]]:
        queries = [*backbone.head_modules(), *backbone.tail_modules(), projection]
        own = self.backbone
        keys = [*own.head_modules(), *own.tail_modules(), self.projection]
        return list(zip(queries, keys, strict=True))


class QueueLoss(NTXentLoss):
    """InfoNCE of each query with its key against a queue of the keys of earlier batches.

    The queue is part of the state, and takes the keys of all processes.

    Args:
        size: keys in the queue.
        dimension: of a key.
        temperature: of the loss.
    """

    def __init__(self, size: int, dimension: int, temperature: float) -> None:
        super().__init__(temperature, (size, dimension), gather_distributed=True)
        bank = self.memory_bank
        for name in ("bank", "bank_ptr"):  # lightly's are left out of checkpoints
            value = getattr(bank, name)
            delattr(bank, name)
            bank.register_buffer(name, value)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return the mean loss of queries and keys [B, dimension], in float32.

        The keys join the queue afterwards, where there is a gradient.
        """
        with torch.autocast(queries.device.type, enabled=False):
            loss: Tensor = super().forward(queries.float(), keys.float())
        return loss
