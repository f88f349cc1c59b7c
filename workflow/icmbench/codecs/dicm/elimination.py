"""Redundancy elimination (RE): a bottleneck under a rate constraint that is never transmitted.

Its encoder reduces the resolution of features by eight, its decoder restores it. Features that are
not worth their bits in the training objective are lost. Blocks: Conv2Former (Hou, Lu, Cheng, Feng,
TPAMI 2024), or ConvFormer (Yu et al., "MetaFormer baselines for vision", TPAMI 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from compressai.ops import quantize_ste
from timm.layers import LayerNorm2d, LayerScale2d
from timm.models.metaformer import LayerNorm2dNoBias, MetaFormerBlock, SepConv
from torch import Tensor, nn

from icmbench.codecs.learned.fast_entropy import SteadyBottleneck

Block = Literal["conv2former", "convformer"]
_LAYER_SCALE = 1e-6


class ConvolutionalModulation(nn.Module):
    """Values, weighted by an 11 x 11 depth-wise convolution of their surroundings."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 11, padding=5, groups=channels),
        )
        self.value = nn.Conv2d(channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W] of [B, C, H, W]."""
        projected: Tensor = self.project(self.weigh(x) * self.value(x))
        return projected


class ConvolutionalMlp(nn.Module):
    """Two 1 x 1 convolutions, with a depth-wise 3 x 3 convolution and a skip connection between."""

    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        inner = ratio * channels
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.position = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.fc2 = nn.Conv2d(inner, channels, 1)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W] of [B, C, H, W]."""
        x = self.act(self.fc1(x))
        projected: Tensor = self.fc2(x + self.act(self.position(x)))
        return projected


class Conv2FormerBlock(nn.Module):
    """Convolutional modulation and MLP, each with norm, layer scale and skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.modulation = nn.Sequential(
            LayerNorm2d(channels),
            ConvolutionalModulation(channels),
            LayerScale2d(channels, _LAYER_SCALE),
        )
        self.mlp = nn.Sequential(
            LayerNorm2d(channels),
            ConvolutionalMlp(channels),
            LayerScale2d(channels, _LAYER_SCALE),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W] of [B, C, H, W]."""
        x = x + self.modulation(x)
        return x + self.mlp(x)


def _blocks(kind: Block, channels: int, count: int) -> list[nn.Module]:
    if kind == "conv2former":
        return [Conv2FormerBlock(channels) for _ in range(count)]
    return [
        MetaFormerBlock(
            channels,
            token_mixer=SepConv,
            norm_layer=LayerNorm2dNoBias,
            res_scale_init_value=1.0,
        )
        for _ in range(count)
    ]


class EliminationEncoder(nn.Sequential):
    """Features [B, C, h, w] to the latent [B, widths[3], h/8, w/8].

    Args:
        channels: of the features.
        widths: channels of the three stages and of the latent.
        depths: blocks of the three stages.
        block: which blocks.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], depths: Sequence[int], block: Block
    ) -> None:
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 1)]
        for width, after, depth in zip(widths[:-1], widths[1:], depths, strict=True):
            layers += _blocks(block, width, depth)
            layers += [nn.Conv2d(width, after, 3, stride=2, padding=1), LayerNorm2d(after)]
        super().__init__(*layers)


class EliminationDecoder(nn.Sequential):
    """Latent to features; arguments as of :class:`EliminationEncoder`."""

    def __init__(
        self, channels: int, widths: Sequence[int], depths: Sequence[int], block: Block
    ) -> None:
        layers: list[nn.Module] = []
        back = list(reversed(widths))
        for width, after, depth in zip(back[:-1], back[1:], depths, strict=True):
            up = nn.ConvTranspose2d(width, after, 5, stride=2, padding=2, output_padding=1)
            layers += [up, LayerNorm2d(after), *_blocks(block, after, depth)]
        super().__init__(*layers, nn.Conv2d(back[-1], channels, 1))


class IntegerBottleneck(SteadyBottleneck):
    """CompressAI's factorised prior for a latent that is rounded to integers, but never coded.

    The quantiles, which only coding tables need, are a buffer instead of parameters, so training
    has no auxiliary loss. The medians stay zero, so rounding is to integers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, init_scale=10, filters=(3, 3, 3))
        quantiles = self.quantiles.detach()
        del self.quantiles
        self.register_buffer("quantiles", quantiles, persistent=False)


class Elimination(nn.Module):
    """Redundancy elimination with its prior.

    Args:
        channels, widths, depths, block: as of :class:`EliminationEncoder`.
        gain: factor on the initial latent.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int] = (128, 128, 128, 192),
        depths: Sequence[int] = (1, 1, 2),
        block: Block = "conv2former",
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder = EliminationEncoder(channels, widths, depths, block)
        self.decoder = EliminationDecoder(channels, widths, depths, block)
        self.prior = IntegerBottleneck(widths[-1])
        # The latent is normalised, so its integers have little information until its weights grow.
        with torch.no_grad():
            for module, factor in ((self.encoder[-1], gain), (self.decoder[0], 1 / gain)):
                module.get_parameter("weight").mul_(factor)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [B, C, h, w] after elimination, and the likelihoods of their latent.

        The decoder always sees the rounded latent, with a straight-through gradient. In training
        the likelihoods [B, widths[3], h/8, w/8] are those of a noisy latent.
        """
        y = self.encoder(features)
        left: Tensor = self.decoder(quantize_ste(y)).float()
        with torch.autocast(features.device.type, enabled=False):
            _, likelihoods = self.prior(y.float())
        return left, likelihoods
