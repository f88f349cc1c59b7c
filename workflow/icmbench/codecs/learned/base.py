"""What all learned codecs share: padding, bounded output, mixed precision, parts, bitstreams.

The networks and entropy models are CompressAI's. A subclass says how its latent is modelled.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import compressai
import torch
from compressai.ops import LowerBound
from torch import Tensor, nn
from torch.nn import functional

from icmbench.codecs import LearnedParameters
from icmbench.codecs.base import CodecOutput, Encoded, RgbImage
from icmbench.codecs.bitstream import guarded, pack, unpack_image
from icmbench.codecs.estimated import as_png, from_png
from icmbench.codecs.learned.fast_entropy import use_own_entropy_models
from icmbench.networks.weights import load_resized
from icmbench.utils.tensors import to_image, to_tensor

_LATENT_STRIDE = 16  # pixels per position of the latent, the largest thing that is decoded


class Bounded(nn.Module):
    """Clamp to [0, 1]; the gradient still passes where it leads back inside."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = LowerBound(0.0)
        self.upper = LowerBound(-1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` bounded to [0, 1]."""
        return -self.upper(-self.lower(x))


class LearnedCodec(nn.Module, ABC):
    """A codec with trainable parts ``analysis``, ``synthesis`` and ``entropy``.

    Args:
        parameters: sizes, quantisation in training, what pretrained weights mean.
        rate_index: chooses the quality, and with it the size, of pretrained weights.
        pretrained: build the network in the size of CompressAI's weights for that quality.

    Attributes:
        multiple: image sides are padded to this.
        zoo: name in CompressAI's model zoo; empty where it has no weights.
        strings: how many strings a bitstream holds, the latent's last one first.
    """

    multiple: ClassVar[int] = 64  # 16 for the latent, 4 more for the hyper-latent
    zoo: ClassVar[str] = ""
    strings: ClassVar[int] = 2

    network: Any

    def __init__(
        self, parameters: LearnedParameters, rate_index: int = 0, pretrained: bool = False
    ) -> None:
        super().__init__()
        self.settings = parameters
        sizes = self.sizes(parameters)
        if pretrained:
            sizes = zoo_sizes(self.zoo, parameters.qualities[rate_index])
        self.network = self.build(*sizes)
        use_own_entropy_models(self.network)
        last = [m for m in self.network.g_a.modules() if isinstance(m, nn.Conv2d)][-1]
        with torch.no_grad():
            last.weight *= parameters.latent_gain
        self.bounded = Bounded()

    # --- what a subclass says -----------------------------------------------------------------

    @abstractmethod
    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network of the given sizes."""

    def sizes(self, parameters: LearnedParameters) -> tuple[int, ...]:
        """Return the arguments of :meth:`build` that the parameters name."""
        return parameters.n, parameters.m

    @abstractmethod
    def model_latent(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the synthesis sees of a latent [B, M, h, w], and its bits, a scalar.

        Called in float32 whatever the autocast, since likelihoods decide the rate.
        """

    @abstractmethod
    def compress_latent(self, y: Tensor) -> tuple[list[bytes], Tensor, float]:
        """Return the strings of a latent [1, M, h, w], its decoded value and its estimated bits."""

    @abstractmethod
    def decompress_latent(self, strings: Sequence[bytes], height: int, width: int) -> Tensor:
        """Return the latent [1, M, h, w] of an image padded to ``height`` x ``width`` pixels."""

    # --- training -----------------------------------------------------------------------------

    @property
    def rounds_while_training(self) -> bool:
        """Whether the decoder sees rounded latents while the rate is that of noisy ones."""
        return self.training and self.settings.quantisation == "mixed"

    def load_pretrained(self, rate_index: int) -> None:
        """Take CompressAI's published weights for the quality at ``rate_index``."""
        from compressai.zoo import image_models

        quality = self.settings.qualities[rate_index]
        model = image_models[self.zoo](
            quality, self.settings.metric, pretrained=True, progress=False
        )
        load_resized(self.network, model.state_dict())

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part."""
        own = dict(self.network.named_children())
        transforms = {"analysis": [own.pop("g_a")], "synthesis": [own.pop("g_s")]}
        return {**transforms, "entropy": list(own.values())}

    def auxiliary_parameters(self) -> list[nn.Parameter]:
        """Return the quantiles, which only the auxiliary loss trains."""
        return [p for name, p in self.network.named_parameters() if name.endswith("quantiles")]

    def auxiliary_loss(self) -> Tensor:
        """Return how far the quantiles are from those of the learned density."""
        loss: Tensor = self.network.aux_loss()
        return loss

    def forward(self, images: Tensor) -> CodecOutput:
        """Code a batch [B, 3, H, W] in [0, 1] whose sides are multiples of ``multiple``.

        In training mode the rate is that of latents with additive uniform noise; what is decoded
        carries the noise, too, or is rounded (``quantisation: mixed``). Evaluation mode rounds.
        """
        y = self.network.g_a(images)
        with torch.autocast(images.device.type, enabled=False):
            y_hat, bits = self.model_latent(y.float())
        decoded = self.network.g_s(y_hat).float()
        batch, _, height, width = images.shape
        return CodecOutput(self.bounded(decoded), bits, batch * height * width)

    def model_factorised(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return values [B, C, h, w] quantised under the factorised prior, and their bits."""
        bottleneck = self.network.entropy_bottleneck
        quantised, likelihoods = bottleneck(values)
        if self.rounds_while_training:
            medians = bottleneck.quantiles[:, :, 1].reshape(1, -1, 1, 1).detach()
            quantised = rounded(values - medians) + medians
        return quantised, bits_of(likelihoods)

    # --- coding -------------------------------------------------------------------------------

    def prepare_coding(self) -> None:
        """Build the tables that entropy coding needs; call it once after training or loading."""
        self.network.update(force=True)
        self.eval()

    def implementation(self) -> str:
        """Return CompressAI's version, the network's size and how the rate is had."""
        size = ", ".join(f"{n}={v}" for n, v in zip("NM", self.network_sizes, strict=False))
        rate = "" if self.settings.rate == "bitstream" else ", rate estimated, no bitstream"
        return f"compressai {compressai.__version__}, {size}{rate}"

    @property
    def network_sizes(self) -> tuple[int, ...]:
        """The channels of the transforms and of the latent."""
        return (self.network.N, self.network.M)

    @torch.no_grad()
    def encode(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3]."""
        height, width = image.shape[:2]
        device = next(self.parameters()).device
        padded = pad_to_multiple(to_tensor(image).to(device), self.multiple)
        pixels = padded.shape[-2] * padded.shape[-1]
        if self.settings.rate == "estimate":
            out = self(padded)
            bits = float(out.bits)
            decoded = to_image(out.images[0, :, :height, :width])
            return Encoded(as_png(decoded), decoded, pixels, bits, bits_counted=math.ceil(bits))
        strings, y_hat, bits = self.compress_latent(self.network.g_a(padded))
        data = pack(width, height, strings)
        return Encoded(data, self._reconstruct(y_hat, height, width), pixels, bits)

    @torch.no_grad()
    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a bitstream."""
        if self.settings.rate == "estimate":
            return from_png(data)
        width, height, strings, pixels = unpack_image(data, self.strings, self.multiple)
        strings = guarded(strings, max(self.network_sizes) * pixels // _LATENT_STRIDE**2)
        padded = [math.ceil(side / self.multiple) * self.multiple for side in (height, width)]
        y_hat = self.decompress_latent(strings, *padded)
        return self._reconstruct(y_hat, height, width)

    def _reconstruct(self, y_hat: Tensor, height: int, width: int) -> RgbImage:
        decoded = self.network.g_s(y_hat).clamp(0, 1)
        return to_image(decoded[0, :, :height, :width])


def rounded(values: Tensor) -> Tensor:
    """Round; the gradient passes as if nothing had happened."""
    return values + (torch.round(values) - values).detach()


def bits_of(likelihoods: Tensor) -> Tensor:
    """Return the information of likelihoods in bits, summed."""
    return -torch.log2(likelihoods).sum()


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad [B, 3, H, W] on the right and below, by repeating the edge, to multiples of a side."""
    height, width = images.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not (bottom or right):
        return images
    return functional.pad(images, (0, right, 0, bottom), mode="replicate")


def zoo_sizes(name: str, quality: int) -> tuple[int, ...]:
    """Return the sizes of CompressAI's weights for a quality."""
    from compressai.zoo.image import cfgs

    sizes: tuple[int, ...] = cfgs[name][quality]
    return sizes
