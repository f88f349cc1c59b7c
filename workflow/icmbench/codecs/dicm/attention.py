"""Transformer stages over maps: relative positions in two dimensions, top-k attention.

Qian et al., "Entroformer: a transformer-based entropy model for learned image compression", ICLR
2022, as DICM configures it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MLP_RATIO = 4
_SLOPE = 0.2  # of the leaky rectifiers
_INIT_STD = 0.02
# Queries at a time where no gradient is kept: scores of a large image are queries x keys.
_QUERIES = 1024


class RelativePositions(nn.Module):
    """Embeddings of the offset between two positions, one table for all heads.

    Offsets with ``|dy| + |dx| <= buckets // 2`` have an entry each; all others share entry 0, a
    corner of the table, outside that diamond.

    Args:
        buckets: side of the square table.
        channels: of an embedding, those of a head.
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
    """Attention of each position to the ``keep`` positions that score highest.

    Args:
        channels: of the tokens; scores are divided by its root, not by that of a head's channels.
        heads: how many.
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
            keep: keys that a query attends to; where scores tie at the limit, more.
            allowed: which keys a query may see, bool [B, N, N]; None is all.
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
    """Attention and MLP, each normalised before and added."""

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
    """Transformer blocks over a map; they share one table of relative positions.

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
            keep: keys that a position attends to.
            allowed: which positions (last axis) each one may see, bool [B, h w, h w].
        """
        height, width = x.shape[-2:]
        indices = self.positions.indices(height, width)
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens, self.positions.table, indices, keep, allowed)
        return tokens.transpose(1, 2).unflatten(2, (height, width))


def choose_keep(top_k: int, training: bool) -> int:
    """Return how many keys to attend to: ``top_k``, in training from [top_k / 2, 2 top_k)."""
    if not training:
        return top_k
    return int(torch.randint(top_k // 2, 2 * top_k, ()))
