"""Faster R-CNN (Ren et al., 2015) on a feature pyramid, built by torchvision."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn
from torchvision.models.detection.faster_rcnn import (
    FasterRCNN_ResNet50_FPN_Weights,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.models.resnet import BasicBlock
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from icmbench.data.dataset import Split
from icmbench.tasks import FasterRcnnParameters
from icmbench.tasks.base import Outcome
from icmbench.tasks.detection import detect

Target = dict[str, Tensor]


class SmallBackbone(nn.Module):
    """Three residual stages at 1/4, 1/8 and 1/16 under a feature pyramid (ours, for CPUs).

    Args:
        width: channels of the first stage; the others have 2 and 4 times as many.
        out_channels: channels of every pyramid level.
    """

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=4, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(True),
        )
        widths = [width, 2 * width, 4 * width]
        stages = []
        before = width
        for index, after in enumerate(widths):
            stride = 1 if index == 0 else 2
            shortcut = None
            if stride != 1 or before != after:
                shortcut = nn.Sequential(
                    nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
                )
            stages.append(
                nn.Sequential(BasicBlock(before, after, stride, shortcut), BasicBlock(after, after))
            )
            before = after
        self.stages = nn.ModuleList(stages)
        self.pyramid = FeaturePyramidNetwork(widths[1:], out_channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the pyramid levels of [B, 3, H, W], finest first."""
        x = self.stages[0](self.stem(x))
        levels: OrderedDict[str, Tensor] = OrderedDict()
        for index, stage in enumerate(self.stages[1:]):
            x = stage(x)
            levels[str(index)] = x
        return self.pyramid(levels)


class FasterRcnn(nn.Module):
    """A detector with one interface for training and evaluation.

    Args:
        parameters: backbone, classes, input size.
        pretrained: build it so that torchvision's COCO weights fit (resnet50-fpn only).
    """

    def __init__(self, parameters: FasterRcnnParameters, pretrained: bool = False) -> None:
        super().__init__()
        if parameters.backbone == "resnet50-fpn":
            self.network = fasterrcnn_resnet50_fpn(
                weights=None,
                weights_backbone=None,
                num_classes=parameters.classes,
                min_size=parameters.short_side,
                max_size=parameters.long_side,
            )
        else:
            self.network = _small(parameters)

    def load_pretrained(self) -> None:
        """Take torchvision's COCO weights (fasterrcnn_resnet50_fpn, box mAP 37.0 on val2017)."""
        weights = FasterRCNN_ResNet50_FPN_Weights.COCO_V1
        self.network.load_state_dict(weights.get_state_dict(progress=False, check_hash=True))

    @staticmethod
    def evaluate(job: dict[str, Any], split: Split) -> Outcome:
        """Detect on every picture of a split; see :func:`icmbench.tasks.detection.detect`."""
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


def _small(parameters: FasterRcnnParameters) -> FasterRCNN:
    backbone = SmallBackbone(parameters.width, out_channels=64)
    sizes = ((20, 30), (44, 64))
    anchors = AnchorGenerator(sizes, ((0.6, 1.0, 1.6),) * len(sizes))
    pooling = MultiScaleRoIAlign(["0", "1"], output_size=4, sampling_ratio=1)
    return FasterRCNN(
        backbone,
        min_size=parameters.short_side,
        max_size=parameters.long_side,
        rpn_anchor_generator=anchors,
        box_roi_pool=pooling,
        box_head=TwoMLPHead(64 * 16, 128),
        box_predictor=FastRCNNPredictor(128, parameters.classes),
        rpn_pre_nms_top_n_train=120,
        rpn_post_nms_top_n_train=60,
        rpn_pre_nms_top_n_test=150,
        rpn_post_nms_top_n_test=60,
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=24,
        box_detections_per_img=50,
    )
