"""Mask R-CNN (He et al., 2017) on a feature pyramid, and the same behind an adaptation network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import ResNeXt101_32X8D_Weights
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.mask_rcnn import MaskRCNN_ResNet50_FPN_V2_Weights

from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.jobs import EvaluateJob
from icmbench.tasks import AdaptedMaskRcnnParameters, MaskRcnnParameters
from icmbench.tasks.adaptation import DynamicTransformation
from icmbench.tasks.base import Outcome
from icmbench.tasks.box_precision import keep_boxes_in_float32
from icmbench.tasks.detection import detect

Target = dict[str, Tensor]


class MaskRcnn(nn.Module):
    """A detector of boxes and masks.

    Args:
        parameters: backbone, classes, input size.
        pretrained: build it so that torchvision's COCO weights fit (resnet50-fpn-v2 only).
    """

    targets = "masks"

    def __init__(self, parameters: MaskRcnnParameters, pretrained: bool = False) -> None:
        super().__init__()
        self.settings = parameters
        self.network = _build(parameters)
        keep_boxes_in_float32(self.network.backbone, self.network.rpn, self.network.roi_heads)

    def load_pretrained(self) -> None:
        """Take torchvision's COCO weights (box mAP 47.4, mask mAP 41.8 on val2017)."""
        if self.settings.backbone != "resnet50-fpn-v2":
            raise UserError(
                f"task 'mask-rcnn' with backbone {self.settings.backbone!r}: torchvision has COCO "
                "weights for resnet50-fpn-v2 only; use that, or train it"
            )
        weights = MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1
        self.network.load_state_dict(weights.get_state_dict(progress=False, check_hash=True))

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part."""
        return {"detector": [self.network]}

    @staticmethod
    def evaluate(job: EvaluateJob, split: Split) -> Outcome:
        """Detect on every image of a split; see :func:`icmbench.tasks.detection.detect`."""
        return detect(job, split, ("bbox", "segm"))

    def adapt(self, images: list[Tensor]) -> list[Tensor]:
        """Return what the detector sees of images [3, H, W] in [0, 1]."""
        return images

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Return the five losses for images [3, H, W] in [0, 1] and their targets."""
        losses: dict[str, Tensor] = self.network(self.adapt(images), targets)
        return losses

    @torch.no_grad()
    def predict(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Return boxes (x1, y1, x2, y2 in pixels), labels, scores and masks for each image.

        Masks are probabilities [N, 1, H, W].
        """
        self.eval()
        results: list[dict[str, Tensor]] = self.network(self.adapt(images))
        return results


class AdaptedMaskRcnn(MaskRcnn):
    """A detector that sees the decoded image through a dynamic transformation network.

    zhu2024: the bitstream and the image for people stay the codec's; only the detector's own
    view of the decoded image changes.
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


def _build(parameters: MaskRcnnParameters) -> MaskRCNN:
    if parameters.backbone == "small":
        from icmbench.tasks.small_detector import small_mask_settings, small_settings

        return MaskRCNN(**small_settings(parameters), **small_mask_settings(parameters))
    sizes = {"min_size": parameters.short_side, "max_size": parameters.long_side}
    if parameters.backbone == "resnet50-fpn-v2":
        return maskrcnn_resnet50_fpn_v2(
            weights=None, weights_backbone=None, num_classes=parameters.classes, **sizes
        )
    weights = ResNeXt101_32X8D_Weights.IMAGENET1K_V2 if parameters.imagenet_backbone else None
    backbone = resnet_fpn_backbone(backbone_name="resnext101_32x8d", weights=weights)
    return MaskRCNN(backbone, parameters.classes, **sizes)
