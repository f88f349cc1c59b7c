"""The dynamic transformation network g_t of zhu2024 (ICIP 2024, framework figure).

5 x 5 convolution, two residual blocks, an attention block, two residual blocks, 5 x 5 convolution,
and a skip over all of it. Blocks are CompressAI's. The width is not published.
"""

from __future__ import annotations

from compressai.layers import AttentionBlock
from compressai.models.sensetime import ResidualBottleneckBlock
from torch import Tensor, nn


class DynamicTransformation(nn.Module):
    """Changes a decoded image [B, 3, H, W] for a machine; at first it changes nothing.

    Args:
        width: channels inside.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, 3, 5, padding=2)
        # Off the shelf the detector sees the decoded image itself.
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 5, padding=2),
            ResidualBottleneckBlock(width, width),
            ResidualBottleneckBlock(width, width),
            AttentionBlock(width),
            ResidualBottleneckBlock(width, width),
            ResidualBottleneckBlock(width, width),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the image that the machine sees, of the same shape; it may leave [0, 1]."""
        return x + self.layers(x)
