"""The compression network's transforms: features at stride 4 to the latent y2 and back."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from icmbench.codecs.dicm.gated import GatedBlock


class CompressionEncoder(nn.Sequential):
    """Features [B, C, h, w] to the latent [B, widths[1], h/4, w/4].

    Args:
        channels: of the features.
        widths: channels inside, and of the latent.
        orders: of the three blocks' gated convolutions.
        drop_path: of the three blocks.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int] = (128, 192),
        orders: Sequence[int] = (2, 3, 4),
        drop_path: Sequence[float] = (0.0, 0.25, 0.5),
    ) -> None:
        inner, latent = widths
        super().__init__(
            GatedBlock(channels, orders[0], drop_path[0]),
            nn.Conv2d(channels, inner, 5, stride=2, padding=2),
            nn.LeakyReLU(),
            GatedBlock(inner, orders[1], drop_path[1]),
            nn.Conv2d(inner, latent, 3, padding=1),
            GatedBlock(latent, orders[2], drop_path[2], global_filter=True),
            nn.Conv2d(latent, latent, 5, stride=2, padding=2),
            nn.LeakyReLU(),
        )
        self.apply(initialise)


class CompressionDecoder(nn.Sequential):
    """The latent to decoded features; arguments as of :class:`CompressionEncoder`.

    Its blocks run in the same order of orders and of stochastic depth; that the latter is so here
    as in the encoder is our reading.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int] = (128, 192),
        orders: Sequence[int] = (2, 3, 4),
        drop_path: Sequence[float] = (0.0, 0.25, 0.5),
    ) -> None:
        inner, latent = widths
        super().__init__(
            nn.ConvTranspose2d(latent, latent, 5, stride=2, padding=2, output_padding=1),
            nn.LeakyReLU(),
            GatedBlock(latent, orders[0], drop_path[0]),
            nn.Conv2d(latent, inner, 3, padding=1),
            GatedBlock(inner, orders[1], drop_path[1]),
            nn.ConvTranspose2d(inner, channels, 5, stride=2, padding=2, output_padding=1),
            nn.LeakyReLU(),
            GatedBlock(channels, orders[2], drop_path[2], global_filter=True),
        )
        self.apply(initialise)


def initialise(module: nn.Module) -> None:
    """Draw convolutions and linear layers from a truncated normal of 0.02; biases are zero."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
