"""How networks are judged by what their ``predict`` returns.

For a list of images [3, H, W], RGB float32 in [0, 1] on the job's device, ``predict`` returns

boxes
    for each image a dictionary of ``boxes`` [N, 4] (x1, y1, x2, y2 in pixels of this image),
    ``scores`` [N] and ``labels`` [N], places in the list of classes
masks
    the same with ``masks`` [N, 1, H, W], probabilities
logits
    scores [B, classes], of which the largest is the answer
maps
    for each image the labels [H, W] of its pixels, uint8
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from icmbench.data.dataset import Split
from icmbench.jobs import EvaluateJob
from icmbench.tasks.base import Outcome
from icmbench.tasks.classification import classify
from icmbench.tasks.detection import detect
from icmbench.tasks.segmentation import segment


class Fixed(nn.Module):
    """A network that is used as it is: without losses and without trainable parts."""

    input_kind = "images"
    targets = "none"

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return no trainable part."""
        return {}

    @staticmethod
    def is_as_published(state: Mapping[str, Any]) -> bool:
        """Return whether a state dict is of a network that is built together with its weights."""
        return False


class Detects:
    """Mixin: boxes, and masks where the job's metrics are of masks."""

    @staticmethod
    def evaluate(job: EvaluateJob, split: Split) -> Outcome:
        """Detect on every image of a split; see :func:`icmbench.tasks.detection.detect`."""
        masks = any("mask_" in metric for metric in job.task.metrics)
        return detect(job, split, ("bbox", "segm") if masks else ("bbox",))


class Classifies:
    """Mixin: logits."""

    @staticmethod
    def evaluate(job: EvaluateJob, split: Split) -> Outcome:
        """Classify every image; see :func:`icmbench.tasks.classification.classify`."""
        return classify(job, split)


class Segments:
    """Mixin: label maps."""

    @staticmethod
    def evaluate(job: EvaluateJob, split: Split) -> Outcome:
        """Segment every image; see :func:`icmbench.tasks.segmentation.segment`."""
        return segment(job, split)


def labels_of_logits(logits: Tensor, height: int, width: int) -> Tensor:
    """Return the labels [height, width], uint8, of logits [1, classes, h, w].

    Logits, not labels, are resized, bilinearly, as torchvision's networks do inside.
    """
    if logits.shape[-2:] != (height, width):
        logits = functional.interpolate(
            logits.float(), (height, width), mode="bilinear", align_corners=False
        )
    return logits[0].argmax(0).byte()
