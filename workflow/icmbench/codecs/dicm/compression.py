"""The compression network's transforms, made of gated convolutions.

Features at stride 4 to the latent and back. The blocks, called RGC by DICM, hold recursive gated
convolutions (gnConv): Rao et al., "HorNet: efficient high-order spatial interactions with recursive
gated convolutions", NeurIPS 2022. The global filter follows Rao et al., "Global filter networks",
NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import DropPath, LayerNorm2d, LayerScale2d, Mlp
from torch import Tensor, nn
from torch.nn import functional

_GATE_SCALE = 1 / 3  # on the depth-wise features, as in HorNet
_FILTER_SIZE = (24, 13)  # stored frequencies; resized to those of the input
_FILTER_STD = 0.02
LAST_UP = 5  # place of the decoder's last upsampling; a block with a skip connection follows


class GlobalLocalFilter(nn.Module):
    """A 3 x 3 convolution for half of the channels, a filter of frequencies for the others.

    Args:
        channels: of input and output; even.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.norm = LayerNorm2d(channels)
        self.local = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.weight = nn.Parameter(torch.empty(half, *_FILTER_SIZE, 2))
        nn.init.trunc_normal_(self.weight, std=_FILTER_STD)
        self.norm_after = LayerNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W] of [B, C, H, W]."""
        local, everywhere = self.norm(x).chunk(2, 1)
        local = self.local(local)
        height, width = x.shape[-2:]
        with torch.autocast(x.device.type, enabled=False):
            spectrum = torch.fft.rfft2(everywhere.float(), norm="ortho")
            filtered = spectrum * self._filter(height, width // 2 + 1)
            everywhere = torch.fft.irfft2(filtered, s=(height, width), norm="ortho")
        # Alternate channels of both, so that every gate has both.
        mixed = torch.stack((local, everywhere.to(local.dtype)), 2).flatten(1, 2)
        out: Tensor = self.norm_after(mixed)
        return out

    def _filter(self, height: int, width: int) -> Tensor:
        weight = self.weight.float()
        if (height, width) != _FILTER_SIZE:
            planes = weight.permute(3, 0, 1, 2)
            resized = functional.interpolate(
                planes, (height, width), mode="bilinear", align_corners=True
            )
            weight = resized.permute(1, 2, 3, 0)
        return torch.view_as_complex(weight.contiguous())


class GatedConv(nn.Module):
    """gnConv: features gated ``order`` times by spatial mixtures of themselves.

    Args:
        channels: of input and output, a multiple of ``2 ** (order - 1)``.
        order: number of gates.
        global_filter: mix by a :class:`GlobalLocalFilter` instead of a 7 x 7 depth-wise
            convolution.
    """

    def __init__(self, channels: int, order: int, global_filter: bool = False) -> None:
        super().__init__()
        self.dims = [channels // 2**i for i in reversed(range(order))]
        gates = sum(self.dims)
        self.split = nn.Conv2d(channels, self.dims[0] + gates, 1)
        self.mix = (
            GlobalLocalFilter(gates)
            if global_filter
            else nn.Conv2d(gates, gates, 7, padding=3, groups=gates)
        )
        pairs = zip(self.dims[:-1], self.dims[1:], strict=True)
        self.widen = nn.ModuleList(nn.Conv2d(before, after, 1) for before, after in pairs)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W] of [B, C, H, W]."""
        first, rest = self.split(x).split((self.dims[0], sum(self.dims)), 1)
        gates = (_GATE_SCALE * self.mix(rest)).split(self.dims, 1)
        x = first * gates[0]
        for widen, gate in zip(self.widen, gates[1:], strict=True):
            x = widen(x) * gate
        projected: Tensor = self.project(x)
        return projected


class GatedBlock(nn.Module):
    """gnConv and MLP, each with normalisation, layer scale, stochastic depth and skip connection.

    Args:
        channels: of input and output.
        order: of the gated convolution.
        drop_path: probability that a branch is skipped for an image in training.
        layer_scale: initial factor on both branches.
        global_filter: see :class:`GatedConv`.
    """

    def __init__(
        self,
        channels: int,
        order: int,
        drop_path: float = 0.0,
        layer_scale: float = 1e-6,
        global_filter: bool = False,
    ) -> None:
        super().__init__()
        self.gated = nn.Sequential(
            LayerNorm2d(channels),
            GatedConv(channels, order, global_filter),
            LayerScale2d(channels, layer_scale),
            DropPath(drop_path),
        )
        self.mlp = nn.Sequential(
            LayerNorm2d(channels),
            Mlp(channels, 4 * channels, use_conv=True),
            LayerScale2d(channels, layer_scale),
            DropPath(drop_path),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, H, W] of [B, C, H, W]."""
        x = x + self.gated(x)
        return x + self.mlp(x)


class CompressionEncoder(nn.Sequential):
    """Features [B, C, h, w] to the latent [B, widths[1], h/4, w/4].

    Args:
        channels: of the features.
        widths: channels inside, and of the latent.
        orders: of the three blocks' gated convolutions.
        drop_path, layer_scale: of the three blocks.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int] = (128, 192),
        orders: Sequence[int] = (2, 3, 4),
        drop_path: Sequence[float] = (0.0, 0.25, 0.5),
        layer_scale: float = 1e-6,
    ) -> None:
        inner, latent = widths
        super().__init__(
            GatedBlock(channels, orders[0], drop_path[0], layer_scale),
            nn.Conv2d(channels, inner, 5, stride=2, padding=2),
            nn.LeakyReLU(),
            GatedBlock(inner, orders[1], drop_path[1], layer_scale),
            nn.Conv2d(inner, latent, 3, padding=1),
            GatedBlock(latent, orders[2], drop_path[2], layer_scale, global_filter=True),
            nn.Conv2d(latent, latent, 5, stride=2, padding=2),
            nn.LeakyReLU(),
        )
        self.apply(initialise)


class CompressionDecoder(nn.Sequential):
    """The latent to decoded features; arguments as of :class:`CompressionEncoder`.

    Its blocks have the same sequence of orders and of stochastic depth; the latter is our reading.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int] = (128, 192),
        orders: Sequence[int] = (2, 3, 4),
        drop_path: Sequence[float] = (0.0, 0.25, 0.5),
        layer_scale: float = 1e-6,
    ) -> None:
        inner, latent = widths
        super().__init__(
            nn.ConvTranspose2d(latent, latent, 5, stride=2, padding=2, output_padding=1),
            nn.LeakyReLU(),
            GatedBlock(latent, orders[0], drop_path[0], layer_scale),
            nn.Conv2d(latent, inner, 3, padding=1),
            GatedBlock(inner, orders[1], drop_path[1], layer_scale),
            nn.ConvTranspose2d(inner, channels, 5, stride=2, padding=2, output_padding=1),
            nn.LeakyReLU(),
            GatedBlock(channels, orders[2], drop_path[2], layer_scale, global_filter=True),
        )
        self.apply(initialise)


def initialise(module: nn.Module) -> None:
    """Initialise convolutions and linear layers: truncated normal weights of 0.02, zero biases."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
