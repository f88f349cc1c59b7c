"""Parts of torchvision-style detectors: small ones for CPUs (ours), and boxes in float32."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.models.resnet import BasicBlock
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from icmbench.tasks.entries import DetectorParameters

_CHANNELS = 64  # of every pyramid level


class SmallBackbone(nn.Module):
    """Three residual stages at 1/4, 1/8 and 1/16 under a feature pyramid.

    Args:
        width: channels of the first stage; the others have 2 and 4 times as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_channels = _CHANNELS  # of every pyramid level; torchvision reads it
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
        self.pyramid = FeaturePyramidNetwork(widths[1:], _CHANNELS)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the pyramid levels of [B, 3, H, W], finest first."""
        x = self.stages[0](self.stem(x))
        levels: OrderedDict[str, Tensor] = OrderedDict()
        for index, stage in enumerate(self.stages[1:]):
            x = stage(x)
            levels[str(index)] = x
        return self.pyramid(levels)


def small_settings(parameters: DetectorParameters) -> dict[str, Any]:
    """Return the arguments of torchvision's FasterRCNN or MaskRCNN for a small detector."""
    sizes = ((20, 30), (44, 64))
    return {
        "backbone": SmallBackbone(parameters.width),
        "min_size": parameters.short_side,
        "max_size": parameters.long_side,
        "rpn_anchor_generator": AnchorGenerator(sizes, ((0.6, 1.0, 1.6),) * len(sizes)),
        "box_roi_pool": MultiScaleRoIAlign(["0", "1"], output_size=4, sampling_ratio=1),
        "box_head": TwoMLPHead(_CHANNELS * 16, 128),
        "box_predictor": FastRCNNPredictor(128, parameters.classes),
        "rpn_pre_nms_top_n_train": 120,
        "rpn_post_nms_top_n_train": 60,
        "rpn_pre_nms_top_n_test": 150,
        "rpn_post_nms_top_n_test": 60,
        "rpn_batch_size_per_image": 64,
        "box_batch_size_per_image": 24,
        "box_detections_per_img": 50,
    }


def small_mask_settings(parameters: DetectorParameters) -> dict[str, Any]:
    """Return the further arguments of torchvision's MaskRCNN."""
    return {
        "mask_roi_pool": MultiScaleRoIAlign(["0", "1"], output_size=7, sampling_ratio=1),
        "mask_head": MaskRCNNHeads(_CHANNELS, (32, 32), 1),
        "mask_predictor": MaskRCNNPredictor(32, 32, parameters.classes),
    }


def keep_boxes_in_float32(backbone: nn.Module, rpn: nn.Module, roi_heads: RoIHeads) -> None:
    """Convert pyramid levels, regressions, scores and masks of a detector to float32.

    torchvision decodes boxes in the type of the regressions, and places anchors in that of the
    feature maps. In bfloat16 coordinates have steps of 4 pixels from 512 on, and of 8 from 1024 on.

    Args:
        backbone: returns the levels of the pyramid.
        rpn: torchvision's ``RegionProposalNetwork``.
        roi_heads: torchvision's ``RoIHeads``, with or without masks.
    """
    predictors = (roi_heads.box_predictor, roi_heads.mask_predictor)
    for module in (backbone, rpn.get_submodule("head"), *predictors):
        if module is not None:
            module.register_forward_hook(_in_float32)


def _in_float32(module: nn.Module, inputs: Any, output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float()
    if isinstance(output, dict):
        return type(output)((name, value.float()) for name, value in output.items())
    return type(output)(_in_float32(module, inputs, value) for value in output)
