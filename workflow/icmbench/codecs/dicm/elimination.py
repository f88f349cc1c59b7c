"""Redundancy elimination (RE): a bottleneck under a rate constraint that is never transmitted.

Its encoder reduces the resolution of features by eight (by less with fewer stages), its decoder
restores it. Features that are not worth their bits in the training objective are lost. Blocks:
Conv2Former (Hou, Lu, Cheng, Feng, TPAMI 2024), or ConvFormer (Yu et al., "MetaFormer baselines for
vision", TPAMI 2024).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from compressai.ops import quantize_ste
from timm.layers import LayerNorm2d, LayerScale2d
from timm.models.metaformer import LayerNorm2dNoBias, MetaFormerBlock, SepConv
from torch import Tensor, nn

from icmbench.codecs.dicm.entries import DicmParameters
from icmbench.codecs.learned.fast_entropy import SteadyBottleneck
from icmbench.networks.linear_start import (
    LinearAnalysis,
    LinearSynthesis,
    fit_bounded,
    set_densities,
)

_REACH = 512  # largest integer in a coding table
_TAIL = 2.0**-17  # probability beyond either end of a table; the range coder has 16 bits

Block = Literal["conv2former", "convformer"]


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

    def __init__(self, channels: int, layer_scale: float) -> None:
        super().__init__()
        self.modulation = nn.Sequential(
            LayerNorm2d(channels),
            ConvolutionalModulation(channels),
            LayerScale2d(channels, layer_scale),
        )
        self.mlp = nn.Sequential(
            LayerNorm2d(channels),
            ConvolutionalMlp(channels),
            LayerScale2d(channels, layer_scale),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W] of [B, C, H, W]."""
        x = x + self.modulation(x)
        return x + self.mlp(x)


def _blocks(kind: Block, channels: int, count: int, layer_scale: float) -> list[nn.Module]:
    if kind == "conv2former":
        return [Conv2FormerBlock(channels, layer_scale) for _ in range(count)]
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
    """Features [B, C, h, w] to the latent [B, widths[-1], h/s, w/s], s = 2 ** number of stages.

    Args:
        channels: of the features.
        widths: channels of the stages and of the latent.
        depths: blocks of the stages.
        block: which blocks.
        layer_scale: initial factor on the branches of Conv2Former's blocks.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        block: Block,
        layer_scale: float,
    ) -> None:
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 1)]
        for width, after, depth in zip(widths[:-1], widths[1:], depths, strict=True):
            layers += _blocks(block, width, depth, layer_scale)
            layers += [nn.Conv2d(width, after, 3, stride=2, padding=1), LayerNorm2d(after)]
        super().__init__(*layers)


class EliminationDecoder(nn.Sequential):
    """Latent to features; arguments as of :class:`EliminationEncoder`."""

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        block: Block,
        layer_scale: float,
    ) -> None:
        layers: list[nn.Module] = []
        back = list(reversed(widths))
        for width, after, depth in zip(back[:-1], back[1:], depths, strict=True):
            up = nn.ConvTranspose2d(width, after, 5, stride=2, padding=2, output_padding=1)
            layers += [up, LayerNorm2d(after), *_blocks(block, after, depth, layer_scale)]
        super().__init__(*layers, nn.Conv2d(back[-1], channels, 1))


class IntegerBottleneck(SteadyBottleneck):
    """CompressAI's factorised prior for a latent that is rounded to integers.

    DICM never codes it. So the quantiles, which only coding tables need, are a buffer instead of
    parameters, and training has no auxiliary loss. The medians stay zero, so rounding is to
    integers.
    """

    quantiles: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels, init_scale=10, filters=(3, 3, 3))
        quantiles = self.quantiles.detach()
        del self.quantiles
        self.register_buffer("quantiles", quantiles, persistent=False)

    def make_tables(self) -> None:
        """Build the coding tables; integers beyond a table's tails are coded as escapes."""
        values = torch.arange(-_REACH, _REACH + 1, device=self.quantiles.device).float()
        logits = self._logits_cumulative(values.expand(self.channels, 1, -1), stop_gradient=True)
        below, above = (
            (torch.sigmoid(sign * logits) < _TAIL).sum(-1, keepdim=True) for sign in (1, -1)
        )
        lowest, highest = (below - _REACH).clamp_max(0), (_REACH - above).clamp_min(0)
        self.quantiles = torch.cat((lowest, torch.zeros_like(lowest), highest), -1).float()
        self.update(force=True)


class Elimination(nn.Module):
    """Redundancy elimination with its prior.

    Args:
        channels: of the features.
        parameters: widths, depths, blocks; whether the transforms have a linear path beside them.
    """

    def __init__(self, channels: int, parameters: DicmParameters) -> None:
        super().__init__()
        widths, depths = parameters.elimination_widths, parameters.elimination_depths
        sizes = (widths, depths, parameters.elimination_block, parameters.layer_scale)
        self.encoder: nn.Module = EliminationEncoder(channels, *sizes)
        self.decoder: nn.Module = EliminationDecoder(channels, *sizes)
        self.prior = IntegerBottleneck(widths[-1])
        layers, first = list(self.encoder.children()), next(self.decoder.children())
        if parameters.linear_start:
            block = (channels, widths[-1], 2 ** len(depths))
            # The norm at the end would undo a small start; the linear path has gains instead.
            self.encoder = LinearAnalysis(nn.Sequential(*layers[:-1]), *block)
            self.decoder = LinearSynthesis(self.decoder, *block)
            return
        # The latent is normalised, so its integers have little information until its weights grow.
        gain = parameters.elimination_gain
        with torch.no_grad():
            for module, factor in ((layers[-1], gain), (first, 1 / gain)):
                module.get_parameter("weight").mul_(factor)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [B, C, h, w] after elimination, and the likelihoods of their latent.

        The decoder always sees the rounded latent, with a straight-through gradient. In training
        the likelihoods [B, M, h/s, w/s] are those of a noisy latent.
        """
        y = self.encoder(features)
        left: Tensor = self.decoder(quantize_ste(y)).float()
        with torch.autocast(features.device.type, enabled=False):
            _, likelihoods = self.prior(y.float())
        return left, likelihoods

    def fit(self, features: Iterable[Tensor], step: float) -> None:
        """Let the transforms begin as principal components; later calls change nothing.

        Args:
            features: tensors [B, C, h, w] of train images.
            step: quantisation step in the unit of the features, bounded as by ``fit_bounded``.
        """
        encoder, decoder = self.encoder, self.decoder
        assert isinstance(encoder, LinearAnalysis) and isinstance(decoder, LinearSynthesis)
        if not encoder.fitted:
            set_densities(self.prior, fit_bounded(encoder, decoder, features, step))
