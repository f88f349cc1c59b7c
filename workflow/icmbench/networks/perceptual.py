"""Perceptual distances of a decoded image from the original: LPIPS and DISTS, by torchmetrics.

LPIPS 0.1: Zhang, Isola, Efros, Shechtman, Wang, "The unreasonable effectiveness of deep features as
a perceptual metric", CVPR 2018, on AlexNet. DISTS: Ding, Ma, Wang, Simoncelli, "Image quality
assessment: unifying structure and texture similarity", IEEE TPAMI 44(5), 2022, on VGG16. The
networks have torchvision's ImageNet weights; torchmetrics brings what was learned on top of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor
from torchmetrics.functional.image.dists import DISTSNetwork
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchvision.models import AlexNet_Weights, VGG16_Weights

from icmbench.errors import UserError
from icmbench.networks.pretrained import check_cached, published_weights
from icmbench.utils.images import RgbImage, to_tensor

#: Address of the network's weights, by name of the metric.
BACKBONES: dict[str, str] = {
    "lpips": AlexNet_Weights.DEFAULT.url,
    "dists": VGG16_Weights.DEFAULT.url,
}
# AlexNet needs as many pixels to reach its last layer; VGG16 takes any size.
_MIN_SIDE = {"lpips": 31, "dists": 1}


@cache
def open_perceptual(metrics: tuple[str, ...]) -> Perceptual:
    """Return the same :class:`Perceptual` for all points of a curve."""
    return Perceptual(metrics)


class Perceptual:
    """Computes perceptual distances on the CPU; the networks are loaded once.

    Args:
        metrics: names, of ``BACKBONES``.

    Raises:
        UserError: where a network's weights are not in torch's cache and cannot be downloaded.
    """

    def __init__(self, metrics: Sequence[str]) -> None:
        make = {"lpips": _lpips, "dists": _dists}
        self._functions = {}
        for name in metrics:
            with published_weights(name, f", or leave {name} out of the key 'perceptual'"):
                check_cached(BACKBONES[name])
                self._functions[name] = make[name]()

    @torch.inference_mode()
    def __call__(self, original: RgbImage, decoded: RgbImage) -> dict[str, float]:
        """Return the distances of two uint8 RGB images [H, W, 3] by name; 0 for equal images.

        NaN where an image is too small for the network: below 31 pixels for LPIPS.

        Raises:
            UserError: if the shapes differ.
        """
        if original.shape != decoded.shape:
            raise UserError(f"decoded image is {decoded.shape}, the original {original.shape}")
        pair = [to_tensor(image) for image in (original, decoded)]
        side = min(original.shape[:2])
        return {
            # Rounding leaves some 1e-7 on either side of 0 for equal images.
            name: max(0.0, float(distance(*pair))) if side >= _MIN_SIDE[name] else math.nan
            for name, distance in self._functions.items()
        }


def _lpips() -> Callable[[Tensor, Tensor], Tensor]:
    metric = LearnedPerceptualImagePatchSimilarity("alex", normalize=True)

    def distance(original: Tensor, decoded: Tensor) -> Tensor:
        value: Tensor = metric(original, decoded)
        metric.reset()  # it keeps every value for a mean
        return value

    return distance


def _dists() -> Callable[[Tensor, Tensor], Tensor]:
    # The metric's class loads VGG16 again for every pair of images.
    network: Callable[[Tensor, Tensor], Tensor] = DISTSNetwork().eval()
    return network
