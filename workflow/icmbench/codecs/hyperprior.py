"""bmshj2018-hyperprior: CompressAI's scale hyperprior behind our codec interface.

Ballé, Minnen, Singh, Hwang, Johnston, "Variational image compression with a scale hyperprior",
ICLR 2018. The network is CompressAI's; this file adds padding, bounded output, mixed precision,
the parts a study may train, and a bitstream of its own.
"""

from __future__ import annotations

import math

import compressai
import torch
from compressai.models.google import ScaleHyperprior
from compressai.ops import LowerBound
from torch import Tensor, nn
from torch.nn import functional

from icmbench.codecs import HyperpriorParameters
from icmbench.codecs.base import CodecOutput, Encoded, Picture
from icmbench.codecs.bitstream import pack, unpack
from icmbench.pixels import to_picture, to_tensor
from icmbench.train.checkpoint import load_resized

_STRINGS = 2  # y, then z


class Bounded(nn.Module):
    """Clamp to [0, 1]; the gradient still passes where it leads back inside."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = LowerBound(0.0)
        self.upper = LowerBound(-1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` bounded to [0, 1]."""
        return -self.upper(-self.lower(x))


class Hyperprior(nn.Module):
    """Scale hyperprior with trainable parts ``analysis``, ``synthesis`` and ``entropy``.

    Args:
        parameters: N, M and what pretrained weights mean.
        rate_index: chooses the quality, and with it the size, of pretrained weights.
        pretrained: build the network in the size of CompressAI's weights for that quality.
    """

    multiple = 64  # image sides are padded to this: 16 for the latent, 4 more for the hyper-latent

    def __init__(
        self, parameters: HyperpriorParameters, rate_index: int = 0, pretrained: bool = False
    ) -> None:
        super().__init__()
        n, m = parameters.n, parameters.m
        if pretrained:
            n, m = pretrained_size(parameters, rate_index)
        self.settings = parameters
        self.network = ScaleHyperprior(n, m)
        self.bounded = Bounded()

    @property
    def rounds_while_training(self) -> bool:
        """Whether the decoder sees rounded latents while the rate is that of noisy ones."""
        return self.training and self.settings.quantisation == "mixed"

    def load_pretrained(self, rate_index: int) -> None:
        """Take CompressAI's published weights for the quality at ``rate_index``."""
        from compressai.zoo import bmshj2018_hyperprior

        quality = self.settings.qualities[rate_index]
        model = bmshj2018_hyperprior(quality, self.settings.metric, pretrained=True, progress=False)
        load_resized(self.network, model.state_dict())

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part."""
        net = self.network
        return {
            "analysis": [net.g_a],
            "synthesis": [net.g_s],
            "entropy": [net.h_a, net.h_s, net.entropy_bottleneck, net.gaussian_conditional],
        }

    def auxiliary_parameters(self) -> list[nn.Parameter]:
        """Return the quantiles, which only the auxiliary loss trains."""
        return [self.network.entropy_bottleneck.quantiles]

    def auxiliary_loss(self) -> Tensor:
        """Return how far the quantiles are from those of the learned density."""
        return self.network.aux_loss()

    def forward(self, images: Tensor) -> CodecOutput:
        """Code a batch [B, 3, H, W] in [0, 1] whose sides are multiples of 64.

        In training mode the rate is that of latents with additive uniform noise; what is decoded
        carries the noise, too, or is rounded (``quantisation: mixed``). Evaluation mode rounds.
        Likelihoods are computed in float32 whatever the autocast, since they decide the rate.
        """
        net = self.network
        y = net.g_a(images)
        with torch.autocast(images.device.type, enabled=False):
            y = y.float()
            z = net.h_a(torch.abs(y))
            z_hat, z_likelihoods = net.entropy_bottleneck(z)
            if self.rounds_while_training:
                medians = net.entropy_bottleneck.quantiles[:, :, 1].reshape(1, -1, 1, 1).detach()
                z_hat = _round(z - medians) + medians
            y_hat, y_likelihoods = net.gaussian_conditional(y, net.h_s(z_hat))
            if self.rounds_while_training:
                y_hat = _round(y)
            bits = -(torch.log2(y_likelihoods).sum() + torch.log2(z_likelihoods).sum())
        decoded = net.g_s(y_hat).float()
        batch, _, height, width = images.shape
        return CodecOutput(self.bounded(decoded), bits, batch * height * width)

    def prepare_coding(self) -> None:
        """Build the tables that entropy coding needs; call it once after training or loading."""
        self.network.update(force=True)
        self.eval()

    def implementation(self) -> str:
        """Return CompressAI's version and the network's size."""
        return f"compressai {compressai.__version__}, N={self.network.N}, M={self.network.M}"

    @torch.no_grad()
    def encode(self, picture: Picture) -> Encoded:
        """Code a uint8 RGB picture [H, W, 3].

        The reconstruction comes from really decoding the strings, so it is the decoder's.
        """
        height, width = picture.shape[:2]
        net = self.network
        padded = pad_to_multiple(
            to_tensor(picture).to(next(self.parameters()).device), self.multiple
        )
        y = net.g_a(padded)
        z = net.h_a(torch.abs(y))
        bottleneck, conditional = net.entropy_bottleneck, net.gaussian_conditional
        z_string = bottleneck.compress(z)[0]
        # What the decoder will have, and nothing else, decides how y is coded.
        z_hat = bottleneck.decompress([z_string], z.shape[-2:])
        scales = net.h_s(z_hat)
        y_string = conditional.compress(y, conditional.build_indexes(scales))[0]
        likelihoods = (bottleneck(z)[1], conditional(y, scales)[1])
        bits = -sum(float(torch.log2(likelihood).sum()) for likelihood in likelihoods)
        data = pack(width, height, [y_string, z_string])
        return Encoded(data, self.decode(data), padded.shape[-2] * padded.shape[-1], bits)

    @torch.no_grad()
    def decode(self, data: bytes) -> Picture:
        """Return the uint8 RGB picture [H, W, 3] of a bitstream."""
        width, height, strings = unpack(data, _STRINGS)
        shape = [math.ceil(side / self.multiple) * self.multiple // 64 for side in (height, width)]
        decoded = self.network.decompress([[s] for s in strings], shape)["x_hat"]
        return to_picture(decoded[0, :, :height, :width])


def _round(values: Tensor) -> Tensor:
    """Round; the gradient passes as if nothing had happened."""
    return values + (torch.round(values) - values).detach()


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad [B, 3, H, W] on the right and below, by repeating the edge, to multiples of a side."""
    height, width = images.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not (bottom or right):
        return images
    return functional.pad(images, (0, right, 0, bottom), mode="replicate")


def pretrained_size(parameters: HyperpriorParameters, rate_index: int) -> tuple[int, int]:
    """Return (N, M) of CompressAI's weights for the quality at ``rate_index``."""
    from compressai.zoo.image import cfgs

    n, m = cfgs["bmshj2018-hyperprior"][parameters.qualities[rate_index]]
    return n, m
