"""Faster and Mask R-CNN over the split ResNet, on images or on a codec's features.

They consist of torchvision's pyramid, proposal network and heads. Boxes are in the pixels that were
coded, so that detection on images and on features has equal geometry. How
tang2025 connects features to a detector is not published; tail, pyramid and heads are trained, as
in Omni-ICM (Feng et al., ECCV 2022).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import _setup_scales

from icmbench.codecs.base import Features
from icmbench.data.dataset import Split
from icmbench.jobs import EvaluateJob
from icmbench.networks.backbone import SplitResNet
from icmbench.tasks.base import Outcome
from icmbench.tasks.detection import detect
from icmbench.tasks.detector_parts import (
    keep_boxes_in_float32,
    small_mask_settings,
    small_settings,
)
from icmbench.tasks.entries import DetectorParameters, ResnetRcnnParameters
from icmbench.tasks.probe import OnBackbone, OnImages, remove_head

Target = dict[str, Tensor]

_STRIDES = (4, 8, 16, 32)
_FULL_CHANNELS = 256
_SMALL_LEVELS = 3  # of stride 8, 16 and 32


class FeatureRcnn(OnBackbone):
    """A detector on features of stride 4; batch norm's factors and offsets train with the tail.

    With ``batch_norm: trained`` it is fine-tuned as MoCo's detectors (He et al., CVPR 2020, section
    4.2): synchronised batch norm, in the pyramid too.

    Args:
        parameters: size of the backbone, classes, masks or not, size of the detector.
        pretrained: not used; the backbone's weights are a codec's.
    """

    def __init__(self, parameters: ResnetRcnnParameters, pretrained: bool = False) -> None:
        super().__init__()
        self.settings, self.batch_norm = parameters, parameters.batch_norm
        self.network = SplitResNet(parameters.backbone_blocks, parameters.backbone_width, classes=0)
        if self.input_kind == "features":
            remove_head(self.network)
        self.detector = _Detector(parameters, self.network.channels)

    @property
    def targets(self) -> str:
        """What its losses need: boxes, or boxes and masks."""
        return "masks" if self.settings.masks else "boxes"

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part."""
        return {"tail": self.network.tail_modules(), "detector": [self.detector]}

    def losses(self, inputs: Any, targets: list[Target]) -> dict[str, Tensor]:
        """Return the four or five detector losses for inputs of :attr:`input_kind`."""
        features = self.features(inputs)
        losses: dict[str, Tensor] = self.detector(features, self._stages(features), targets)[1]
        return losses

    @torch.no_grad()
    def predict(self, inputs: Any) -> list[dict[str, Tensor]]:
        """Return boxes (x1, y1, x2, y2 in pixels), labels and scores for each image.

        Mask R-CNN adds masks, probabilities [N, 1, H, W].
        """
        self.eval()
        features = self.features(inputs)
        results: list[dict[str, Tensor]] = self.detector(features, self._stages(features))[0]
        return results

    def _stages(self, features: Features) -> list[Tensor]:
        return [features.values, *self.network.tail(features.values)]

    @staticmethod
    def evaluate(job: EvaluateJob, split: Split) -> Outcome:
        """Detect on every image of a split; see :func:`icmbench.tasks.detection.detect`."""
        masks = ResnetRcnnParameters.model_validate(job.task.parameters).masks
        return detect(job, split, ("bbox", "segm") if masks else ("bbox",))


class ResnetRcnn(OnImages, FeatureRcnn):
    """The same on images [3, H, W] in [0, 1].

    Where the parameters have a size, images are resized to it; those of training are not.
    """

    @torch.no_grad()
    def predict(self, inputs: list[Tensor]) -> list[dict[str, Tensor]]:
        """Return detections; boxes are in pixels of the image as it came."""
        factors = [self._factor(image) for image in inputs]
        images = [_resized(image, f) for image, f in zip(inputs, factors, strict=True)]
        results = super().predict(images)
        for image, own, result in zip(inputs, images, results, strict=True):
            width, height = (image.shape[-i] / own.shape[-i] for i in (1, 2))
            result["boxes"] = result["boxes"] * result["boxes"].new_tensor([width, height] * 2)
        return results

    def _factor(self, image: Tensor) -> float:
        short, long = self.settings.short_side, self.settings.long_side
        if short is None:
            return 1.0
        sides = sorted(image.shape[-2:])
        factor = short / sides[0]
        if long is not None:
            factor = min(factor, long / sides[1])
        # The data set resized it: sides are rounded.
        fits = all(abs(round(side * factor) - side) <= 1 for side in sides)
        return 1.0 if fits else factor


def _resized(image: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return image
    size = [round(side * factor) for side in image.shape[-2:]]
    resized = functional.interpolate(
        image[None], size, mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0].clamp(0, 1)


class _Pyramid(nn.Module):
    """A feature pyramid over the last of the four stages.

    Args:
        channels: of the four stages.
        first: index of the first stage that is used.
        out_channels: of every level.
        extra: whether a fifth, coarsest level is added for proposals.
        norm: whether batch norm follows every convolution.
    """

    def __init__(
        self, channels: tuple[int, ...], first: int, out_channels: int, extra: bool, norm: bool
    ) -> None:
        super().__init__()
        self.first, self.out_channels = first, out_channels
        last = LastLevelMaxPool() if extra else None
        self.layers = FeaturePyramidNetwork(
            list(channels[first:]), out_channels, last, nn.BatchNorm2d if norm else None
        )

    def forward(self, stages: list[Tensor]) -> OrderedDict[str, Tensor]:
        """Return the levels by name, finest first."""
        used = OrderedDict((str(i), stage) for i, stage in enumerate(stages[self.first :]))
        levels: OrderedDict[str, Tensor] = self.layers(used)
        return levels


class _Detector(nn.Module):
    """Pyramid, proposals and heads of torchvision's Faster or Mask R-CNN."""

    def __init__(self, parameters: ResnetRcnnParameters, channels: tuple[int, ...]) -> None:
        super().__init__()
        kind = MaskRCNN if parameters.masks else FasterRCNN
        norm = parameters.batch_norm == "trained"
        if parameters.size == "small":
            settings = _small(parameters)
            self.pyramid = _Pyramid(channels, 1, settings.pop("channels"), False, norm)
        else:
            settings = {"num_classes": parameters.classes}
            self.pyramid = _Pyramid(channels, 0, _FULL_CHANNELS, True, norm)
        built = kind(self.pyramid, **settings)
        self.rpn, self.roi_heads = built.rpn, built.roi_heads
        strides = _STRIDES[self.pyramid.first :]
        for name in ("box_roi_pool", "mask_roi_pool"):
            pool = getattr(self.roi_heads, name)
            if pool is not None:
                _set_strides(pool, strides)
        keep_boxes_in_float32(self.pyramid, self.rpn, self.roi_heads)

    def forward(
        self, features: Features, stages: list[Tensor], targets: list[Target] | None = None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return detections (evaluation mode) and losses (training mode, or none)."""
        levels = self.pyramid(stages)
        # Only sizes of the images are read: of the padded batch for anchors, of each for clipping.
        shape = (len(features.sizes), 3, *features.padded)
        images = ImageList(levels["0"].new_zeros(1).expand(shape), features.sizes)
        proposals, losses = self.rpn(images, levels, targets)
        detections, more = self.roi_heads(levels, proposals, features.sizes, targets)
        for detection, size in zip(detections, features.sizes, strict=False):
            if "masks" in detection:
                detection["masks"] = paste_masks_in_image(
                    detection["masks"], detection["boxes"], size
                )
        return detections, {**more, **losses}


def _small(parameters: ResnetRcnnParameters) -> dict[str, Any]:
    """Return the arguments of torchvision's classes for images of about 128 pixels."""
    common = DetectorParameters(classes=parameters.classes)
    settings = small_settings(common)
    channels = settings.pop("backbone").out_channels
    names = [str(i) for i in range(_SMALL_LEVELS)]
    sizes = ((20, 30), (44, 64), (80, 110))
    settings["rpn_anchor_generator"] = AnchorGenerator(sizes, ((0.6, 1.0, 1.6),) * len(sizes))
    settings["box_roi_pool"] = MultiScaleRoIAlign(names, output_size=4, sampling_ratio=1)
    settings["box_head"] = TwoMLPHead(16 * channels, 128)
    if parameters.masks:
        settings.update(small_mask_settings(common))
        settings["mask_roi_pool"] = MultiScaleRoIAlign(names, output_size=7, sampling_ratio=1)
    return {"channels": channels, **settings}


def _set_strides(pool: MultiScaleRoIAlign, strides: tuple[int, ...]) -> None:
    """Set the strides of a pool's levels.

    It would infer them from the first images, wrongly if these are mostly padding.
    """
    side = 16 * strides[-1]
    levels = [torch.empty(1, 1, side // stride, side // stride) for stride in strides]
    pool.scales, pool.map_levels = _setup_scales(
        levels, [(side, side)], pool.canonical_scale, pool.canonical_level
    )
