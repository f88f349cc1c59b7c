"""The DICM codec: backbone, redundancy elimination and compression of features.

Tang, Yi, Wang, IEEE Transactions on Broadcasting 2025.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import ClassVar

import compressai
import torch
from torch import Tensor, nn
from torch.nn import functional

from icmbench.codecs.base import CodecOutput, Latents
from icmbench.codecs.dicm.compression import LAST_UP, CompressionDecoder, CompressionEncoder
from icmbench.codecs.dicm.elimination import Elimination
from icmbench.codecs.dicm.entries import DicmParameters
from icmbench.codecs.dicm.gaussian import quantise
from icmbench.codecs.dicm.latent import LatentModel
from icmbench.codecs.learned.base import LearnedFeatureCodec, bits_of
from icmbench.networks.backbone import SplitResNet
from icmbench.networks.linear_start import (
    SHARE,
    LinearAnalysis,
    LinearSynthesis,
    fit_bounded,
    set_last,
)

_LAYERS = ("layer2_mse", "layer3_mse", "layer4_mse")
_COMPRESSION_TERMS = frozenset({"bpp", "feature_mse", *_LAYERS})


class Dicm(LearnedFeatureCodec):
    """A codec of features with trainable parts ``backbone``, ``elimination``, ``compression``.

    .. code-block:: none

        x -> head -> f1 -> RE -> f2 -> encoder -> y -> Q -> EM ->|bits|-> y_hat -> decoder -> f3

        head: layers of a ResNet up to layer1 (stride 4); tasks read f3 through the others, the tail
        RE: redundancy elimination, a bottleneck under a rate constraint that is not transmitted
        EM: entropy model with hyperprior and checkerboard context

    Args:
        parameters: sizes, and which pieces the codec has.
        rate: not used; the weight of the rate in training sets the rate.

    Attributes:
        channels: channels of the features.
        stride: pixels per position of the features.
    """

    stride: ClassVar[int] = 4

    #: Whether the rate is not wanted, because the frozen codec only makes features for a task.
    features_only: bool = False

    def __init__(self, parameters: DicmParameters, rate: float | None = None) -> None:
        super().__init__()
        self.settings = parameters
        self.backbone = SplitResNet(
            parameters.backbone_blocks, parameters.backbone_width, parameters.backbone_classes
        )
        self.channels = self.backbone.channels[0]
        self.elimination = Elimination(self.channels, parameters) if parameters.eliminate else None
        sizes = (self.channels, parameters.widths, parameters.orders, parameters.drop_path)
        self.encoder: nn.Module = CompressionEncoder(*sizes, parameters.layer_scale)
        self.decoder: nn.Module = CompressionDecoder(*sizes, parameters.layer_scale)
        self.latent = LatentModel(parameters)
        if parameters.linear_start:
            block = (self.channels, parameters.widths[-1], Dicm.latent_stride // self.stride)
            self.encoder = LinearAnalysis(self.encoder, *block)
            self.decoder = LinearSynthesis(self.decoder, *block)

    # --- training -----------------------------------------------------------------------------

    @torch.no_grad()
    def initialise(
        self, parts: Collection[str], images: Iterable[Tensor], loss: Mapping[str, float]
    ) -> None:
        """Let a stage's transforms begin as principal components, with ``linear_start``.

        Redundancy elimination, then compression is fitted when it is first trained, on features
        that this training run does not change.
        """
        if not self.settings.linear_start or "backbone" in parts:
            return
        eliminate = self.elimination is not None
        if self.elimination is not None and "elimination" in parts:
            step = self._step(loss, "elimination_bpp", "elimination_mse")
            self.elimination.fit((self._reduced(image, False)[0] for image in images), step)
        elif "compression" in parts and not self.encoder.fitted:
            assert isinstance(self.encoder, LinearAnalysis)
            assert isinstance(self.decoder, LinearSynthesis)
            step = self._step(loss, "bpp", "feature_mse")
            samples = (self._reduced(image, eliminate)[0] for image in images)
            self.latent.set_widths(fit_bounded(self.encoder, self.decoder, samples, step))
            # The decoder's last block has a skip connection around its last convolution.
            assert self.decoder.own is not None
            set_last(list(self.decoder.own.children())[LAST_UP], share=SHARE)

    def _step(self, loss: Mapping[str, float], rate: str, distortion: str) -> float:
        """Return the quantisation step at which rate and squared error balance at high rates.

        With n numbers a pixel, each of error step ** 2 / 12, halving the step costs n bits.
        """
        numbers = self.channels / self.stride**2
        price = loss.get(rate, 0.0) / (loss.get(distortion, 0.0) or 1e-9)
        return math.sqrt(6 / math.log(2) * numbers * price)

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part."""
        return {
            "backbone": [self.backbone],
            "elimination": [] if self.elimination is None else [self.elimination],
            "compression": [self.encoder, self.decoder, self.latent],
        }

    def forward(self, images: Tensor) -> CodecOutput:
        """Code a batch [B, 3, H, W] in [0, 1] whose sides are multiples of ``multiple``.

        In training mode entropy model and decoder see latents with uniform noise. If ``wanted``
        has none of its terms, compression is left out: features are None and bits zero. Evaluation
        mode rounds, and returns bits, features and the terms that need no further network. With
        ``features_only`` hyper-codec and context are left out then, and bits are zero.

        Terms, means over the batch: ``elimination_bpp`` (bits of redundancy elimination's latent
        per pixel), ``elimination_l1`` and ``elimination_mse`` (f2 to f1), ``feature_mse`` (f3 to
        f2), ``layer2_mse`` to ``layer4_mse`` (outputs of the backbone's stages for f3 to those for
        f2).
        """
        batch, _, height, width = images.shape
        pixels = batch * height * width
        reference, terms = self._reduced(images, self.elimination is not None)
        if self.training and not self.wanted & _COMPRESSION_TERMS:
            return CodecOutput(None, reference.new_zeros(()), pixels, None, terms)
        y = self.encoder(reference)
        if self.features_only and not self.training:
            features = self.decoder(quantise(y.float(), False)).float()
            return CodecOutput(None, reference.new_zeros(()), pixels, features, terms)
        with torch.autocast(images.device.type, enabled=False):
            y_hat, bits = self.latent(y.float())
        features = self.decoder(y_hat).float()
        terms["feature_mse"] = functional.mse_loss(features, reference)
        if self.training and self.wanted.intersection(_LAYERS):
            stages = zip(
                _LAYERS, self.backbone.tail(features), self.backbone.tail(reference), strict=True
            )
            for name, own, other in stages:
                terms[name] = functional.mse_loss(own.float(), other.float())
        return CodecOutput(None, bits, pixels, features, terms)

    def self_supervised(self, images: Tensor, eliminate: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the backbone's output without compression, for self-supervised training.

        Args:
            images: batch [B, 3, H, W] in [0, 1]; sides are multiples of 32.
            eliminate: whether features pass redundancy elimination, if the codec has it.

        Returns:
            Output of ``layer4`` [B, C, H / 32, W / 32]; the terms of elimination, if it ran.
        """
        features, terms = self._reduced(images, eliminate)
        return self.backbone.tail(features)[-1], terms

    def _reduced(self, images: Tensor, eliminate: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Return f2, or f1 without elimination, float32, and the terms of elimination."""
        features = self.backbone.head(images).float()
        if self.elimination is None or not eliminate:
            return features, {}
        left, likelihoods = self.elimination(features)
        batch, _, height, width = images.shape
        return left, {
            "elimination_bpp": bits_of(likelihoods) / (batch * height * width),
            "elimination_l1": functional.l1_loss(left, features),
            "elimination_mse": functional.mse_loss(left, features),
        }

    # --- coding -------------------------------------------------------------------------------

    def implementation(self) -> str:
        """Return the range coder's version and the network's size."""
        settings = self.settings
        parts = [
            f"dicm, range coder of compressai {compressai.__version__}",
            f"M={settings.widths[-1]}",
            f"transformer channels={settings.hyper_dim}",
        ]
        if not settings.context:
            parts.append("no context model")
        if not settings.eliminate:
            parts.append("no redundancy elimination")
        return ", ".join(parts)

    @property
    def symbols_per_position(self) -> int:
        """Upper bound on the symbols in the string: latent and hyper-latent."""
        return 2 * self.latent.channels

    def analyse(self, images: Tensor) -> Tensor:
        """Return the latent [1, M, h, w] of a padded image [1, 3, H, W]."""
        reference, _ = self._reduced(images, self.elimination is not None)
        y: Tensor = self.encoder(reference)
        return y

    def compress_latent(self, y: Tensor) -> tuple[list[bytes], Latents, Tensor]:
        """Return the string of a latent, its decoded value int8 [M, h, w], and the rate map."""
        string, decoded, rate_map = self.latent.encode(y)
        return [string], {"y": decoded}, rate_map

    def decompress_latent(self, strings: Sequence[bytes], rows: int, columns: int) -> Latents:
        """Return the latent ``y`` int8 [M, rows, columns]."""
        return {"y": self.latent.decode(strings[0], rows, columns)}

    @torch.no_grad()
    def features(self, latents: Latents) -> Tensor:
        """Return f3, float32 [1, channels, H / 4, W / 4] of the padded image."""
        decoded: Tensor = self.decoder(self.latent_tensor(latents, "y").float()).float()
        return decoded
