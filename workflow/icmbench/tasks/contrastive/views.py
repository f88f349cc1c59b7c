"""The views of MoCo v2: crop, colour jitter, grey, blur, flip; drawn image by image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

from icmbench.tasks.contrastive.crops import AREA, sample_crop


class Views:
    """Makes a view of an image, on its device, with torch's global generator.

    Args:
        side: of the view in pixels.
        alpha: of the Beta distribution that places a crop in its box.
        area: bounds of a crop's share of the image's area.
    """

    def __init__(self, side: int, alpha: float, area: Sequence[float] = AREA) -> None:
        self.side, self.alpha, self.area = side, alpha, tuple(area)
        # SimCLR's tenth of the side, odd; the papers use 23 for 224.
        kernel = 2 * (side // 20) + 1
        self._change = v2.Compose(
            [
                v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
                v2.RandomGrayscale(0.2),
                v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], p=0.5),
                v2.RandomHorizontalFlip(),
            ]
        )

    def __call__(self, image: Tensor, box: Sequence[float] | None) -> Tensor:
        """Return a view [3, side, side] in [0, 1] of an image [3, H, W] in [0, 1].

        Args:
            image: the whole image.
            box: x1, y1, x2, y2 where the crop's centre lies, in units of the image; None: anywhere.
        """
        # The blur is a convolution, which autocast would round.
        with torch.autocast(image.device.type, enabled=False):
            crop = sample_crop(image, box, self.alpha, self.area)
            view = v2.functional.resized_crop(
                image.float(), *crop, [self.side, self.side], antialias=True
            )
            changed: Tensor = self._change(view)
        return changed.clamp(0, 1)
