"""The layered codec of zhang2022 (Zhang, Jia, Chang, Ma, DCC 2022), as far as it is published.

Two layers with bitstreams of their own: the semantic one decodes alone, the texture one is coded
given the semantic one. Tasks read the decoded latent; a generator trained against a discriminator
turns it into an image.
"""

from __future__ import annotations

import math
from typing import ClassVar

import compressai
import numpy as np
import torch
from compressai.models.base import CompressionModel
from torch import Tensor, nn

from icmbench.codecs.base import CodecOutput, Encoded, Latents, RgbImage
from icmbench.codecs.bitstream import guarded, pack, unpack, unpack_image
from icmbench.codecs.layered.discriminator import Discriminator, fixed
from icmbench.codecs.layered.losses import adversarial_loss, discriminator_loss, ssim_loss
from icmbench.codecs.layered.parameters import LayeredParameters
from icmbench.codecs.layered.perceptual import make_distance
from icmbench.codecs.layered.prior import HYPER_STRIDE, LayerPrior
from icmbench.codecs.layered.transforms import Analysis, Synthesis
from icmbench.codecs.learned.base import Bounded, pad_to_multiple
from icmbench.errors import UserError
from icmbench.utils.tensors import to_image, to_tensor

_STRIDE = 16  # of the latent

# Terms of the loss that look at decoded pixels; the trainer computes mse itself.
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


class Layered(nn.Module):
    """Codes both layers; tasks read both.

    Trainable parts are ``analysis``, ``synthesis``, ``entropy`` and ``discriminator``.

    Args:
        parameters: sizes, quantisation in training, which perceptual distance.
        rate_index: without effect; there are no published weights whose size it would choose.
        pretrained: must be False.

    Attributes:
        multiple: image sides are padded to this.
        yields_images: :meth:`image` turns latents into an image.
        wanted: names of the loss terms that have a weight; the trainer sets it, and
            :meth:`forward` computes what is in it, in training mode.

    Raises:
        UserError: where pretrained weights are asked for.
    """

    multiple: ClassVar[int] = _STRIDE * HYPER_STRIDE
    yields_images: ClassVar[bool] = True
    layers: ClassVar[tuple[str, ...]] = ("semantic", "texture")

    wanted: frozenset[str] = frozenset()

    def __init__(
        self, parameters: LayeredParameters, rate_index: int = 0, pretrained: bool = False
    ) -> None:
        super().__init__()
        if pretrained:
            self.load_pretrained(rate_index)
        self.settings = parameters
        self.network = LayeredNetwork(parameters)
        latent = parameters.semantic + parameters.texture
        self.discriminator = Discriminator(latent, parameters.discriminator)
        self.bounded = Bounded()
        # Made when its term is first wanted: coding needs no published weights.
        self.distance: nn.Module | None = None

    # --- training -----------------------------------------------------------------------------

    def load_pretrained(self, rate_index: int) -> None:
        """Refuse: nobody publishes weights of this codec."""
        raise UserError(
            "codec 'layered' has no published weights; start it from 'random' or from another "
            "variant's weights"
        )

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

    def auxiliary_parameters(self) -> list[nn.Parameter]:
        """Return the quantiles, which only the auxiliary loss trains."""
        return [p for name, p in self.network.named_parameters() if name.endswith("quantiles")]

    def auxiliary_loss(self) -> Tensor:
        """Return how far the quantiles are from those of the learned densities."""
        return self.network.aux_loss()

    def forward(self, images: Tensor) -> CodecOutput:
        """Code a batch [B, 3, H, W] in [0, 1] whose sides are multiples of ``multiple``.

        In training mode the rate is that of latents with additive uniform noise, the features are
        noisy or rounded (``quantisation``), and what ``wanted`` names is computed: images where
        a term looks at pixels, and the terms, over all pixels of the batch, padding included.
        Evaluation mode rounds and returns features and rate only.

        Terms: ``mae``, mean absolute error; ``ssim``, 1 - SSIM; ``perceptual``, see
        ``codecs.layered.perceptual``; ``adversarial``, and with it ``discriminator``, see
        ``codecs.layered.losses``. The gradient of ``adversarial`` does not reach the
        discriminator's parameters, that of ``discriminator`` nothing else.
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
        """Return the quantised layers that this codec sends of a latent, and their bits, twice.

        The second are those of rounded latents, see :class:`LayerPrior`.
        """
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
            # As in HiFiC the discriminator is told the latent, but does not teach it directly.
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
        """Build the tables that entropy coding needs; call it once after training or loading."""
        self.network.update(force=True)
        self.eval()

    def implementation(self) -> str:
        """Return CompressAI's version, the network's size and the layers that are sent."""
        sizes = self.settings
        widths = "/".join(str(width) for width in sizes.widths)
        return (
            f"compressai {compressai.__version__}, widths={widths}, semantic={sizes.semantic}, "
            f"texture={sizes.texture}, layers: {' and '.join(self.layers)}"
        )

    @torch.no_grad()
    def encode(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3].

        The reconstruction holds a float32 array [C, h, w] for each layer, and ``size``.
        """
        height, width = image.shape[:2]
        padded = pad_to_multiple(to_tensor(image).to(self._device), self.multiple)
        semantic, texture = self._split(self.network.g_a(padded))
        string, context, bits = self.network.semantic.compress(semantic)
        strings = [string]
        decoded = {"semantic": context}
        if "texture" in self.layers:
            string, decoded["texture"], more = self.network.texture.compress(texture, context)
            strings, bits = [*strings, string], bits + more
        return Encoded(
            pack(width, height, strings),
            _latents(decoded, height, width),
            padded.shape[-2] * padded.shape[-1],
            bits,
        )

    @torch.no_grad()
    def decode(self, data: bytes) -> Latents:
        """Return the latents of a bitstream: each layer, float32 [C, h, w], and ``size``."""
        width, height, strings, pixels = unpack_image(data, len(self.layers), self.multiple)
        sizes = self.settings
        channels = max(sizes.semantic, sizes.texture) + sizes.hyper  # they share a string
        strings = guarded(strings, channels * pixels // _STRIDE**2)
        rows, columns = (math.ceil(side / self.multiple) * HYPER_STRIDE for side in (height, width))
        context = self.network.semantic.decompress(strings[0], rows, columns)
        decoded = {"semantic": context}
        if "texture" in self.layers:
            prior = self.network.texture
            decoded["texture"] = prior.decompress(strings[1], rows, columns, context)
        return _latents(decoded, height, width)

    def features(self, latents: Latents) -> Tensor:
        """Return what tasks read, float32 [1, C, h, w], of the padded image."""
        return torch.cat([self._layer(latents, name) for name in self.layers], 1)

    @torch.no_grad()
    def image(self, latents: Latents) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of latents.

        Without a texture layer its means, as the semantic layer predicts them, take its place.
        """
        layers = {name: self._layer(latents, name) for name in Layered.layers if name in latents}
        height, width = (int(side) for side in latents["size"])
        image = self.network.g_s(self._complete(layers))
        return to_image(image[0, :, :height, :width])

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def _layer(self, latents: Latents, name: str) -> Tensor:
        return torch.from_numpy(latents[name].copy())[None].to(self._device)


class LayeredSemantic(Layered):
    """The same network, weights included, of which only the semantic layer is sent and read."""

    layers = ("semantic",)


def semantic_stream(data: bytes) -> bytes:
    """Return the bitstream of :class:`LayeredSemantic` that is part of one of :class:`Layered`.

    This is what a node in the network does that has no need of texture: it runs no network.
    """
    width, height, strings = unpack(data, len(Layered.layers))
    return pack(width, height, strings[:1])


def _latents(layers: dict[str, Tensor], height: int, width: int) -> Latents:
    arrays = {name: layer[0].cpu().contiguous().numpy() for name, layer in layers.items()}
    return {**arrays, "size": np.array([height, width], dtype=np.int32)}
