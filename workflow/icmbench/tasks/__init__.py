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


class FasterRcnnParameters(Strict):
    """Faster R-CNN as torchvision builds it."""

    backbone: Literal["small", "resnet50-fpn"] = Field(
        "resnet50-fpn",
        description="resnet50-fpn: torchvision's fasterrcnn_resnet50_fpn. small: a network of the "
        "same design that trains on a CPU in a minute (ours).",
    )
    width: int = Field(32, ge=8, description="Channels of the small backbone's first stage.")
    classes: int = Field(
        91, ge=2, description="Classes with the background; 91 is torchvision's COCO numbering."
    )
    short_side: int = Field(800, ge=64, description="The detector resizes to this short side.")
    long_side: int = Field(1333, ge=64, description="Bound on the resized long side.")


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
        loss_terms=(
            "task",
            "loss_classifier",
            "loss_box_reg",
            "loss_objectness",
            "loss_rpn_box_reg",
        ),
        metrics=("box_map", "box_map50", "box_map75"),
    )
)
