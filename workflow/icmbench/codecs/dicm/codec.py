"""The DICM codec: backbone, redundancy elimination and compression of features.

Tang, Yi, Wang, IEEE Transactions on Broadcasting 2025. f1: features of the backbone's head; f2:
what redundancy elimination leaves of them; f3: f2 as decoded. Only latents of f2 are transmitted.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import compressai
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from icmbench.codecs.base import CodecOutput, Encoded, Latents, RgbImage
from icmbench.codecs.bitstream import guarded, pack, unpack_image
from icmbench.codecs.dicm.compression import CompressionDecoder, CompressionEncoder
from icmbench.codecs.dicm.elimination import Elimination
from icmbench.codecs.dicm.latent import LatentModel
from icmbench.codecs.dicm.parameters import DicmParameters
from icmbench.codecs.learned.base import bits_of, pad_to_multiple
from icmbench.errors import UserError
from icmbench.networks.backbone import SplitResNet
from icmbench.utils.tensors import to_tensor

_STRIDE = 16  # of the latent y2, in pixels
_LAYERS = ("layer2_mse", "layer3_mse", "layer4_mse")
_COMPRESSION_TERMS = frozenset({"bpp", "feature_mse", *_LAYERS})


class Dicm(nn.Module):
    """A codec of features with trainable parts ``backbone``, ``elimination``, ``compression``.

    Args:
        parameters: sizes, and which pieces there are.
        rate_index: has no influence; the rate is set in training.
        pretrained: refused, see :meth:`load_pretrained`.

    Attributes:
        multiple: image sides are padded to this.
        wanted: names of the loss terms that training needs; others are left out where they cost.
        channels: channels of the features.
        stride: pixels per feature position.
    """

    multiple: ClassVar[int] = 64  # 16 for the latent, 4 more for the hyper-latent
    stride: ClassVar[int] = 4
    wanted: frozenset[str] = frozenset()

    def __init__(
        self, parameters: DicmParameters, rate_index: int = 0, pretrained: bool = False
    ) -> None:
        super().__init__()
        if pretrained:
            self.load_pretrained(rate_index)
        self.settings = parameters
        self.backbone = SplitResNet(
            parameters.backbone_blocks, parameters.backbone_width, parameters.backbone_classes
        )
        self.channels = self.backbone.channels[0]
        self.elimination = (
            Elimination(
                self.channels,
                parameters.elimination_widths,
                parameters.elimination_depths,
                parameters.elimination_block,
                parameters.elimination_gain,
            )
            if parameters.eliminate
            else None
        )
        sizes = (self.channels, parameters.widths, parameters.orders, parameters.drop_path)
        self.encoder = CompressionEncoder(*sizes)
        self.decoder = CompressionDecoder(*sizes)
        self.latent = LatentModel(parameters)

    # --- training -----------------------------------------------------------------------------

    def load_pretrained(self, rate_index: int) -> None:
        """Refuse: the authors published code, no weights.

        Raises:
            UserError: always.
        """
        raise UserError(
            "dicm: pretrained weights are asked for, but none are published for this codec; "
            "train it, or start it from another training's result"
        )

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part."""
        return {
            "backbone": [self.backbone],
            "elimination": [] if self.elimination is None else [self.elimination],
            "compression": [self.encoder, self.decoder, self.latent],
        }

    def auxiliary_parameters(self) -> list[nn.Parameter]:
        """Return no parameters: what is coded has Gaussian priors, without quantiles."""
        return []

    def auxiliary_loss(self) -> Tensor:
        """Return zero, see :meth:`auxiliary_parameters`."""
        return torch.zeros((), device=next(self.parameters()).device)

    def forward(self, images: Tensor) -> CodecOutput:
        """Code a batch [B, 3, H, W] in [0, 1] whose sides are multiples of ``multiple``.

        Training: latents carry uniform noise for entropy model and decoder, and compression is left
        out, features None and bits zero, where ``wanted`` has none of its terms. Evaluation rounds,
        and gives bits, features and the terms that cost no further network.

        Terms, means over the batch: ``elimination_bpp`` (bits of y1 per pixel), ``elimination_l1``
        and ``elimination_mse`` (f2 to f1), ``feature_mse`` (f3 to f2), ``layer2_mse`` to
        ``layer4_mse`` (outputs of the backbone's stages for f3 to those for f2).
        """
        batch, _, height, width = images.shape
        pixels = batch * height * width
        reference, terms = self._reduced(images, self.elimination is not None)
        if self.training and not self.wanted & _COMPRESSION_TERMS:
            return CodecOutput(None, reference.new_zeros(()), pixels, None, terms)
        y = self.encoder(reference)
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
            eliminate: whether redundancy elimination is in the path, where the codec has it.

        Returns:
            Output of ``layer4`` [B, C, H / 32, W / 32]; the terms of elimination
            where redundancy was eliminated.
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

    def prepare_coding(self) -> None:
        """Go to evaluation mode; coding tables do not depend on weights and are made on demand."""
        self.eval()

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

    @torch.no_grad()
    def encode(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3]; ``reconstruction`` holds ``y`` and ``size``.

        ``y``: the latent int8 [M, h, w] of the padded image; ``size``: int32 [height, width].
        """
        height, width = image.shape[:2]
        device = next(self.parameters()).device
        padded = pad_to_multiple(to_tensor(image).to(device), self.multiple)
        reference, _ = self._reduced(padded, self.elimination is not None)
        string, y, bits = self.latent.encode(self.encoder(reference))
        return Encoded(
            pack(width, height, [string]),
            _latents(y, height, width),
            padded.shape[-2] * padded.shape[-1],
            bits,
        )

    @torch.no_grad()
    def decode(self, data: bytes) -> Latents:
        """Return the latents of a bitstream, see :meth:`encode`."""
        width, height, strings, pixels = unpack_image(data, 1, self.multiple)
        # Latent and hyper-latent share a string.
        strings = guarded(strings, 2 * self.latent.channels * pixels // _STRIDE**2)
        sides = [math.ceil(side / self.multiple) * self.multiple for side in (height, width)]
        y = self.latent.decode(strings[0], *(side // _STRIDE for side in sides))
        return _latents(y, height, width)

    @torch.no_grad()
    def features(self, latents: Latents) -> Tensor:
        """Return f3, float32 [1, channels, H / 4, W / 4] of the padded image."""
        y = torch.from_numpy(latents["y"])[None].to(next(self.parameters()).device)
        decoded: Tensor = self.decoder(y.float()).float()
        return decoded


def _latents(y: np.ndarray[Any, Any], height: int, width: int) -> Latents:
    return {"y": y, "size": np.array([height, width], dtype=np.int32)}
