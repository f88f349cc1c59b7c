"""Faster R-CNN (Ren et al., 2015) on a feature pyramid, built by torchvision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FasterRCNN_ResNet50_FPN_Weights
from torchvision.ops import FrozenBatchNorm2d

from icmbench.data.dataset import Split
from icmbench.jobs import EvaluateJob
from icmbench.tasks import FasterRcnnParameters
from icmbench.tasks.base import Outcome
from icmbench.tasks.box_precision import keep_boxes_in_float32
from icmbench.tasks.detection import detect
from icmbench.tasks.small_detector import small_settings

Target = dict[str, Tensor]


class FasterRcnn(nn.Module):
    """A detector with one interface for training and evaluation.

    Args:
        parameters: backbone, classes, input size.
        pretrained: build it as torchvision does for its COCO weights (resnet50-fpn only): batch
            norm keeps ImageNet's statistics, first convolution and first stage are not trained.

    Attributes:
        targets: what its losses need: boxes, or boxes and masks.
    """

    targets = "boxes"

    def __init__(self, parameters: FasterRcnnParameters, pretrained: bool = False) -> None:
        super().__init__()
        self._as_published = pretrained and parameters.backbone == "resnet50-fpn"
        if parameters.backbone == "resnet50-fpn":
            build = _published if pretrained else _untrained
            self.network = build(
                num_classes=parameters.classes,
                min_size=parameters.short_side,
                max_size=parameters.long_side,
            )
        else:
            self.network = FasterRCNN(**small_settings(parameters))
        keep_boxes_in_float32(self.network.backbone, self.network.rpn, self.network.roi_heads)

    def load_pretrained(self) -> None:
        """Take torchvision's COCO weights (fasterrcnn_resnet50_fpn, box mAP 37.0 on val2017)."""
        weights = FasterRCNN_ResNet50_FPN_Weights.COCO_V1
        self.network.load_state_dict(weights.get_state_dict(progress=False, check_hash=True))

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part."""
        if not self._as_published:
            return {"detector": [self.network]}
        body = self.network.backbone.body
        trained = [body[f"layer{stage}"] for stage in (2, 3, 4)]
        heads = [self.network.backbone.fpn, self.network.rpn, self.network.roi_heads]
        return {"detector": [*trained, *heads]}

    @staticmethod
    def evaluate(job: EvaluateJob, split: Split) -> Outcome:
        """Detect on every image of a split; see :func:`icmbench.tasks.detection.detect`."""
        return detect(job, split, ("bbox",))

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Return the four detector losses for images [3, H, W] in [0, 1] and their targets.

        Works in training mode of the heads whatever the mode of the normalisation layers, so that
        a frozen detector can teach a codec.
        """
        return self.network(images, targets)

    @torch.no_grad()
    def predict(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Return boxes (x1, y1, x2, y2 in pixels), labels and scores for each image."""
        self.eval()
        return self.network(images)


def _untrained(**settings: Any) -> FasterRCNN:
    """Return the network to be trained from random weights, with ordinary batch norm."""
    return fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, **settings)


def _published(num_classes: int, **settings: Any) -> FasterRCNN:
    """Return the network that torchvision loads its COCO weights into.

    torchvision builds it like this only where it downloads the weights itself.
    """
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    network = FasterRCNN(backbone, num_classes, **settings)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0  # these weights were trained so (pytorch/vision issue 2933)
    return network
