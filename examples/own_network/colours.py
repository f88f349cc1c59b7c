"""A network of one's own: segments an image by its strongest colour."""

import torch
from torch import Tensor, nn


class Colours(nn.Module):
    """Labels: 0 dark, 1 red, 2 green, 3 blue. Any ``nn.Module`` with ``predict`` will do."""

    def __init__(self, dark: float = 0.25) -> None:
        super().__init__()
        self.blur = nn.AvgPool2d(5, 1, 2, count_include_pad=False)
        self.dark = dark

    def predict(self, images: list[Tensor]) -> list[Tensor]:
        """Return the labels [H, W], uint8, of images [3, H, W], RGB float32 in [0, 1]."""
        smooth = [self.blur(image) for image in images]
        return [torch.where(own.amax(0) < self.dark, 0, own.argmax(0) + 1).byte() for own in smooth]
