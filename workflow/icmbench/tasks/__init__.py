"""Tasks: what a machine or a person does with the decoded image.

This file registers the built-in ones and their parameters; it imports no network library.
"""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import Field

from icmbench.metrics.catalogue import family_metrics
from icmbench.registry import TASKS, DataKind, TaskEntry
from icmbench.tasks.faces.parameters import FaceOnFeaturesParameters, FaceParameters
from icmbench.tasks.tang2025_parameters import (
    ContrastiveParameters,
    ProbeParameters,
    ResnetRcnnParameters,
)
from icmbench.utils.models import Strict


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
_BOX_METRICS = family_metrics("detection")
_MASK_METRICS = family_metrics("instance-segmentation")

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


# --- tang2025 ------------------------------------------------------------------------------------


def _contrastive(name: str, starts_from: tuple[str, ...] = (), **defaults: bool) -> None:
    TASKS.register(
        TaskEntry(
            name=name,
            parameters=ContrastiveParameters,
            implementation="icmbench.tasks.contrastive.task:Contrastive",
            trainable=True,
            parts=("projection",),
            loss_terms=("contrastive",),
            metrics=(),
            starts_from=starts_from,
            trains_codec=True,
            defaults=defaults,
        )
    )


_contrastive("contrastive")
_contrastive("contrastive-uniform", semantic_crop=False)
_contrastive("contrastive-joint", starts_from=("contrastive",), eliminate=True)


def _on_backbone(
    name: str,
    implementation: str,
    input_kind: DataKind,
    parameters: type[Strict],
    parts: tuple[str, ...],
    loss_terms: tuple[str, ...],
    metrics: tuple[str, ...],
    *,
    starts_from: tuple[str, ...] = (),
    **defaults: bool,
) -> None:
    """Register a task that begins with the backbone of a codec."""
    TASKS.register(
        TaskEntry(
            name=name,
            parameters=parameters,
            implementation=f"icmbench.tasks.{implementation}",
            trainable=True,
            parts=("head", *parts) if input_kind == "images" else parts,
            loss_terms=loss_terms,
            metrics=metrics,
            starts_from=starts_from,
            starts_from_codec=("dicm", "dicm-no-elimination", "dicm-no-context"),
            input_kind=input_kind,
            defaults=defaults,
        )
    )


_PROBE: Any = (
    ProbeParameters,
    ("tail", "classifier"),
    ("cross_entropy",),
    family_metrics("classification"),
)
_on_backbone("linear-probe", "probe:Probe", "images", *_PROBE)
_on_backbone("feature-probe", "probe:FeatureProbe", "features", *_PROBE)
_BOXES: Any = (ResnetRcnnParameters, ("tail", "detector"), _BOX_LOSSES, _BOX_METRICS)
_on_backbone("resnet-faster-rcnn", "resnet_rcnn:ResnetRcnn", "images", *_BOXES)
_on_backbone(
    "feature-faster-rcnn",
    "resnet_rcnn:FeatureRcnn",
    "features",
    *_BOXES,
    starts_from=("resnet-faster-rcnn",),
)
_MASKS: Any = (
    ResnetRcnnParameters,
    ("tail", "detector"),
    (*_BOX_LOSSES, "loss_mask"),
    (*_BOX_METRICS, *_MASK_METRICS),
)
_on_backbone("resnet-mask-rcnn", "resnet_rcnn:ResnetRcnn", "images", *_MASKS, masks=True)
_on_backbone(
    "feature-mask-rcnn",
    "resnet_rcnn:FeatureRcnn",
    "features",
    *_MASKS,
    starts_from=("resnet-mask-rcnn",),
    masks=True,
)


# --- zhang2022 -----------------------------------------------------------------------------------

_ATTRIBUTES = family_metrics("face-attributes")
_PARSING = family_metrics("face-parsing")


def _faces(
    name: str, loss_terms: tuple[str, ...], metrics: tuple[str, ...], **defaults: int
) -> None:
    """Register an analysis of faces on images and on latents."""
    for input_kind, parameters, implementation in (
        ("images", FaceParameters, "FaceOnImages"),
        ("features", FaceOnFeaturesParameters, "FaceOnFeatures"),
    ):
        TASKS.register(
            TaskEntry(
                name=f"{name}-on-{input_kind}",
                parameters=parameters,
                implementation=f"icmbench.tasks.faces.analysis:{implementation}",
                trainable=True,
                parts=("stem", *loss_terms),
                loss_terms=("task", *loss_terms),
                metrics=metrics,
                input_kind=cast("DataKind", input_kind),
                defaults=defaults,
            )
        )


_faces("face-attributes", ("attributes",), _ATTRIBUTES, parsing=0)
_faces("face-parsing", ("parsing",), _PARSING, attributes=0)
_faces("face-analysis", ("attributes", "parsing"), (*_ATTRIBUTES, *_PARSING))
