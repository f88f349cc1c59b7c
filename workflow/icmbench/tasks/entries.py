"""Register the tasks and their parameters; imports no network library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, Field, model_validator

from icmbench.codecs.layered.entries import LayeredParameters
from icmbench.metrics.catalogue import family_metrics
from icmbench.registry import TASKS, DataKind, NoParameters, TaskEntry
from icmbench.utils.models import Strict
from icmbench.utils.places import here_or_shipped

# --- human vision ---------------------------------------------------------------------------------

TASKS.register(
    TaskEntry(
        name="reconstruction",
        parameters=NoParameters,
        implementation="icmbench.tasks.base:Reconstruction",
        trainable=False,
        metrics=("psnr", "ms_ssim"),
    )
)


# --- torchvision's detectors ----------------------------------------------------------------------


class DetectorParameters(Strict):
    """Settings of all detectors."""

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
        "resnext101-32x8d-fpn: the layout of the papers' detector, for which torchvision has no "
        "COCO weights. small: for CPUs (ours).",
    )
    layout: Literal["torchvision", "detectron2"] = Field(
        "torchvision",
        description="Of a resnext101-32x8d-fpn. detectron2: anchors and pooling as its weights "
        "need, which `python -m icmbench convert` translates.",
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
# What Mask R-CNN has in common with Faster R-CNN.
_DETECTOR = ("network.backbone.", "network.rpn.", "network.roi_heads.box_")
_MASK_LOSSES = (*_BOX_LOSSES, "loss_mask")
_BOX_METRICS = family_metrics("detection")
_MASK_METRICS = (*_BOX_METRICS, *family_metrics("instance-segmentation"))

TASKS.register(
    TaskEntry(
        name="faster-rcnn",
        parameters=FasterRcnnParameters,
        implementation="icmbench.tasks.detectors:FasterRcnn",
        trainable=True,
        parts=("detector",),
        loss_terms=_BOX_LOSSES,
        metrics=_BOX_METRICS,
        pretrained=lambda parameters: parameters.backbone == "resnet50-fpn",
    )
)
TASKS.register(
    TaskEntry(
        name="mask-rcnn",
        parameters=MaskRcnnParameters,
        implementation="icmbench.tasks.detectors:MaskRcnn",
        trainable=True,
        parts=("detector",),
        loss_terms=_MASK_LOSSES,
        metrics=_MASK_METRICS,
        starts_from={"faster-rcnn": _DETECTOR},
        pretrained=lambda parameters: parameters.backbone == "resnet50-fpn-v2",
    )
)
TASKS.register(
    TaskEntry(
        name="adapted-mask-rcnn",
        parameters=AdaptedMaskRcnnParameters,
        implementation="icmbench.tasks.detectors:AdaptedMaskRcnn",
        trainable=True,
        parts=("adaptation", "detector"),
        loss_terms=_MASK_LOSSES,
        metrics=_MASK_METRICS,
        starts_from={"mask-rcnn": ("network.",), "faster-rcnn": _DETECTOR},
        pretrained=lambda parameters: parameters.backbone == "resnet50-fpn-v2",
    )
)


# --- a published detector ------------------------------------------------------------------------


class YoloxParameters(Strict):
    """YOLOX-nano with the published weights, on an input of 416 x 416."""

    classes: Literal["coco-80"] = Field("coco-80", description="The classes, matched by name.")
    weights: Annotated[str, AfterValidator(lambda path: str(here_or_shipped(path)))] = Field(
        "data/photographs/yolox_nano.safetensors",
        validate_default=True,
        description="File of the published weights: that of the repository, yolox_nano.pth or "
        "yolox_nano.onnx (needs package onnx). Other weights are refused.",
    )


TASKS.register(
    TaskEntry(
        name="yolox-nano",
        parameters=YoloxParameters,
        implementation="icmbench.tasks.yolox:Yolox",
        trainable=True,
        loss_terms=("task", "features"),
        metrics=_BOX_METRICS,
        files=("weights",),
        exact=True,
        pretrained=lambda parameters: True,
        one_size=True,
    )
)


# --- tang2025: tasks on the codec's backbone ------------------------------------------------------


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
    refresh_epochs: int = Field(
        20, ge=1, description="Refresh interval of the boxes, in epochs after the warm-up."
    )
    threshold: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Of the min-max normalised heat map; the box contains all cells above it.",
    )
    alpha: float = Field(
        0.6, gt=0, description="Beta(alpha, alpha) places the crop's centre; below 1: off-centre."
    )


class ProbeParameters(BackboneParameters):
    """A linear classifier on the pooled features of the last stage."""

    classes: int = Field(1000, ge=2, description="Classes of the data set.")


class ResnetRcnnParameters(BackboneParameters):
    """Faster or Mask R-CNN on a feature pyramid over the four stages."""

    short_side: int | None = Field(
        None,
        ge=64,
        description="Images are resized to this short side, where they come in another size; null "
        "reads them as they come. Features are never resized.",
    )
    long_side: int | None = Field(None, ge=64, description="Bound on the resized long side.")
    classes: int = Field(
        91, ge=2, description="Classes with the background; 91 is torchvision's COCO numbering."
    )
    masks: bool = Field(False, description="Mask R-CNN instead of Faster R-CNN.")
    batch_norm: Literal["frozen", "trained"] = Field(
        "frozen",
        description="frozen: the backbone keeps its running averages. trained: as MoCo fine-tunes, "
        "the trained parts use the statistics of the whole batch in training, of all devices "
        "(several must be GPUs), and the pyramid has batch norm too.",
    )
    size: Literal["small", "full"] = Field(
        "full",
        description="full: anchors, pyramid and heads as torchvision's fasterrcnn_resnet50_fpn and "
        "maskrcnn_resnet50_fpn. small: fewer and smaller ones for images of about 128 pixels "
        "(ours).",
    )


def _contrastive(
    name: str, starts_from: Mapping[str, tuple[str, ...]] | None = None, **defaults: bool
) -> None:
    TASKS.register(
        TaskEntry(
            name=name,
            parameters=ContrastiveParameters,
            implementation="icmbench.tasks.contrastive.moco:Contrastive",
            trainable=True,
            parts=("projection",),
            loss_terms=("contrastive",),
            metrics=(),
            starts_from=starts_from or {},
            trains_codec=True,
            defaults=defaults,
        )
    )


_contrastive("contrastive")
_contrastive("contrastive-uniform", semantic_crop=False)
_contrastive(
    "contrastive-joint",
    starts_from={"contrastive": ("key.backbone.", "projection.")},
    eliminate=True,
)


def _on_backbone(
    name: str,
    implementation: str,
    parameters: type[BackboneParameters],
    head: str,
    loss_terms: tuple[str, ...],
    metrics: tuple[str, ...],
    starts_from: Mapping[str, tuple[str, ...]] | None = None,
    **defaults: bool,
) -> None:
    """Register a task that begins with the backbone of a codec, on images or on its features.

    A detector on features has no head: that of images may give it everything else.
    """
    on_features = name.startswith("feature-")
    TASKS.register(
        TaskEntry(
            name=name,
            parameters=parameters,
            implementation=f"icmbench.tasks.{implementation}",
            trainable=True,
            parts=("tail", head) if on_features else ("head", "tail", head),
            loss_terms=loss_terms,
            metrics=metrics,
            starts_from=starts_from or {},
            starts_from_codec=dict.fromkeys(_DICM, _TAIL if on_features else (*_HEAD, *_TAIL)),
            input_kind="features" if on_features else "images",
            defaults=defaults,
        )
    )


# Names that a codec's backbone has here, and all names.
_DICM = ("dicm", "dicm-no-elimination", "dicm-no-context")
_HEAD = ("network.conv1.", "network.bn1.", "network.layer1.")
_TAIL = ("network.layer2.", "network.layer3.", "network.layer4.")
_ALL = ("",)
_PROBE = (ProbeParameters, "classifier", ("cross_entropy",), family_metrics("classification"))
_BOXES = (ResnetRcnnParameters, "detector", _BOX_LOSSES, _BOX_METRICS)
_MASKS = (ResnetRcnnParameters, "detector", _MASK_LOSSES, _MASK_METRICS)
_RCNN, _FEATURE_RCNN = "resnet_rcnn:ResnetRcnn", "resnet_rcnn:FeatureRcnn"
_on_backbone("linear-probe", "probe:Probe", *_PROBE)
_on_backbone("feature-probe", "probe:FeatureProbe", *_PROBE)
_on_backbone("resnet-faster-rcnn", _RCNN, *_BOXES)
_on_backbone("feature-faster-rcnn", _FEATURE_RCNN, *_BOXES, {"resnet-faster-rcnn": _ALL})
_on_backbone("resnet-mask-rcnn", _RCNN, *_MASKS, masks=True)
_on_backbone("feature-mask-rcnn", _FEATURE_RCNN, *_MASKS, {"resnet-mask-rcnn": _ALL}, masks=True)


# --- zhang2022: faces, on images or on latents ----------------------------------------------------


class FaceParameters(Strict):
    """A shared stem, and a trunk for each of the two analyses."""

    attributes: int = Field(
        40, ge=0, description="Number of attributes to predict; 0 leaves this analysis out."
    )
    parsing: int = Field(
        19,
        ge=0,
        description="Classes of the parsing map with the background; 0 leaves this analysis out.",
    )
    backbone: Literal["small", "resnet50"] = Field(
        "resnet50",
        description="resnet50: the stages of ResNet-50. small: one block per stage, which trains "
        "on a CPU in a minute (ours).",
    )
    width: int = Field(16, ge=4, description="Channels of the small backbone's first stage.")

    @model_validator(mode="after")
    def _some_analysis(self) -> FaceParameters:
        if not self.attributes and not self.parsing:
            raise ValueError("attributes and parsing are both 0; set one of them above 0")
        if self.parsing == 1:
            raise ValueError("parsing is 1; a map needs at least two classes, 0 leaves it out")
        return self


class FaceOnFeaturesParameters(FaceParameters):
    """The same on a codec's latents, whose sides are a sixteenth of the image's."""

    feature_channels: int | None = Field(
        None, ge=1, description="Channels of the latents; null means those of the variant's codec."
    )


class FaceOnUnquantisedParameters(FaceParameters):
    """The same on latents of the layered codec before they are rounded."""

    layered: LayeredParameters | None = Field(
        None, description="Size of the codec whose analysis it has; null means the scale's."
    )


_ATTRIBUTES = family_metrics("face-attributes")
_PARSING = family_metrics("semantic-segmentation")


def _faces(
    name: str, loss_terms: tuple[str, ...], metrics: tuple[str, ...], **defaults: int
) -> None:
    """Register an analysis of faces on images, on latents, and the controls of the latter."""
    for read, parameters, implementation in (
        ("images", FaceParameters, "FaceOnImages"),
        ("features", FaceOnFeaturesParameters, "FaceOnFeatures"),
        ("rearranged", FaceParameters, "FaceOnRearranged"),
        ("unquantised", FaceOnUnquantisedParameters, "FaceOnUnquantised"),
    ):
        input_kind = "features" if read == "features" else "images"
        TASKS.register(
            TaskEntry(
                name=f"{name}-on-{read}",
                parameters=parameters,
                implementation=f"icmbench.tasks.faces.analysis:{implementation}",
                trainable=True,
                parts=("stem", *loss_terms),
                loss_terms=("task", *loss_terms),
                metrics=metrics,
                input_kind=cast("DataKind", input_kind),
                starts_from_codec={"layered": ("network.g_a.",)} if read == "unquantised" else {},
                defaults=defaults,
                pretrained=(lambda p: p.backbone == "resnet50") if read == "images" else None,
            )
        )


_faces("face-attributes", ("attributes",), _ATTRIBUTES, parsing=0)
_faces("face-parsing", ("parsing",), _PARSING, attributes=0)
_faces("face-analysis", ("attributes", "parsing"), (*_ATTRIBUTES, *_PARSING))
