"""Tasks: what a machine or a person does with the decoded image.

This file registers the built-in ones and their parameters; it imports no network library.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from icmbench.config.base import Strict
from icmbench.registry import TASKS, TaskEntry


class ReconstructionParameters(Strict):
    """Human vision has no network."""


class DetectorParameters(Strict):
    """What all detectors have."""

    width: int = Field(32, ge=8, description="Channels of the small backbone's first stage.")
    classes: int = Field(
        91, ge=2, description="Classes with the background; 91 is torchvision's COCO numbering."
    )
    short_side: int = Field(800, ge=64, description="The detector resizes to this short side.")
    long_side: int = Field(1333, ge=64, description="Bound on the resized long side.")


class FasterRcnnParameters(DetectorParameters):
    """Faster R-CNN as torchvision builds it."""

    backbone: Literal["small", "resnet50-fpn"] = Field(
        "resnet50-fpn",
        description="resnet50-fpn: torchvision's fasterrcnn_resnet50_fpn. small: a network of the "
        "same design that trains on a CPU in a minute (ours).",
    )


class MaskRcnnParameters(DetectorParameters):
    """Mask R-CNN as torchvision builds it."""

    backbone: Literal["small", "resnet50-fpn-v2", "resnext101-32x8d-fpn"] = Field(
        "resnet50-fpn-v2",
        description="resnet50-fpn-v2: torchvision's maskrcnn_resnet50_fpn_v2, with COCO weights. "
        "resnext101-32x8d-fpn: the layout of the papers' detector; COCO weights are not "
        "torchvision's to give. small: ours, for CPUs.",
    )
    imagenet_backbone: bool = Field(
        False, description="Start a resnext101-32x8d-fpn from torchvision's ImageNet weights."
    )


class AdaptedMaskRcnnParameters(MaskRcnnParameters):
    """Mask R-CNN behind the dynamic transformation network of zhu2024."""

    adaptation_width: int = Field(
        64, ge=8, description="Channels of the transformation network; the paper gives none."
    )


_BOX_LOSSES = ("task", "loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")
_BOX_METRICS = ("box_map", "box_map50", "box_map75")
_MASK_METRICS = ("mask_map", "mask_map50", "mask_map75")

TASKS.register(
    TaskEntry(
        name="reconstruction",
        parameters=ReconstructionParameters,
        implementation="icmbench.tasks.reconstruction:Reconstruction",
        trainable=False,
        loss_terms=(),
        metrics=("psnr", "ms_ssim"),
    )
)
TASKS.register(
    TaskEntry(
        name="faster-rcnn",
        parameters=FasterRcnnParameters,
        implementation="icmbench.tasks.faster_rcnn:FasterRcnn",
        trainable=True,
        parts=("detector",),
        loss_terms=_BOX_LOSSES,
        metrics=_BOX_METRICS,
    )
)
TASKS.register(
    TaskEntry(
        name="mask-rcnn",
        parameters=MaskRcnnParameters,
        implementation="icmbench.tasks.mask_rcnn:MaskRcnn",
        trainable=True,
        parts=("detector",),
        loss_terms=(*_BOX_LOSSES, "loss_mask"),
        metrics=(*_BOX_METRICS, *_MASK_METRICS),
        starts_from=("faster-rcnn",),
    )
)
TASKS.register(
    TaskEntry(
        name="adapted-mask-rcnn",
        parameters=AdaptedMaskRcnnParameters,
        implementation="icmbench.tasks.mask_rcnn:AdaptedMaskRcnn",
        trainable=True,
        parts=("adaptation", "detector"),
        loss_terms=(*_BOX_LOSSES, "loss_mask"),
        metrics=(*_BOX_METRICS, *_MASK_METRICS),
        starts_from=("mask-rcnn", "faster-rcnn"),
    )
)
