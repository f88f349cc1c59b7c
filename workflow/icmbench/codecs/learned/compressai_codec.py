"""Image codecs with CompressAI's networks and entropy models.

A subclass builds the network and models its latent.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

import compressai
import torch
from compressai.layers import AttentionBlock
from compressai.ops import LowerBound
from compressai.zoo import image
from compressai.zoo.pretrained import rename_key
from torch import Tensor, nn

from icmbench.codecs.base import CodecOutput, Encoded, RgbImage
from icmbench.codecs.learned.base import LearnedCodec, bits_of, rounded
from icmbench.codecs.learned.entries import LearnedParameters, published_quality
from icmbench.codecs.learned.fast_entropy import use_fast_entropy_models
from icmbench.networks.linear_start import (
    LEAST_WIDTH,
    LinearAnalysis,
    LinearSynthesis,
    deviations,
    fit,
    last_convolution,
)
from icmbench.networks.pretrained import load_published
from icmbench.networks.weights import load_resized
from icmbench.utils.images import as_png, from_png, to_image

# Rate and distortion balance at a step of 255 sqrt(18 / (ln 2 * 255^2 lambda)) = 5.1 / sqrt(lambda)
# grey values: MSE = step^2 / 12, and a bit per sample for every halving of the step.
_STEP = 5.1
_STEPS = (20.0, 150.0)  # bounds, in grey values


# Parameters of a factorised prior: lists since 1.2.7, single ones before.
_DENSITY = re.compile(r"(.*entropy_bottleneck\.)_(matrix|bias|factor)(\d)$")
_PLURALS = {"matrix": "matrices", "bias": "biases", "factor": "factors"}


class Bounded(nn.Module):
    """Clamp to [0, 1]; a gradient that leads back into the range still passes."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = LowerBound(0.0)
        self.upper = LowerBound(-1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` bounded to [0, 1]."""
        return -self.upper(-self.lower(x))


class CompressaiCodec(LearnedCodec):
    """A codec with trainable parts ``analysis`` (g_a), ``synthesis`` (g_s) and ``entropy``.

    Args:
        parameters: sizes, quantisation in training, which pretrained weights.
        rate: the point's value on the ladder; most codecs have a network for each.

    Attributes:
        zoo: name in CompressAI's model zoo; empty for codecs without published weights.
        started: a buffer of a linear start, whether the entropy model began at the right widths.
    """

    strings: ClassVar[int] = 2
    zoo: ClassVar[str] = ""

    network: Any
    started: Tensor

    def __init__(self, parameters: LearnedParameters, rate: float | None = None) -> None:
        super().__init__()
        self.settings, self.rate = parameters, rate
        self.network = self.build(*self.sizes(parameters))
        use_fast_entropy_models(self.network)
        with torch.no_grad():
            last_convolution(self.network.g_a).weight *= parameters.latent_gain
        if parameters.linear_start:
            self.add_linear_path()
        self.bounded = Bounded()

    def add_linear_path(self) -> None:
        """Put linear transforms beside analysis and synthesis."""
        self.register_buffer("started", torch.tensor(False))
        channels = (3, self.network_sizes[-1], self.latent_stride)
        self.network.g_a = LinearAnalysis(self.network.g_a, *channels)
        self.network.g_s = LinearSynthesis(self.network.g_s, *channels)

    @abstractmethod
    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network of the given sizes."""

    def sizes(self, parameters: LearnedParameters) -> tuple[int, ...]:
        """Return the arguments of :meth:`build`, from the parameters."""
        return parameters.n, parameters.m

    @property
    def network_sizes(self) -> tuple[int, ...]:
        """The channels of the transforms and of the latent."""
        return (self.network.N, self.network.M)

    # --- training -----------------------------------------------------------------------------

    def initialise(
        self, parts: Collection[str], images: Iterable[Tensor], loss: Mapping[str, float]
    ) -> None:
        """Let the transforms begin as principal components, with ``linear_start``.

        The quantisation step is the one that suits the weight of ``mse`` at high rates. Where the
        transforms come from another codec, only the entropy model begins here.
        """
        if not self.settings.linear_start or self.started or "entropy" not in parts:
            return
        if self.network.g_a.fitted:
            widths = deviations(self.network.g_a, images)
        else:
            step = min(_STEPS[1], max(_STEPS[0], _STEP / math.sqrt(loss.get("mse", 0.0) or 1e-9)))
            widths = fit(self.network.g_a, self.network.g_s, images, step / 255, (AttentionBlock,))
        with torch.no_grad():
            self.set_widths(widths.clamp_min(LEAST_WIDTH))
            self.started.fill_(True)

    @staticmethod
    def rename_weight(name: str) -> str:
        """Return the name here of another codec's weight; its entropy model is not this one's."""
        return "" if name == "started" else name

    def set_widths(self, widths: Tensor) -> None:
        """Let the entropy model begin with these standard deviations of the latent's channels."""

    @abstractmethod
    def model_latent(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decoder's input for a latent [B, M, h, w], and its bits, a scalar.

        Called in float32 whatever the autocast, since likelihoods decide the rate.
        """

    @property
    def rounds_while_training(self) -> bool:
        """Whether the decoder sees rounded latents while the rate is that of noisy ones."""
        return self.training and self.settings.quantisation == "mixed"

    @classmethod
    def published_parameters(
        cls, parameters: LearnedParameters, rate: float | None
    ) -> LearnedParameters:
        """Return the parameters in the size of CompressAI's weights for a quality or a lambda."""
        sizes = image.cfgs[cls.zoo][published_quality(parameters, rate)]
        return with_sizes(parameters, sizes[0], sizes[-1])

    @classmethod
    def parameters_of(
        cls, parameters: LearnedParameters, state: Mapping[str, Tensor]
    ) -> LearnedParameters:
        """Return the parameters in the size of a state dict, as far as it is of such a network."""
        # A safetensors file has no order of its own.
        kernels = [
            state[name]
            for name in sorted(state, key=_places)
            if "g_a." in name and not re.search(r"\.(linear|refine)\.", name)
            if name.endswith("weight") and state[name].ndim == 4
        ]
        if not kernels:
            return parameters
        linear = any("g_a.linear." in name for name in state)
        return with_sizes(parameters, kernels[0].shape[0], kernels[-1].shape[0], linear)

    def load_pretrained(self, rate: float | None) -> None:
        """Load CompressAI's published weights for a quality or a lambda."""
        quality = published_quality(self.settings, rate)
        state = load_published(image.model_urls[self.zoo][self.settings.metric][quality])
        load_resized(self.network, {self.own_name(name): value for name, value in state.items()})

    def own_name(self, name: str) -> str:
        """Return the name in this version of CompressAI of a weight in a file of an older one."""
        return _DENSITY.sub(lambda m: f"{m[1]}{_PLURALS[m[2]]}.{m[3]}", rename_key(name))

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part."""
        own = dict(self.network.named_children())
        transforms = {"analysis": [own.pop("g_a")], "synthesis": [own.pop("g_s")]}
        return {**transforms, "entropy": list(own.values())}

    def forward(self, images: Tensor) -> CodecOutput:
        """Code a batch [B, 3, H, W] in [0, 1] whose sides are multiples of ``multiple``.

        In training mode the rate is that of latents with additive uniform noise; the decoder's
        input has the same noise, or is rounded (``quantisation: mixed``). Evaluation mode rounds.
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
        """Switch to evaluation mode and build coding tables; call it after training or loading."""
        self.network.update(force=True)
        super().prepare_coding()

    def implementation(self) -> str:
        """Return CompressAI's version, the network's size and what the rate is."""
        size = ", ".join(f"{n}={v}" for n, v in zip("NM", self.network_sizes, strict=False))
        rate = "" if self.settings.rate == "bitstream" else ", rate estimated, no bitstream"
        return f"compressai {compressai.__version__}, {size}{rate}"

    @property
    def symbols_per_position(self) -> int:
        """Upper bound on the symbols in one string, per position of the latent."""
        return max(self.network_sizes)

    def analyse(self, images: Tensor) -> Tensor:
        """Return the latent [1, M, h, w] of a padded image [1, 3, H, W]."""
        y: Tensor = self.network.g_a(images)
        return y

    def finish(self, latent: Tensor, height: int, width: int) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a decoded latent."""
        # The same numbers; transposed convolutions take a third less time than on planes.
        by_pixel = latent.contiguous(memory_format=torch.channels_last)
        decoded = self.network.g_s(by_pixel).clamp(0, 1)
        return to_image(decoded[0, :, :height, :width])

    @torch.no_grad()
    def encode(self, image: RgbImage, reconstruct: bool = True) -> Encoded:
        """Code a uint8 RGB image [H, W, 3].

        With ``rate: estimate`` the data is the decoded image as PNG, and the rate is the entropy
        model's estimate: a sequential decoder needs seconds per image, too slow for large splits.
        """
        if self.settings.rate == "bitstream":
            return super().encode(image, reconstruct)
        height, width = image.shape[:2]
        out = self(self.padded(image))
        bits = float(out.bits)
        decoded = to_image(out.images[0, :, :height, :width])
        return Encoded(as_png(decoded), decoded, out.pixels, bits, bits_counted=math.ceil(bits))

    @torch.no_grad()
    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of what :meth:`encode` returned."""
        image: RgbImage = (
            super().decode(data) if self.settings.rate == "bitstream" else from_png(data)
        )
        return image


def _places(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names by the numbers in them, ``g_a.2`` before ``g_a.10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def with_sizes(
    parameters: LearnedParameters, n: int, m: int, linear: bool = False
) -> LearnedParameters:
    """Return parameters for finished weights: their channels, and whether they have linear paths.

    Args:
        n: channels of the transforms.
        m: channels of the latent.
        linear: whether there are linear transforms beside the network's own.
    """
    return parameters.model_copy(update={"n": n, "m": m, "linear_start": linear})
