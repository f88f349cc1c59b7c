"""MoCo v2 as a task that trains the codec's backbone, and its redundancy elimination with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightly.models.utils import batch_shuffle, batch_unshuffle
from lightly.utils import dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.jobs import EvaluateJob
from icmbench.tasks.base import Outcome
from icmbench.tasks.contrastive.crops import CropBoxes
from icmbench.tasks.contrastive.momentum import MomentumNetwork, QueueLoss, make_projection
from icmbench.tasks.contrastive.refresh import compute_boxes
from icmbench.tasks.contrastive.views import Views
from icmbench.tasks.tang2025_parameters import ContrastiveParameters


class Contrastive(nn.Module):
    """Momentum contrast between two views of an image.

    The query network is the codec's backbone under a projection of this task; the key network is a
    copy that follows it. Where features pass the codec's redundancy elimination, keys pass the very
    same one: only the backbone has a momentum copy (ours).

    Args:
        parameters: of backbone, views, queue and crops.
        pretrained: no effect; there is nothing published for it.

    Attributes:
        targets: what it needs beside the images: their index in the split.
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

    def load_pretrained(self) -> None:
        """Refuse: no weights are published."""
        raise UserError(
            "task 'contrastive': there are no published weights; set weights: random, or name a "
            "variant to start from"
        )

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part; the key network is none of them."""
        return {"projection": [self.projection]}

    @staticmethod
    def evaluate(job: EvaluateJob, split: Split) -> Outcome:
        """Return nothing: what the features are worth, probes and detectors say."""
        return Outcome()

    def with_codec(
        self, codec: Any, images: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return ``contrastive`` and the codec's own terms for whole images [3, H, W] in [0, 1].

        Without a gradient (validation) neither key network nor queue change, and crops are ordinary
        ones, since boxes are those of the train split.

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
        with _steady_statistics(None if learns else nn.ModuleList([codec, key])):
            features, terms = codec.self_supervised(queries, self.settings.eliminate)
            projected = self.projection(features.mean((2, 3)))
            with torch.no_grad():
                targets = self._keys(codec, keys, shuffle=learns and dist.world_size() > 1)
        return {**terms, "contrastive": self.loss(projected, targets)}

    def _keys(self, codec: Any, images: Tensor, shuffle: bool = False) -> Tensor:
        """Return the keys [B, dimension] of views.

        Several processes shuffle them among themselves, so that batch norm cannot tell a query's
        key by its statistics (He et al., section 3.3). Validation is one process's and does not.
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
        """Renew the boxes where ``step`` is the first of an epoch in which that is due.

        Due are the epoch after the warm-up and every ``refresh_epochs``-th from there. The first
        step of a warm-up forgets boxes that came with weights of another training.

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


@contextmanager
def _steady_statistics(network: nn.Module | None) -> Iterator[None]:
    """Let batch norm use the batch's statistics without taking them into its averages."""
    layers = [] if network is None else network.modules()
    changed = [m for m in layers if isinstance(m, _BatchNorm) and m.track_running_stats]
    for layer in changed:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in changed:
            layer.track_running_stats = True


@contextmanager
def _replaced_backbone(codec: Any, backbone: nn.Module) -> Iterator[None]:
    """Run a codec's own path on another backbone."""
    own = codec.backbone
    codec.backbone = backbone
    try:
        yield
    finally:
        codec.backbone = own
