"""Parts of torchvision-style detectors: small ones for CPUs (ours), and boxes in float32."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.models.resnet import BasicBlock
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, roi_align
from torchvision.ops.poolers import LevelMapper

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


class ExactAnchors(AnchorGenerator):
    """Anchor boxes as Detectron2 makes them: not rounded to whole pixels."""

    def generate_anchors(
        self,
        scales: list[int],
        aspect_ratios: list[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> Tensor:
        """Return boxes [N, 4] around the origin, for ratios of height to width."""
        roots = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        sides = torch.as_tensor(scales, dtype=dtype, device=device)
        widths = (sides[None, :] / roots[:, None]).flatten()
        heights = (sides[None, :] * roots[:, None]).flatten()
        return torch.stack([-widths, -heights, widths, heights], dim=1) / 2


class AlignedPooler(MultiScaleRoIAlign):
    """RoIAlign as Detectron2 has it: half a cell to the left and top, and as many samples as cells.

    torchvision's own class has no argument for it. Boxes of every size keep their size.
    """

    def __init__(self, featmap_names: list[str], output_size: int) -> None:
        super().__init__(featmap_names, output_size, sampling_ratio=0)

    def forward(
        self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Return features [N, C, side, side] of all boxes."""
        maps = [x[name] for name in self.featmap_names]
        levels = LevelMapper(2, 1 + len(maps))(boxes)
        counts = [len(one) for one in boxes]
        indices = torch.arange(len(boxes), device=levels.device).repeat_interleave(
            torch.tensor(counts, device=levels.device)
        )
        rois = torch.cat([indices[:, None].to(boxes[0].dtype), torch.cat(boxes)], dim=1)
        pooled = maps[0].new_zeros(len(rois), maps[0].shape[1], *self.output_size)
        for level, features in enumerate(maps):
            own = levels == level
            pooled[own] = roi_align(
                features, rois[own], self.output_size, 1 / 2 ** (level + 2), 0, aligned=True
            )
        return pooled


def detectron2_settings() -> dict[str, Any]:
    """Return the arguments of torchvision's MaskRCNN that make it Detectron2's network."""
    levels = ["0", "1", "2", "3"]
    sizes = ((32,), (64,), (128,), (256,), (512,))
    return {
        "rpn_anchor_generator": ExactAnchors(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        "box_roi_pool": AlignedPooler(levels, 7),
        "mask_roi_pool": AlignedPooler(levels, 14),
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
