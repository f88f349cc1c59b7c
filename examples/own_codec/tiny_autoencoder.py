"""A small learned codec: two convolutional transforms and a factorised prior.

Everything but the network is inherited: padding, noise in training, real bitstreams, mixed
precision, trainable parts.
"""

from compressai.entropy_models import EntropyBottleneck
from compressai.models import CompressionModel
from torch import nn

from icmbench.codecs.learned.hyperprior import Factorized


class Network(CompressionModel):
    """Analysis ``g_a`` and synthesis ``g_s`` with stride 8, N channels inside, M in the latent."""

    def __init__(self, n, m):
        super().__init__()
        self.N, self.M = n, m
        self.entropy_bottleneck = EntropyBottleneck(m)
        self.g_a = nn.Sequential(
            nn.Conv2d(3, n, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(n, n, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(n, m, 5, stride=2, padding=2),
        )
        self.g_s = nn.Sequential(
            nn.ConvTranspose2d(m, n, 5, stride=2, padding=2, output_padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(n, n, 5, stride=2, padding=2, output_padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(n, 3, 5, stride=2, padding=2, output_padding=1),
        )


class TinyAutoencoder(Factorized):
    """The codec: a factorised prior over this network's latent."""

    multiple = latent_stride = 8  # pixels per position of the latent
    zoo = ""  # no published weights

    def build(self, *sizes):
        """Return the network with N and M channels."""
        return Network(*sizes)
