"""Hyper-encoder and hyper-decoder: transformers at three resolutions (Entroformer)."""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from icmbench.codecs.dicm.attention import TransformerStage, choose_keep

# Sides of the tables of relative positions, and what top-k is divided by, from fine to coarse.
_BUCKETS = (7, 5, 5)
_SHARES = (1, 2, 4)


class HyperEncoder(nn.Module):
    """The latent y2 [B, M, h, w], not quantised, to the hyper-latent [B, M, h/4, w/4].

    Args:
        latent: M.
        channels: of the transformers.
        heads: of each block.
        depths: blocks of each stage, from fine to coarse.
        top_k: keys that a position of the finest stage attends to.
    """

    def __init__(
        self,
        latent: int = 192,
        channels: int = 384,
        heads: int = 6,
        depths: Sequence[int] = (1, 1, 1),
        top_k: int = 32,
    ) -> None:
        super().__init__()
        self.top_k = top_k
        self.embed = nn.Conv2d(latent, channels, 1)
        self.stages = nn.ModuleList(
            TransformerStage(channels, heads, depth, buckets)
            for depth, buckets in zip(depths, _BUCKETS, strict=True)
        )
        self.down = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in _SHARES[1:]
        )
        # Entroformer's layer norms keep PyTorch's epsilon.
        self.norm = LayerNorm2d(channels, eps=1e-5)
        self.project = nn.Conv2d(channels, latent, 1)

    def forward(self, y: Tensor) -> Tensor:
        """Return the hyper-latent."""
        keep = choose_keep(self.top_k, self.training)
        x = self.stages[0](self.embed(y), keep)
        for down, stage, share in zip(self.down, self.stages[1:], _SHARES[1:], strict=True):
            x = stage(down(x), keep // share)
        projected: Tensor = self.project(self.norm(x))
        return projected


class HyperDecoder(nn.Module):
    """The hyper-latent [B, M, h/4, w/4] to side information [B, channels, h, w].

    Arguments as of :class:`HyperEncoder`; ``depths`` go from coarse to fine.
    """

    def __init__(
        self,
        latent: int = 192,
        channels: int = 384,
        heads: int = 6,
        depths: Sequence[int] = (1, 1, 1),
        top_k: int = 32,
    ) -> None:
        super().__init__()
        self.top_k = top_k
        self.embed = nn.Conv2d(latent, channels, 1)
        self.stages = nn.ModuleList(
            TransformerStage(channels, heads, depth, buckets)
            for depth, buckets in zip(depths, reversed(_BUCKETS), strict=True)
        )
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2))
            for _ in _SHARES[1:]
        )

    def forward(self, z: Tensor) -> Tensor:
        """Return the side information."""
        keep = choose_keep(self.top_k, self.training)
        x = self.stages[0](self.embed(z), keep // _SHARES[-1])
        shares = _SHARES[-2::-1]
        for up, stage, share in zip(self.up, self.stages[1:], shares, strict=True):
            x = stage(up(x), keep // share)
        return x
