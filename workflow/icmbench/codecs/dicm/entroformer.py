"""Entroformer: transformers over maps for hyper-latents and context.

Qian et al., "Entroformer: a transformer-based entropy model for learned image compression", ICLR
2022, as DICM configures it: relative positions in two dimensions, attention to the top k keys, and
the bidirectional context model. In use, that is a checkerboard: positions with odd row + column are
coded first, the others then see all of them. In training the visible half is drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

_MLP_RATIO = 4
_SLOPE = 0.2  # of the leaky rectifiers
_INIT_STD = 0.02
# Queries per step where no gradient is kept: a large image has queries x keys scores.
_QUERIES = 1024

# Sides of the hyper-networks' tables of relative positions, and the divisors of top-k, from fine to
# coarse.
_BUCKETS = (7, 5, 5)
_SHARES = (1, 2, 4)
_CONTEXT_BUCKETS = 7
_HIDDEN_SHARE = 0.5  # of positions in training


class RelativePositions(nn.Module):
    """Embeddings of the offset between two positions, one table for all heads.

    Each offset with ``|dy| + |dx| <= buckets // 2`` has its own entry. All others share entry 0, a
    corner of the table outside that diamond.

    Args:
        buckets: side of the square table.
        channels: of an embedding, as of a head.
    """

    def __init__(self, buckets: int, channels: int) -> None:
        super().__init__()
        self.buckets = buckets
        self.table = nn.Parameter(torch.empty(buckets**2, channels))
        nn.init.trunc_normal_(self.table, std=_INIT_STD)

    def indices(self, height: int, width: int) -> Tensor:
        """Return the table's entry for each query and key of a map, int64 [h w, h w]."""
        device = self.table.device
        y, x = torch.meshgrid(
            torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
        )
        y, x = y.flatten(), x.flatten()
        dy, dx = y[None] - y[:, None], x[None] - x[:, None]
        reach = self.buckets // 2
        entry = (dy + reach) * self.buckets + dx + reach
        return torch.where(dy.abs() + dx.abs() <= reach, entry, 0)


class Attention(nn.Module):
    """Attention of each position to the ``keep`` positions with the highest scores.

    Args:
        channels: of the tokens; scores are divided by its square root, not by that of a head's
            channels.
        heads: number of heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = channels**-0.5
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.project = nn.Linear(channels, channels, bias=False)

    def forward(
        self, x: Tensor, table: Tensor, indices: Tensor, keep: int, allowed: Tensor | None
    ) -> Tensor:
        """Return tokens [B, N, C] of tokens [B, N, C].

        Args:
            x: tokens.
            table: embeddings of offsets [entries, C / heads].
            indices: the table's entry for each query and key [N, N].
            keep: number of keys that a query attends to; more if scores tie at the limit.
            allowed: keys that each query may attend to, bool [B, N, N]; None allows all.
        """
        batch, count, channels = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        parts = []
        step = count if torch.is_grad_enabled() else _QUERIES
        for start in range(0, count, step):
            chosen = slice(start, start + step)
            own = query[:, :, chosen]
            places = indices[chosen].expand(batch, self.heads, -1, -1)
            scores = own @ key.transpose(-1, -2) + (own @ table.T).gather(-1, places)
            scores = scores * self.scale
            if allowed is not None:
                scores = scores.masked_fill(~allowed[:, None, chosen], float("-inf"))
            if keep < count:
                limit = scores.detach().topk(keep, -1).values[..., -1:]
                scores = scores.masked_fill(scores < limit, float("-inf"))
            parts.append(scores.softmax(-1) @ value)
        attended = torch.cat(parts, 2).transpose(1, 2).reshape(batch, count, channels)
        projected: Tensor = self.project(attended)
        return projected


class TransformerBlock(nn.Module):
    """Attention and MLP, each with normalisation before and a skip connection."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, _MLP_RATIO * channels),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(_MLP_RATIO * channels, channels),
        )

    def forward(
        self, x: Tensor, table: Tensor, indices: Tensor, keep: int, allowed: Tensor | None
    ) -> Tensor:
        """Return tokens [B, N, C]; arguments as of :class:`Attention`."""
        x = x + self.attention(self.norm1(x), table, indices, keep, allowed)
        return x + self.mlp(self.norm2(x))


class TransformerStage(nn.Module):
    """Transformer blocks over a map, which share one table of relative positions.

    Args:
        channels: of the map.
        heads: of each block.
        depth: number of blocks.
        buckets: see :class:`RelativePositions`.
    """

    def __init__(self, channels: int, heads: int, depth: int, buckets: int) -> None:
        super().__init__()
        self.positions = RelativePositions(buckets, channels // heads)
        self.blocks = nn.ModuleList(TransformerBlock(channels, heads) for _ in range(depth))

    def forward(self, x: Tensor, keep: int, allowed: Tensor | None = None) -> Tensor:
        """Return a map [B, C, h, w] of a map [B, C, h, w].

        Args:
            x: the map.
            keep: number of keys that a position attends to.
            allowed: positions (last axis) that each one may attend to, bool [B, h w, h w].
        """
        height, width = x.shape[-2:]
        indices = self.positions.indices(height, width)
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens, self.positions.table, indices, keep, allowed)
        return tokens.transpose(1, 2).unflatten(2, (height, width))


def choose_keep(top_k: int, training: bool) -> int:
    """Return the number of keys to attend to: ``top_k``; in training from [top_k/2, 2 top_k)."""
    if not training:
        return top_k
    return int(torch.randint(top_k // 2, 2 * top_k, ()))


class _HyperNetwork(nn.Module):
    """A map to ``channels``, and transformer stages at three resolutions.

    Args:
        latent: channels M of the latent.
        channels: of the transformers.
        heads: of each block.
        depths: blocks of each stage, in the order in which they run.
        top_k: keys that a position of the finest stage attends to.
    """

    buckets: ClassVar[tuple[int, ...]] = _BUCKETS

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
        self.embed: nn.Module = nn.Conv2d(latent, channels, 1)
        self.stages = nn.ModuleList(
            TransformerStage(channels, heads, depth, buckets)
            for depth, buckets in zip(depths, self.buckets, strict=True)
        )


class HyperEncoder(_HyperNetwork):
    """The latent [B, M, h, w], not quantised, to the hyper-latent [B, M, h/4, w/4]."""

    def __init__(self, latent: int = 192, channels: int = 384, *sizes: Any) -> None:
        super().__init__(latent, channels, *sizes)
        self.down = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in _SHARES[1:]
        )
        # Entroformer's layer norms have PyTorch's default epsilon.
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


class HyperDecoder(_HyperNetwork):
    """The hyper-latent [B, M, h/4, w/4] to side information [B, channels, h, w]."""

    buckets = _BUCKETS[::-1]

    def __init__(self, latent: int = 192, channels: int = 384, *sizes: Any) -> None:
        super().__init__(latent, channels, *sizes)
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


class ContextModel(nn.Module):
    """Features for the hidden positions of a latent, from its visible ones.

    Args:
        latent: channels M of the latent.
        channels: of the transformer and of the features.
        heads: of each block.
        depth: number of blocks.
        top_k: keys that a position attends to.
    """

    def __init__(
        self,
        latent: int = 192,
        channels: int = 384,
        heads: int = 6,
        depth: int = 6,
        top_k: int = 32,
    ) -> None:
        super().__init__()
        self.top_k = top_k
        self.embed: nn.Module = nn.Conv2d(latent, channels, 1)
        self.stage = TransformerStage(channels, heads, depth, _CONTEXT_BUCKETS)

    def forward(self, y: Tensor, visible: Tensor) -> Tensor:
        """Return features [B, channels, h, w], zero at visible positions.

        Args:
            y: the latent [B, M, h, w]; hidden elements are not used.
            visible: bool [B, 1, h, w].
        """
        seen = visible.flatten(1)
        itself = torch.eye(seen.shape[1], dtype=torch.bool, device=y.device)
        # A hidden position may attend to itself, an empty token, so that no set of keys is empty.
        allowed = seen[:, None] | itself
        keep = choose_keep(self.top_k, self.training)
        features = self.stage(self.embed(y.masked_fill(~visible, 0)), keep, allowed)
        return features.masked_fill(visible, 0)


def checkerboard(y: Tensor) -> Tensor:
    """Return where latents [B, M, h, w] are coded first, bool [1, 1, h, w]: row + column is odd."""
    rows = torch.arange(y.shape[-2], device=y.device)[:, None]
    columns = torch.arange(y.shape[-1], device=y.device)
    return ((rows + columns) % 2 == 1)[None, None]


def random_mask(y: Tensor) -> Tensor:
    """Return visible positions for a batch of latents [B, M, h, w] in training."""
    draws = torch.rand(y.shape[0], 1, *y.shape[-2:], device=y.device)
    return draws >= _HIDDEN_SHARE
