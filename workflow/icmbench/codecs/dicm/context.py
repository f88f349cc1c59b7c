"""Context model: what the coded half of a latent says of the other half.

The bidirectional Entroformer (Qian et al., ICLR 2022) of DICM's code. In use, a checkerboard:
positions with odd row + column are coded first, the others then see all of them. In training the
visible half is drawn at random.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from icmbench.codecs.dicm.attention import TransformerStage, choose_keep

_BUCKETS = 7
_HIDDEN_SHARE = 0.5  # of positions in training


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
        self.embed = nn.Conv2d(latent, channels, 1)
        self.stage = TransformerStage(channels, heads, depth, _BUCKETS)

    def forward(self, y: Tensor, visible: Tensor) -> Tensor:
        """Return features [B, channels, h, w], zero at visible positions.

        Args:
            y: the latent [B, M, h, w]; hidden elements have no influence.
            visible: bool [B, 1, h, w].
        """
        seen = visible.flatten(1)
        itself = torch.eye(seen.shape[1], dtype=torch.bool, device=y.device)
        # A hidden position may attend to itself, an empty token, since something has to be there.
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
