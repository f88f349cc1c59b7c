"""YOLOX-nano as published: a detector of COCO's 80 categories that measures, and teaches codecs.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv:2107.08430. The codec's loss is that of
Chen et al., "TransTIC", ICCV 2023, section 3.3: the distance of the detector's features.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icmbench.data.dataset import Split
from icmbench.jobs import EvaluateJob
from icmbench.networks.yolox import YoloxNano
from icmbench.tasks.base import Outcome
from icmbench.tasks.detection import detect
from icmbench.tasks.entries import YoloxParameters
from icmbench.tasks.fixed.yolox import yolox_boxes

SIDE = 416
_GREY = 114.0
_THRESHOLD, _OVERLAP = 0.001, 0.65  # as in the published evaluation


class Yolox(nn.Module):
    """The published detector. It has no part to train; gradients reach the image.

    Attributes:
        targets: its loss needs no ground truth.
        compares: its loss needs the images before coding, as ``original`` of each target.
    """

    targets: ClassVar[Literal["none"]] = "none"
    compares = True

    def __init__(self, parameters: YoloxParameters, pretrained: bool = False) -> None:
        super().__init__()
        self.network = YoloxNano()
        self._file = Path(parameters.weights)

    def load_pretrained(self) -> None:
        """Load the published weights from the file that the parameters name."""
        self.network.load_published(self._file)

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return no part: the network stays as published."""
        return {}

    @classmethod
    def evaluate(cls, job: EvaluateJob, split: Split) -> Outcome:
        """Detect on every image of a split; see :func:`icmbench.tasks.detection.detect`."""
        return detect(job, split, ("bbox",))

    def losses(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the mean squared difference of the pyramid's features, averaged over its levels.

        Args:
            images: decoded, [3, H, W] in [0, 1].
            targets: ``original``, the image before coding, of the same size.
        """
        with torch.no_grad():
            wanted = self.network.pyramid(_stacked([target["original"] for target in targets]))
        found = self.network.pyramid(_stacked(images))
        distances = [F.mse_loss(a.float(), b.float()) for a, b in zip(found, wanted, strict=True)]
        return {"features": torch.stack(distances).mean()}

    @torch.no_grad()
    def predict(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Return boxes (x1, y1, x2, y2 in pixels), labels and scores for each image [3, H, W].

        Labels are places in COCO's 80 classes. Resized images are rounded to 8 bits, as in the
        published evaluation.
        """
        self.eval()
        results = []
        for image in images:
            output = self.network(letterbox(image)[None].round())[0]
            found = yolox_boxes(output.cpu(), (SIDE, SIDE), _THRESHOLD, _OVERLAP)
            found["boxes"] /= scale_to_input(*image.shape[-2:])
            results.append(found)
        return results


def scale_to_input(height: int, width: int) -> float:
    """Return the factor by which an image is resized to fit the network's input."""
    return min(SIDE / height, SIDE / width)


def letterbox(image: Tensor) -> Tensor:
    """Return an RGB image [3, H, W] in [0, 1] as BGR [3, 416, 416] in [0, 255].

    Resized bilinearly and padded with grey right and below. Ours: the filter is as wide as a pixel
    of the result. Without, as in the published evaluation, originals have the same accuracy, and
    coarse JPEG loses a sixth more, by aliasing.
    """
    height, width = image.shape[-2:]
    factor = scale_to_input(height, width)
    size = (int(height * factor), int(width * factor))
    resized = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    padding = (0, SIDE - size[1], 0, SIDE - size[0])
    return F.pad(255 * resized.flip(0), padding, value=_GREY)


def _stacked(images: list[Tensor]) -> Tensor:
    return torch.stack([letterbox(image) for image in images])
