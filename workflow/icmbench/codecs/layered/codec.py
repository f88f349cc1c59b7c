"""The layered codec of zhang2022 (Zhang, Jia, Chang, Ma, DCC 2022), as far as it is published.

Each layer has a bitstream of its own: the first decodes alone, the second is coded given the first.
The paper calls them semantic and texture layer, and so do the names of weights, settings and
latents. Nothing makes the first semantic: the layers are a partition of the latent's channels.
Tasks read the decoded latent; a generator trained against a discriminator turns it into an image.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import ClassVar

import compressai
import torch
from compressai.models.base import CompressionModel
from torch import Tensor, nn

from icmbench.codecs.base import CodecOutput, Latents, RgbImage
from icmbench.codecs.bitstream import pack, unpack
from icmbench.codecs.layered.entries import STRIDED, LayeredParameters
from icmbench.codecs.layered.losses import (
    Discriminator,
    adversarial_loss,
    discriminator_loss,
    fixed,
    ssim_loss,
)
from icmbench.codecs.layered.perceptual import make_distance
from icmbench.codecs.layered.prior import HYPER_STRIDE, LayerPrior, range_coded_bytes
from icmbench.codecs.layered.transforms import Analysis, Synthesis
from icmbench.codecs.learned.base import LearnedFeatureCodec
from icmbench.codecs.learned.compressai_codec import Bounded
from icmbench.networks.linear_start import LinearAnalysis, LinearSynthesis, fit
from icmbench.utils.images import to_image

# Terms of the loss that depend on decoded pixels; the trainer computes mse itself.
PIXEL_TERMS = frozenset({"mae", "ssim", "perceptual", "adversarial", "mse"})

LATENT_STRIDE = 2**STRIDED
_ALL = {"analysis", "synthesis", "entropy"}  # a linear start sets, and a step changes, all three
_STEP = 60 / 255  # quantisation step of a linear start, before a rate asks for another
_RATE_IMAGES = 100  # that decide the step for a rate
_MOST_OCTAVES, _BISECTIONS = 4.0, 10  # the step is found within a factor of 16, to 1 %


class LayeredNetwork(CompressionModel):
    """Transforms and entropy models, without the discriminator.

    Args:
        parameters: sizes.
    """

    def __init__(self, parameters: LayeredParameters) -> None:
        super().__init__()
        latent = parameters.semantic + parameters.texture
        mixed = parameters.quantisation == "mixed"
        self.g_a: nn.Module = Analysis(parameters.widths, latent, parameters.latent_gain)
        self.g_s: nn.Module = Synthesis(parameters.widths, latent, parameters.residual_blocks)
        if parameters.linear_start:
            self.g_a = LinearAnalysis(self.g_a, 3, latent, LATENT_STRIDE)
            self.g_s = LinearSynthesis(self.g_s, 3, latent, LATENT_STRIDE)
        self.semantic = LayerPrior(parameters.semantic, parameters.hyper, mixed=mixed)
        self.texture = LayerPrior(parameters.texture, parameters.hyper, parameters.semantic, mixed)


class Layered(LearnedFeatureCodec):
    """Codes both layers; tasks read both.

    .. code-block:: none

        x -> g_a -+-> first  -> prior 1 ->|bits 1|-> first  -+-> task
                  |                |                         |
                  |                v context                 |
                  +-> second -> prior 2 ->|bits 2|-> second -+-> g_s -> x_hat

    Without bits 2, tasks read the first layer alone, and g_s gets the means that prior 2 predicts
    for the second. Trainable parts are ``analysis``, ``synthesis``, ``entropy`` and
    ``discriminator``.

    Args:
        parameters: sizes, quantisation in training, which perceptual distance.
        rate: not used; the weight of the rate in training sets the rate.

    Attributes:
        layers: the layers that are sent and that tasks read.
    """

    multiple: ClassVar[int] = LATENT_STRIDE * HYPER_STRIDE
    layers: ClassVar[tuple[str, ...]] = ("semantic", "texture")

    def __init__(self, parameters: LayeredParameters, rate: float | None = None) -> None:
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

    def initialise(
        self, parts: Collection[str], images: Iterable[Tensor], loss: Mapping[str, float]
    ) -> None:
        """Let the transforms begin as principal components, with ``linear_start``.

        The components of largest variance are the first layer.
        """
        linear = self._linear(parts)
        if linear is None or linear[0].fitted:
            return
        widths = fit(*linear, images, _STEP)
        bias = linear[1].linear.bias
        assert bias is not None
        with torch.no_grad():
            bias -= 0.5  # the synthesis' own output of zero is mid-grey
        semantic, texture = widths.split([self.settings.semantic, self.settings.texture])
        self.network.semantic.set_widths(semantic)
        self.network.texture.set_widths(texture, semantic)

    @torch.no_grad()
    def reach_rate(self, parts: Collection[str], images: Iterable[Tensor], bpp: float) -> float:
        """Scale the quantisation steps of all channels to where images have a rate.

        Only with ``linear_start``, whose gains and widths are in steps: apart from rounding, a
        network with another step computes the same image.
        """
        linear = self._linear(parts)
        if linear is None:
            return 1.0
        by_size: dict[torch.Size, list[Tensor]] = {}
        for batch in islice(images, _RATE_IMAGES):
            by_size.setdefault(batch.shape[2:], []).append(self.network.g_a(batch).float())
        latents = [torch.cat(same) for same in by_size.values()]
        pixels = sum(len(y) * LATENT_STRIDE**2 * y[0, 0].numel() for y in latents)
        low, high = -_MOST_OCTAVES, _MOST_OCTAVES
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            self._rescale(2**middle)
            bits = sum(float(self._model(2**middle * y)[2]) for y in latents)
            self._rescale(2**-middle)
            low, high = (middle, high) if bits < bpp * pixels else (low, middle)
        factor = 2 ** ((low + high) / 2)
        self._rescale(factor)
        linear[0].gain.multiply(factor)
        linear[1].gain.multiply(1 / factor)
        return 1 / factor

    def _linear(self, parts: Collection[str]) -> tuple[LinearAnalysis, LinearSynthesis] | None:
        """Return the transforms with a linear start, if there is one and all parts are trained."""
        analysis, synthesis = self.network.g_a, self.network.g_s
        if not isinstance(analysis, LinearAnalysis) or not set(parts) >= _ALL:
            return None
        assert isinstance(synthesis, LinearSynthesis)
        return analysis, synthesis

    def _rescale(self, factor: float) -> None:
        self.network.semantic.rescale(factor)
        self.network.texture.rescale(factor)

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
        """Return the quantised layers that are sent, their bits, and the bits of bitstreams."""
        semantic, texture = self._split(y)
        context, bits, coded = self.network.semantic(semantic)
        decoded, strings = {"semantic": context}, [coded]
        if "texture" in self.layers:
            decoded["texture"], more, coded = self.network.texture(texture, context)
            bits, strings = bits + more, [*strings, coded]
        lengths = torch.stack([range_coded_bytes(bits) for bits in strings], 1)
        height, width = (LATENT_STRIDE * side for side in y.shape[-2:])
        return decoded, bits, 8 * packed_bytes(width, height, lengths).sum()

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
        """Return the latent that the synthesis reads; a missing second layer is predicted."""
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

    def compress_latent(self, y: Tensor) -> tuple[list[bytes], Latents, Tensor]:
        """Return one string per layer, the layers float32 [C, h, w], and the rate map."""
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
        """Return the uint8 RGB image [H, W, 3] of latents, with or without the second layer."""
        names = [name for name in Layered.layers if name in latents]
        layers = {name: self.latent_tensor(latents, name) for name in names}
        height, width = (int(side) for side in latents["size"])
        image = self.network.g_s(self._complete(layers))
        return to_image(image[0, :, :height, :width])


class LayeredFirst(Layered):
    """The same network with the same weights; only the first layer is sent and read."""

    layers = ("semantic",)


def first_stream(data: bytes) -> bytes:
    """Return the bitstream of :class:`LayeredFirst` contained in one of :class:`Layered`.

    A node in the network that needs no second layer does this; it runs no neural network.
    """
    width, height, strings = unpack(data, len(Layered.layers))
    return pack(width, height, strings[:1])


def packed_bytes(width: int, height: int, lengths: Tensor) -> Tensor:
    """Return the bytes of containers [B] with strings of some lengths [B, n] in bytes."""
    count = lengths.shape[1]
    header = len(pack(width, height, [b""] * count))  # with one byte for each length
    longer = [(lengths[:, :-1] >= 128**digits).sum(1) for digits in (1, 2, 3)]
    return header + lengths.sum(1) + torch.stack(longer).sum(0)


def _arrays(layers: dict[str, Tensor]) -> Latents:
    return {name: layer[0].cpu().contiguous().numpy() for name, layer in layers.items()}
