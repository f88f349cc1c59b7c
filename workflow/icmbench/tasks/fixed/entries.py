"""Register the networks that are used as they are; imports no network library."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, JsonValue, model_validator

from icmbench.data.classes import Classes
from icmbench.metrics.catalogue import AGREEMENT, family_metrics
from icmbench.registry import TASKS, TaskEntry
from icmbench.utils.models import Strict


class FixedParameters(Strict):
    """What all networks that are used as they are have in common."""

    truth: Literal["labels", "originals"] = Field(
        "labels",
        description="labels: the data set's. originals: the network's own answers on the original "
        "images; the metrics are then called agreement, and no labels are needed.",
    )
    threshold: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Of a detector's own answers those with at least this score are the truth.",
    )


class PublishedParameters(FixedParameters):
    """A network by its name in a library."""

    model: str = Field(description="Name of the network in the library.")
    arguments: dict[str, JsonValue] = Field(
        {}, description="Further arguments of the library's function that builds the network."
    )
    preprocessing: dict[str, JsonValue] = Field(
        {},
        description="Settings that replace those of the published preprocessing, e.g. "
        "{resize_size: 256, crop_size: 224} of torchvision, {crop_pct: 1.0} of timm.",
    )


_CLASSES = (
    "The network's classes in the order of its labels: a list of names, or coco-91, coco-80, "
    "voc-21, imagenet-1k. Matched with the data set's by name."
)


class TorchvisionParameters(PublishedParameters):
    """A network of torchvision by name."""

    weights: str = Field(
        "DEFAULT",
        description="Name of the published weights, e.g. IMAGENET1K_V1. They also name the "
        "preprocessing, whatever weights are loaded.",
    )


class TorchvisionDetectorParameters(TorchvisionParameters):
    """A detector of torchvision; maskrcnn_* also finds masks."""

    classes: Classes = Field("coco-91", description=_CLASSES)


class TorchvisionClassifierParameters(TorchvisionParameters):
    """A classifier of torchvision."""

    classes: Classes = Field("imagenet-1k", description=_CLASSES)


class TorchvisionSegmenterParameters(TorchvisionParameters):
    """A network for semantic segmentation of torchvision."""

    classes: Classes = Field("voc-21", description=_CLASSES)


class TimmClassifierParameters(PublishedParameters):
    """A classifier of timm, e.g. ``resnet50.a1_in1k``."""

    classes: Classes = Field("imagenet-1k", description=_CLASSES)


class InputParameters(Strict):
    """What is made of an image, RGB of 8 bits, before a network reads it, in this order."""

    short_side: int | None = Field(None, ge=1, description="Resize the short side to this.")
    stretch: list[int] | None = Field(
        None, min_length=2, max_length=2, description="Resize to [height, width]."
    )
    letterbox: list[int] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Resize into [height, width] as it fits; pad right and below.",
    )
    padding: int = Field(114, ge=0, le=255, description="Samples of the letterbox's padding.")
    crop: list[int] | None = Field(
        None, min_length=2, max_length=2, description="Cut [height, width] from the middle."
    )
    interpolation: Literal["bilinear", "bicubic"] = Field("bilinear", description="Of resizing.")
    antialias: bool = Field(
        True, description="Of resizing. Pillow does, OpenCV (YOLOX's own code) does not."
    )
    channels: Literal["rgb", "bgr"] = Field("rgb", description="Order of the channels.")
    range: Literal[1, 255] = Field(1, description="Samples are 0 to 1, or 0 to 255.")
    mean: list[float] = Field(
        [0.0], min_length=1, max_length=3, description="Subtracted; one number or one a channel."
    )
    std: list[float] = Field(
        [1.0], min_length=1, max_length=3, description="Divided by; one number or one a channel."
    )

    @model_validator(mode="after")
    def _one_size(self) -> InputParameters:
        given = [k for k in ("short_side", "stretch", "letterbox") if getattr(self, k) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} exclude each other; keep one")
        if min([*(self.stretch or []), *(self.letterbox or []), *(self.crop or []), 1]) < 1:
            raise ValueError("sides must be 1 or more")
        if 0 in self.std:
            raise ValueError("std: 0 cannot be divided by")
        return self


class OnnxParameters(FixedParameters):
    """A network in an ONNX file, run by onnxruntime on the CPU."""

    file: str = Field(description="The ONNX file; absolute, or relative to the working directory.")
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="Checksum that the file must have."
    )
    classes: Classes = Field(description=_CLASSES)
    input: InputParameters = InputParameters()


class OnnxDetectorParameters(OnnxParameters):
    """A detector in an ONNX file."""

    output: Literal["boxes", "yolox"] = Field(
        description="boxes: outputs ``boxes`` [N, 4] in pixels of the input, ``scores`` [N] and "
        "``labels`` [N]. yolox: YOLOX's raw grid [1, cells, 5 + classes]."
    )
    names: dict[Literal["boxes", "scores", "labels"], str] = Field(
        {}, description="Names of the outputs in the file, where they are others."
    )
    box_format: Literal["xyxy", "xywh", "cxcywh"] = Field(
        "xyxy", description="Form of ``boxes``: corners, or a corner or the centre and the size."
    )
    min_score: float = Field(
        0.001, ge=0, le=1, description="Boxes of a raw grid with a lower score are left out."
    )
    nms: float = Field(
        0.65, gt=0, le=1, description="IoU of non-maximum suppression by class, of a raw grid."
    )


class OnnxClassifierParameters(OnnxParameters):
    """A classifier in an ONNX file, whose first output has the logits [1, classes]."""


class OnnxSegmenterParameters(OnnxParameters):
    """A network for semantic segmentation in an ONNX file.

    Its first output has the logits [1, classes, h, w] or the labels [1, h, w], of the whole image.
    """

    @model_validator(mode="after")
    def _whole_image(self) -> OnnxSegmenterParameters:
        if self.input.crop is not None or self.input.letterbox is not None:
            raise ValueError("input: a label map is of the whole image; use stretch or short_side")
        return self


class ModuleParameters(FixedParameters):
    """A class of one's own."""

    implementation: str = Field(
        pattern=r"^[\w.]+:\w+$",
        description="``module:Class`` of an nn.Module; the module is on PYTHONPATH.",
    )
    answer: Literal["boxes", "masks", "logits", "maps"] = Field(
        description="What its ``predict`` returns, see docs/own-networks.md."
    )
    classes: Classes = Field(description=_CLASSES)
    arguments: dict[str, JsonValue] = Field({}, description="Arguments of the class.")
    files: list[str] = Field(
        [], description="Files that it reads, such as its weights: a change repeats evaluation."
    )


_BOXES = family_metrics("detection")
_MASKS = (*_BOXES, *family_metrics("instance-segmentation"))
_LOGITS = family_metrics("classification")
_MAPS = family_metrics("semantic-segmentation")
_BY_ANSWER = {"boxes": _BOXES, "masks": _MASKS, "logits": _LOGITS, "maps": _MAPS}


def _fixed(
    name: str,
    parameters: type[FixedParameters],
    implementation: str,
    answer: str,
    files: tuple[str, ...] = (),
) -> None:
    """Register a network that is used as it is."""

    def metrics(given: Any) -> tuple[str, ...]:
        own = getattr(given, "answer", answer)
        if getattr(given, "model", "").startswith("maskrcnn"):
            own = "masks"
        prefix = AGREEMENT if given.truth == "originals" else ""
        return tuple(f"{prefix}{metric}" for metric in _BY_ANSWER[own])

    loaded = issubclass(parameters, PublishedParameters)
    TASKS.register(
        TaskEntry(
            name=name,
            parameters=parameters,
            implementation=f"icmbench.tasks.fixed.{implementation}",
            trainable=loaded,
            metrics=_BY_ANSWER[answer],
            metrics_for=metrics,
            files=files,
            exact=True,
            one_size=True,
            pretrained=(lambda _: True) if loaded else None,
        )
    )


_FILE = ("file",)
_TV, _ONNX = "torchvision_networks", "onnx_networks"
_fixed("torchvision-detector", TorchvisionDetectorParameters, f"{_TV}:Detector", "boxes")
_fixed("torchvision-classifier", TorchvisionClassifierParameters, f"{_TV}:Classifier", "logits")
_fixed("torchvision-segmenter", TorchvisionSegmenterParameters, f"{_TV}:Segmenter", "maps")
_fixed("timm-classifier", TimmClassifierParameters, "timm_networks:Classifier", "logits")
_fixed("onnx-detector", OnnxDetectorParameters, f"{_ONNX}:Detector", "boxes", _FILE)
_fixed("onnx-classifier", OnnxClassifierParameters, f"{_ONNX}:Classifier", "logits", _FILE)
_fixed("onnx-segmenter", OnnxSegmenterParameters, f"{_ONNX}:Segmenter", "maps", _FILE)
_fixed("module", ModuleParameters, "module:Module", "boxes", ("files",))
