"""Boxes in float32 whatever the precision of the networks.

torchvision decodes boxes in the type of the regressions, and places anchors in that of the feature
maps; in bfloat16 coordinates come in steps of 4 pixels from 512 on, and of 8 from 1024 on.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads


def keep_boxes_in_float32(backbone: nn.Module, rpn: nn.Module, roi_heads: RoIHeads) -> None:
    """Let pyramid levels, regressions, scores and masks of a detector leave in float32.

    Args:
        backbone: gives the pyramid's levels.
        rpn: torchvision's ``RegionProposalNetwork``.
        roi_heads: torchvision's ``RoIHeads``, with masks or without.
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
