"""MoCo v2 as a task that trains the codec's backbone, and its redundancy elimination with it.

Chen, Fan, Girshick, He, "Improved baselines with momentum contrastive learning", 2020; He, Fan, Wu,
Xie, Girshick, "Momentum contrast", CVPR 2020; with ContrastiveCrop, as tang2025 trains it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import MoCoProjectionHead
from lightly.models.utils import batch_shuffle, batch_unshuffle, update_momentum
from lightly.utils import dist
from torch import Tensor, nn

from icmbench.data.dataset import Split
from icmbench.jobs import EvaluateJob
from icmbench.networks.backbone import SplitResNet
from icmbench.networks.batchnorm import unchanged_statistics
from icmbench.tasks.base import Outcome
from icmbench.tasks.contrastive.views import CropBoxes, Views, compute_boxes
from icmbench.tasks.entries import ContrastiveParameters


class Contrastive(nn.Module):
    """Momentum contrast between two views of an image.

    The query network is the codec's backbone and a projection of this task; the key network is a
    copy that follows it. If features pass the codec's redundancy elimination, keys pass the same
    one: only the backbone has a momentum copy (ours).

    Args:
        parameters: of backbone, views, queue and crops.
        pretrained: not used; no weights are published.

    Attributes:
        targets: what its losses need: the index of each image in the split.
        trains_codec: the trainer calls :meth:`with_codec` and :meth:`refresh`.
    """

    targets = "index"
    input_kind = "images"
    trains_codec = True

    def __init__(self, parameters: ContrastiveParameters, pretrained: bool = False) -> None:
        super().__init__()
        self.settings = parameters
        self.key = MomentumNetwork(
            parameters.backbone_blocks, parameters.backbone_width, parameters.dimension
        )
        self.projection = make_projection(self.key.backbone.channels[-1], parameters.dimension)
        self.loss = QueueLoss(parameters.queue, parameters.dimension, parameters.temperature)
        self.crops = CropBoxes()
        self._view = Views(parameters.crop, parameters.alpha, parameters.area)

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part; the key network is not trained."""
        return {"projection": [self.projection]}

    @staticmethod
    def evaluate(job: EvaluateJob, split: Split) -> Outcome:
        """Return nothing: probes and detectors evaluate the features."""
        return Outcome()

    def with_codec(
        self, codec: Any, images: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return ``contrastive`` and the codec's own terms for whole images [3, H, W] in [0, 1].

        Without gradients (validation) neither key network nor queue change, and crops are ordinary
        ones, since boxes belong to the train split.

        Args:
            codec: has ``backbone`` and ``self_supervised(images, eliminate)``.
            images: of any sizes.
            targets: ``index`` of each image in its split.
        """
        boxes: list[list[float] | None] = [None] * len(images)
        if self.settings.semantic_crop and torch.is_grad_enabled():
            boxes = self.crops.of(torch.stack([target["index"] for target in targets]))
        pairs = zip(images, boxes, strict=True)
        views = [(self._view(image, box), self._view(image, box)) for image, box in pairs]
        queries, keys = (torch.stack(side) for side in zip(*views, strict=True))
        return self.contrast(codec, queries, keys)

    def contrast(self, codec: Any, queries: Tensor, keys: Tensor) -> dict[str, Tensor]:
        """Return the terms of :meth:`with_codec` for its two views [B, 3, crop, crop]."""
        key, learns = self.key, torch.is_grad_enabled()
        if learns or not key.started:
            key.follow(codec.backbone, self.projection, self.settings.momentum)
        key.take_modes(codec.backbone, self.projection)
        with nullcontext() if learns else unchanged_statistics(nn.ModuleList([codec, key])):
            features, terms = codec.self_supervised(queries, self.settings.eliminate)
            projected = self.projection(features.mean((2, 3)))
            with torch.no_grad():
                targets = self._keys(codec, keys, shuffle=learns and dist.world_size() > 1)
        return {**terms, "contrastive": self.loss(projected, targets)}

    def _keys(self, codec: Any, images: Tensor, shuffle: bool = False) -> Tensor:
        """Return the keys [B, dimension] of views.

        Several processes shuffle them among themselves, so that batch norm's statistics do not
        identify a query's key (He et al., section 3.3). Validation runs in one process.
        """
        if shuffle:
            images, order = batch_shuffle(images, distributed=True)
        if self.settings.eliminate:
            with _replaced_backbone(codec, self.key.backbone):
                features, _ = codec.self_supervised(images, True)
        else:
            features = self.key.backbone.tail(self.key.backbone.head(images))[-1]
        keys: Tensor = self.key.projection(features.mean((2, 3)))
        return batch_unshuffle(keys, order, distributed=True) if shuffle else keys

    def refresh(
        self,
        codec: Any,
        split: Split,
        step: int,
        steps_per_epoch: int,
        device: torch.device,
        workers: int = 0,
    ) -> None:
        """Renew the boxes at the first step of the epochs in which this is due.

        These are the epoch after the warm-up and every ``refresh_epochs``-th from there. The first
        step of a warm-up discards boxes that were loaded with weights of another training run.

        Args:
            codec: as in :meth:`with_codec`.
            split: the train split.
            step: from 0.
            steps_per_epoch: steps in which every image is seen once.
            device: where the codec is.
            workers: processes that read images; 0 reads in this one.
        """
        settings = self.settings
        epoch, place = divmod(step, steps_per_epoch)
        if not settings.semantic_crop or place:
            return
        since = epoch - settings.warmup_epochs
        if since >= 0 and since % settings.refresh_epochs == 0:
            self.crops.boxes = compute_boxes(
                codec, split, settings.crop, settings.threshold, settings.eliminate, device, workers
            )
        elif epoch == 0:
            self.crops.boxes = torch.zeros(0, 4, device=device)


class MomentumNetwork(nn.Module):
    """Backbone and projection that follow those of the query, without gradients.

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
        # It begins as a copy of the query network, which is not known yet.
        self.register_buffer("started", torch.tensor(False))

    @torch.no_grad()
    def follow(self, backbone: SplitResNet, projection: nn.Module, momentum: float) -> None:
        """Set every weight to momentum x own + (1 - momentum) x the query's.

        Statistics of batch norm are its own, not averaged, as in MoCo.
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

        The trainer sets the modes of trained parts only.
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

    The queue is part of the state, and gets the keys of all processes.

    Args:
        size: keys in the queue.
        dimension: of a key.
        temperature: of the loss.
    """

    def __init__(self, size: int, dimension: int, temperature: float) -> None:
        super().__init__(temperature, (size, dimension), gather_distributed=True)
        bank = self.memory_bank
        for name in ("bank", "bank_ptr"):  # lightly's are not in checkpoints
            value = getattr(bank, name)
            delattr(bank, name)
            bank.register_buffer(name, value)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return the mean loss of queries and keys [B, dimension], in float32.

        With gradients, the keys join the queue afterwards.
        """
        with torch.autocast(queries.device.type, enabled=False):
            loss: Tensor = super().forward(queries.float(), keys.float())
        return loss


def make_projection(channels: int, dimension: int) -> nn.Module:
    """Return MoCo v2's projection: a hidden layer as wide as the features, ReLU, no batch norm."""
    return MoCoProjectionHead(channels, channels, dimension)


@contextmanager
def _replaced_backbone(codec: Any, backbone: nn.Module) -> Iterator[None]:
    """Let a codec use another backbone inside the block."""
    own = codec.backbone
    codec.backbone = backbone
    try:
        yield
    finally:
        codec.backbone = own
