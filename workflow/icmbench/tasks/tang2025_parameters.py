"""Settings of the tasks of tang2025; no network library is imported here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from icmbench.utils.models import Strict


class BackboneParameters(Strict):
    """Size of the ResNet that codec and tasks share."""

    backbone_blocks: list[int] = Field(
        [3, 4, 6, 3],
        min_length=4,
        max_length=4,
        description="Bottleneck blocks of each stage; must be the codec's.",
    )
    backbone_width: int = Field(
        64, ge=4, description="Channels of the stem; must be the codec's. 64 makes a ResNet-50."
    )

    @model_validator(mode="after")
    def _every_stage_has_a_block(self) -> BackboneParameters:
        if min(self.backbone_blocks) < 1:
            raise ValueError(f"backbone_blocks {self.backbone_blocks}: each must be 1 or more")
        return self


class ContrastiveParameters(BackboneParameters):
    """MoCo v2 with ContrastiveCrop; defaults are those of the two papers."""

    eliminate: bool = Field(
        False,
        description="Whether features pass the codec's redundancy elimination before the tail: "
        "false while the backbone is trained first, true when both are trained together.",
    )
    crop: int = Field(
        224, ge=32, multiple_of=32, description="Side of both views in pixels; a multiple of 32."
    )
    dimension: int = Field(128, ge=2, description="Length of the projected, normalised features.")
    queue: int = Field(65536, ge=1, description="Keys of earlier batches that are negatives.")
    temperature: float = Field(0.2, gt=0, description="Temperature of the InfoNCE loss.")
    momentum: float = Field(
        0.999, ge=0, le=1, description="Share of the key network that a step keeps."
    )
    area: list[float] = Field(
        [0.2, 1.0],
        min_length=2,
        max_length=2,
        description="Bounds of a view's share of the image's area.",
    )
    semantic_crop: bool = Field(
        True,
        description="ContrastiveCrop: crops are placed in the box of the image's heat map. "
        "False takes ordinary random resized crops throughout.",
    )
    warmup_epochs: int = Field(20, ge=0, description="Epochs of ordinary crops at the beginning.")
    refresh_epochs: int = Field(20, ge=1, description="Boxes are renewed every so many epochs.")
    threshold: float = Field(
        0.1, ge=0, lt=1, description="Of the min-max normalised heat map; the box holds all above."
    )
    alpha: float = Field(
        0.6, gt=0, description="Beta(alpha, alpha) places the crop's centre; below 1: off-centre."
    )


class ProbeParameters(BackboneParameters):
    """A linear classifier on the pooled features of the last stage."""

    classes: int = Field(1000, ge=2, description="Classes of the data set.")


class ResnetRcnnParameters(BackboneParameters):
    """Faster or Mask R-CNN on a feature pyramid over the four stages, without resizing."""

    classes: int = Field(
        91, ge=2, description="Classes with the background; 91 is torchvision's COCO numbering."
    )
    masks: bool = Field(False, description="Mask R-CNN in the place of Faster R-CNN.")
    size: Literal["small", "full"] = Field(
        "full",
        description="full: anchors, pyramid and heads as torchvision's fasterrcnn_resnet50_fpn and "
        "maskrcnn_resnet50_fpn. small: fewer and smaller ones for images of about 128 pixels "
        "(ours).",
    )
