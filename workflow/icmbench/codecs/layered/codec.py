"""The layered codec of zhang2022 (Zhang, Jia, Chang, Ma, DCC 2022), as far as it is published.

Each layer has a bitstream of its own: the semantic one decodes alone, the texture one is coded
given the semantic one. Tasks read the decoded latent; a generator trained against a discriminator
turns it into an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import compressai
import torch
from compressai.models.base import CompressionModel
from torch import Tensor, nn

from icmbench.codecs.base import CodecOutput, Latents, RgbImage
from icmbench.codecs.bitstream import pack, unpack
from icmbench.codecs.layered.entries import LayeredParameters
from icmbench.codecs.layered.losses import (
    Discriminator,
    adversarial_loss,
    discriminator_loss,
    fixed,
    ssim_loss,
)
from icmbench.codecs.layered.perceptual import make_distance
from icmbench.codecs.layered.prior import HYPER_STRIDE, LayerPrior
from icmbench.codecs.layered.transforms import Analysis, Synthesis
from icmbench.codecs.learned.base import LearnedFeatureCodec
from icmbench.codecs.learned.compressai_codec import Bounded
from icmbench.utils.images import to_image

# Terms of the loss that depend on decoded pixels; the trainer computes mse itself.
PIXEL_TERMS = frozenset({"mae", "ssim", "perceptual", "adversarial", "mse"})


class LayeredNetwork(CompressionModel):
    """Transforms and entropy models, without the discriminator.

    Args:
        parameters: sizes.
    """

    def __init__(self, parameters: LayeredParameters) -> None:
        super().__init__()
        latent = parameters.semantic + parameters.texture
        mixed = parameters.quantisation == "mixed"
        self.g_a = Analysis(parameters.widths, latent, parameters.latent_gain)
        self.g_s = Synthesis(parameters.widths, latent, parameters.residual_blocks)
        self.semantic = LayerPrior(parameters.semantic, parameters.hyper, mixed=mixed)
        self.texture = LayerPrior(parameters.texture, parameters.hyper, parameters.semantic, mixed)


class Layered(LearnedFeatureCodec):
    """Codes both layers; tasks read both.

    .. code-block:: none

        x -> g_a -+-> semantic -> prior 1 ->|bits 1|-> semantic -+-> task
                  |                  |                           |
                  |                  v context                   |
                  +-> texture --> prior 2 ->|bits 2|-> texture --+-> g_s -> x_hat

    Without bits 2, tasks read the semantic layer alone, and g_s gets the means that prior 2
    predicts for the texture layer. Trainable parts are ``analysis``, ``synthesis``, ``entropy`` and
    ``discriminator``.

    Args:
        parameters: sizes, quantisation in training, which perceptual distance.
        rate_index: not used; the weight of the rate in training sets the rate.
        pretrained: not used; no weights are published.

    Attributes:
        layers: the layers that are sent and that tasks read.
    """

    multiple: ClassVar[int] = 16 * HYPER_STRIDE
    layers: ClassVar[tuple[str, ...]] = ("semantic", "texture")

    def __init__(
        self, parameters: LayeredParameters, rate_index: int = 0, pretrained: bool = False
    ) -> None:
        super().__init__()
        self.settings = parameters
        self.network = LayeredNetwork(parameters)
        latent = parameters.semantic + parameters.texture
        self.discriminator = Discriminator(latent, parameters.discriminator)
        self.bounded = Bounded()
        # Made when its term is first wanted: coding needs no published weights.
        self.distance: nn.Module | None = None

    # --- training -----------------------------------------------------------------------------

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part."""
        return {
            "analysis": [self.network.g_a],
            "synthesis": [self.network.g_s],
            "entropy": [self.network.semantic, self.network.texture],
            "discriminator": [self.discriminator],
        }

    def adversary_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that only the term ``discriminator`` trains."""
        return list(self.discriminator.parameters())

    def forward(self, images: Tensor) -> CodecOutput:
        """Code a batch [B, 3, H, W] in [0, 1] whose sides are multiples of ``multiple``.

        In training mode the rate is that of latents with additive uniform noise, and features are
        noisy or rounded (``quantisation``). Images are decoded if ``wanted`` names a term that
        depends on pixels, and the terms in ``wanted`` are computed over all pixels of the batch,
        padding included. Evaluation mode rounds and returns features and rate only.

        Terms: ``mae``, mean absolute error; ``ssim``, 1 - SSIM; ``perceptual``, see
        ``codecs.layered.perceptual``; ``adversarial``, and with it ``discriminator``, see
        ``codecs.layered.losses``. The gradient of ``adversarial`` does not reach the parameters of
        the discriminator, that of ``discriminator`` reaches no others.
        """
        batch, _, height, width = images.shape
        y = self.network.g_a(images)
        with torch.autocast(images.device.type, enabled=False):
            decoded, bits, coded = self._model(y.float())
        features = torch.cat([decoded[name] for name in self.layers], 1)
        out = CodecOutput(None, bits, batch * height * width, features, coded_bits=coded)
        if self.training and self.wanted & PIXEL_TERMS:
            latent = self._complete(decoded)
            out.images = self.bounded(self.network.g_s(latent).float())
            out.terms = self._terms(images, out.images, latent)
        return out

    def _model(self, y: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return the quantised layers that are sent, their bits, and their bits when rounded."""
        semantic, texture = self._split(y)
        context, bits, coded = self.network.semantic(semantic)
        decoded = {"semantic": context}
        if "texture" in self.layers:
            decoded["texture"], more, more_coded = self.network.texture(texture, context)
            bits, coded = bits + more, coded + more_coded
        return decoded, bits, coded

    def _terms(self, images: Tensor, decoded: Tensor, latent: Tensor) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        if "mae" in self.wanted:
            terms["mae"] = (images - decoded).abs().mean()
        if "ssim" in self.wanted:
            terms["ssim"] = ssim_loss(images, decoded)
        if "perceptual" in self.wanted:
            if self.distance is None:
                self.distance = make_distance(self.settings.perceptual).to(images.device)
            terms["perceptual"] = self.distance(images, decoded)
        if "adversarial" in self.wanted:
            # As in HiFiC the discriminator sees the latent, without gradient to it.
            condition = latent.detach()
            with fixed(self.discriminator):
                terms["adversarial"] = adversarial_loss(self.discriminator(decoded, condition))
            both = torch.cat([images, decoded.detach()])
            real, fake = self.discriminator(both, condition.repeat(2, 1, 1, 1)).chunk(2)
            terms["discriminator"] = discriminator_loss(real, fake)
        return terms

    def _split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        semantic, texture = y.split([self.settings.semantic, self.settings.texture], 1)
        return semantic, texture

    def _complete(self, layers: dict[str, Tensor]) -> Tensor:
        """Return the latent that the synthesis reads; a missing texture layer is predicted."""
        semantic = layers["semantic"]
        texture = layers.get("texture")
        if texture is None:
            with torch.autocast(semantic.device.type, enabled=False):
                texture = self.network.texture.predict(semantic)
        return torch.cat([semantic, texture], 1)

    # --- coding -------------------------------------------------------------------------------

    def prepare_coding(self) -> None:
        """Switch to evaluation mode and build coding tables; call it after training or loading."""
        self.network.update(force=True)
        super().prepare_coding()

    def implementation(self) -> str:
        """Return CompressAI's version, the network's size and the layers that are sent."""
        sizes = self.settings
        widths = "/".join(str(width) for width in sizes.widths)
        return (
            f"compressai {compressai.__version__}, widths={widths}, semantic={sizes.semantic}, "
            f"texture={sizes.texture}, layers: {' and '.join(self.layers)}"
        )

    @property
    def strings(self) -> int:  # type: ignore[override]
        """One string per layer."""
        return len(self.layers)

    @property
    def symbols_per_position(self) -> int:
        """Upper bound on the symbols in one string: a layer and its hyper-latent."""
        return max(self.settings.semantic, self.settings.texture) + self.settings.hyper

    def analyse(self, images: Tensor) -> Tensor:
        """Return the latent [1, C, h, w] of a padded image [1, 3, H, W]."""
        y: Tensor = self.network.g_a(images)
        return y

    def compress_latent(self, y: Tensor) -> tuple[list[bytes], Latents, float]:
        """Return one string per layer, the layers float32 [C, h, w], and the estimated bits."""
        semantic, texture = self._split(y)
        string, context, bits = self.network.semantic.compress(semantic)
        strings, decoded = [string], {"semantic": context}
        if "texture" in self.layers:
            string, decoded["texture"], more = self.network.texture.compress(texture, context)
            strings, bits = [*strings, string], bits + more
        return strings, _arrays(decoded), bits

    def decompress_latent(self, strings: Sequence[bytes], rows: int, columns: int) -> Latents:
        """Return the layers float32 [C, rows, columns]."""
        context = self.network.semantic.decompress(strings[0], rows, columns)
        decoded = {"semantic": context}
        if "texture" in self.layers:
            prior = self.network.texture
            decoded["texture"] = prior.decompress(strings[1], rows, columns, context)
        return _arrays(decoded)

    def features(self, latents: Latents) -> Tensor:
        """Return what tasks read, float32 [1, C, h, w], of the padded image."""
        return torch.cat([self.latent_tensor(latents, name) for name in self.layers], 1)

    @torch.no_grad()
    def image(self, latents: Latents) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of latents, with or without the texture layer."""
        names = [name for name in Layered.layers if name in latents]
        layers = {name: self.latent_tensor(latents, name) for name in names}
        height, width = (int(side) for side in latents["size"])
        image = self.network.g_s(self._complete(layers))
        return to_image(image[0, :, :height, :width])


class LayeredSemantic(Layered):
    """The same network with the same weights; only the semantic layer is sent and read."""

    layers = ("semantic",)


def semantic_stream(data: bytes) -> bytes:
    """Return the bitstream of :class:`LayeredSemantic` contained in one of :class:`Layered`.

    A node in the network that needs no texture does this; it runs no neural network.
    """
    width, height, strings = unpack(data, len(Layered.layers))
    return pack(width, height, strings[:1])


def _arrays(layers: dict[str, Tensor]) -> Latents:
    return {name: layer[0].cpu().contiguous().numpy() for name, layer in layers.items()}
