"""Faster and Mask R-CNN on a feature pyramid, and Mask R-CNN behind an adaptation network.

Ren et al., "Faster R-CNN", NeurIPS 2015; He et al., "Mask R-CNN", ICCV 2017; built by torchvision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchvision.models import ResNeXt101_32X8D_Weights
from torchvision.models.detection import (
    FasterRCNN,
    MaskRCNN,
    fasterrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.mask_rcnn import MaskRCNN_ResNet50_FPN_V2_Weights
from torchvision.ops import FrozenBatchNorm2d

from icmbench.data.dataset import Split
from icmbench.jobs import EvaluateJob
from icmbench.networks.pretrained import load_published, published_weights
from icmbench.tasks.base import Outcome
from icmbench.tasks.detection import detect
from icmbench.tasks.detector_parts import (
    detectron2_settings,
    keep_boxes_in_float32,
    small_mask_settings,
    small_settings,
)
from icmbench.tasks.entries import (
    AdaptedMaskRcnnParameters,
    FasterRcnnParameters,
    MaskRcnnParameters,
)

Target = dict[str, Tensor]


class Detector(nn.Module):
    """One of torchvision's detectors, in training and evaluation.

    Attributes:
        targets: what its losses need.
        weights: torchvision's COCO weights.
        iou_types: what it detects, in pycocotools' words.
    """

    targets: ClassVar[Literal["boxes", "masks"]]
    weights: ClassVar[Any]
    iou_types: ClassVar[tuple[Literal["bbox", "segm"], ...]]

    def __init__(self, network: FasterRCNN) -> None:
        super().__init__()
        self.network: Any = network
        keep_boxes_in_float32(network.backbone, network.rpn, network.roi_heads)

    def load_pretrained(self) -> None:
        """Load torchvision's COCO weights."""
        self.network.load_state_dict(load_published(self.weights.url))

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part."""
        return {"detector": [self.network]}

    @classmethod
    def evaluate(cls, job: EvaluateJob, split: Split) -> Outcome:
        """Detect on every image of a split; see :func:`icmbench.tasks.detection.detect`."""
        return detect(job, split, cls.iou_types)

    def adapt(self, images: list[Tensor]) -> list[Tensor]:
        """Return the network's input for images [3, H, W] in [0, 1]."""
        return images

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Return the detector's losses for images [3, H, W] in [0, 1] and their targets.

        Works in training mode of the heads whatever the mode of batch norm, so that a frozen
        detector can teach a codec.
        """
        losses: dict[str, Tensor] = self.network(self.adapt(images), targets)
        return losses

    @torch.no_grad()
    def predict(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Return boxes (x1, y1, x2, y2 in pixels), labels and scores for each image.

        Mask R-CNN adds masks, probabilities [N, 1, H, W].
        """
        self.eval()
        results: list[dict[str, Tensor]] = self.network(self.adapt(images))
        return results


class FasterRcnn(Detector):
    """A detector of boxes; COCO weights (fasterrcnn_resnet50_fpn) have box mAP 37.0 on val2017.

    Args:
        parameters: backbone, classes, input size.
        pretrained: build it as torchvision does for its COCO weights (resnet50-fpn only): batch
            norm keeps ImageNet's statistics, first convolution and first stage are not trained.
    """

    targets = "boxes"
    weights = FasterRCNN_ResNet50_FPN_Weights.COCO_V1
    iou_types = ("bbox",)

    def __init__(self, parameters: FasterRcnnParameters, pretrained: bool = False) -> None:
        full = parameters.backbone == "resnet50-fpn"
        sizes = {"min_size": parameters.short_side, "max_size": parameters.long_side}
        if not full:
            network = FasterRCNN(**small_settings(parameters))
        elif pretrained:
            network = _published(parameters.classes, **sizes)
        else:
            network = fasterrcnn_resnet50_fpn(
                weights=None, weights_backbone=None, num_classes=parameters.classes, **sizes
            )
        super().__init__(network)
        self._as_published = pretrained and full

    @staticmethod
    def is_as_published(state: Mapping[str, Any]) -> bool:
        """Return whether a state dict is of such a network: frozen batch norm counts no steps."""
        return not any(name.endswith("num_batches_tracked") for name in state)

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part."""
        if not self._as_published:
            return super().part_modules()
        body = self.network.backbone.body
        trained = [body[f"layer{stage}"] for stage in (2, 3, 4)]
        heads = [self.network.backbone.fpn, self.network.rpn, self.network.roi_heads]
        return {"detector": [*trained, *heads]}


class MaskRcnn(Detector):
    """A detector of boxes and masks; COCO weights have box mAP 47.4, mask mAP 41.8 on val2017.

    Args:
        parameters: backbone, classes, input size.
        pretrained: not used; the network is the same with and without COCO weights.
    """

    targets = "masks"
    weights = MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1
    iou_types = ("bbox", "segm")

    def __init__(self, parameters: MaskRcnnParameters, pretrained: bool = False) -> None:
        super().__init__(_mask_rcnn(parameters))


class AdaptedMaskRcnn(MaskRcnn):
    """A detector that sees the decoded image through a dynamic transformation network (zhu2024).

    Bitstream and image for people stay the codec's; only the detector's input changes.
    """

    def __init__(self, parameters: AdaptedMaskRcnnParameters, pretrained: bool = False) -> None:
        super().__init__(parameters, pretrained)
        self.adaptation = DynamicTransformation(parameters.adaptation_width)

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part."""
        return {"adaptation": [self.adaptation], **super().part_modules()}

    def adapt(self, images: list[Tensor]) -> list[Tensor]:
        """Return the transformed images."""
        return [self.adaptation(image[None])[0].float() for image in images]


class DynamicTransformation(nn.Module):
    """The network g_t of zhu2024 (ICIP 2024, framework figure), which adapts images to a machine.

    A 5 x 5 convolution, two residual blocks, an attention block, two residual blocks, a 5 x 5
    convolution, and a skip connection over all of them. The blocks are CompressAI's. Initially the
    output is the input, so that a detector off the shelf sees the decoded image.

    Args:
        width: channels inside, which the paper does not give.
    """

    def __init__(self, width: int) -> None:
        # Imported here, since the other detectors do not need CompressAI.
        from compressai.layers import AttentionBlock
        from compressai.models.sensetime import ResidualBottleneckBlock

        super().__init__()
        last = nn.Conv2d(width, 3, 5, padding=2)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 5, padding=2),
            ResidualBottleneckBlock(width, width),
            ResidualBottleneckBlock(width, width),
            AttentionBlock(width),
            ResidualBottleneckBlock(width, width),
            ResidualBottleneckBlock(width, width),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the detector's input for images [B, 3, H, W]; it may be outside [0, 1]."""
        return x + self.layers(x)


def _published(num_classes: int, **settings: Any) -> FasterRCNN:
    """Return the network for torchvision's COCO weights.

    torchvision builds it like this only when it downloads the weights itself.
    """
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    network = FasterRCNN(backbone, num_classes, **settings)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0  # these weights were trained with 0 (pytorch/vision issue 2933)
    return network


def _mask_rcnn(parameters: MaskRcnnParameters) -> MaskRCNN:
    if parameters.backbone == "small":
        return MaskRCNN(**small_settings(parameters), **small_mask_settings(parameters))
    sizes = {"min_size": parameters.short_side, "max_size": parameters.long_side}
    if parameters.backbone == "resnet50-fpn-v2":
        return maskrcnn_resnet50_fpn_v2(
            weights=None, weights_backbone=None, num_classes=parameters.classes, **sizes
        )
    backbone = resnet_fpn_backbone(backbone_name="resnext101_32x8d", weights=None)
    if parameters.imagenet_backbone:
        with published_weights("resnext101_32x8d"):
            state = load_published(ResNeXt101_32X8D_Weights.IMAGENET1K_V2.url)
        body = backbone.body.state_dict()  # all but the classifier
        backbone.body.load_state_dict({name: state[name] for name in body})
    own = detectron2_settings() if parameters.layout == "detectron2" else {}
    return MaskRCNN(backbone, parameters.classes, **sizes, **own)
