"""Analysis and synthesis in the shape of HiFiC's encoder and generator.

Mentzer, Toderici, Tschannen, Agustsson, "High-fidelity generative image compression", NeurIPS 2020,
section 3.2 and appendix A. ChannelNorm, which normalises over the channels of each position, is
timm's ``LayerNorm2d``. The widths are settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from timm.layers import LayerNorm2d
from torch import Tensor, nn

_EPSILON = 1e-3


def _normalised(layer: nn.Module, channels: int, active: bool = True) -> list[nn.Module]:
    tail: list[nn.Module] = [nn.ReLU(inplace=True)] if active else []
    return [layer, LayerNorm2d(channels, eps=_EPSILON), *tail]


class Analysis(nn.Sequential):
    """An image [B, 3, H, W] in [0, 1] to its latent [B, latent, H/16, W/16].

    Args:
        widths: channels at full resolution and after each layer of stride 2.
        latent: channels of the latent.
        gain: factor on the initial weights of the last layer.
    """

    def __init__(self, widths: Sequence[int], latent: int, gain: float = 1.0) -> None:
        layers = _normalised(nn.Conv2d(3, widths[0], 7, padding=3), widths[0])
        for before, after in pairwise(widths):
            layers += _normalised(nn.Conv2d(before, after, 3, stride=2, padding=1), after)
        last = nn.Conv2d(widths[-1], latent, 3, padding=1)
        last.weight.data *= gain
        super().__init__(*layers, last)

    def forward(self, images: Tensor) -> Tensor:
        """Return the latent."""
        return super().forward(2 * images - 1)


class ResidualBlock(nn.Module):
    """Two normalised 3 x 3 convolutions and a skip over both.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_normalised(nn.Conv2d(channels, channels, 3, padding=1), channels),
            *_normalised(nn.Conv2d(channels, channels, 3, padding=1), channels, active=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        return x + self.layers(x)


class Synthesis(nn.Module):
    """A latent [B, latent, h, w] to an image [B, 3, 16 h, 16 w], not bounded to [0, 1].

    Args:
        widths: those of the analysis.
        latent: channels of the latent.
        blocks: residual blocks at the latent's resolution.
    """

    def __init__(self, widths: Sequence[int], latent: int, blocks: int) -> None:
        super().__init__()
        self.head = nn.Sequential(
            LayerNorm2d(latent, eps=_EPSILON),
            *_normalised(nn.Conv2d(latent, widths[-1], 3, padding=1), widths[-1], active=False),
        )
        self.blocks = nn.Sequential(*(ResidualBlock(widths[-1]) for _ in range(blocks)))
        layers: list[nn.Module] = []
        for before, after in pairwise(reversed(widths)):
            up = nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)
            layers += _normalised(up, after)
        self.tail = nn.Sequential(*layers, nn.Conv2d(widths[0], 3, 7, padding=3))

    def forward(self, latent: Tensor) -> Tensor:
        """Return the image."""
        x = self.head(latent)
        # An output of zero is mid-grey.
        return (self.tail(x + self.blocks(x)) + 1) / 2
