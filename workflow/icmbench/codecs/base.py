"""The results of a codec, for the encoder, the decoder, the trainer and the tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icmbench.utils.images import Latents, RgbImage, decoded_digest

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

__all__ = [
    "CodecOutput",
    "Encoded",
    "Features",
    "Latents",
    "RgbImage",
    "decoded_digest",
]


@dataclass(frozen=True)
class Encoded:
    """One coded image.

    Attributes:
        data: the bitstream, headers included; its length is the rate.
        reconstruction: what the encoder expects the decoder to return, uint8 [H, W, 3] or the
            latents of a feature codec; None where it was not asked for, and for an external encoder
            that does not report it.
        pixels_coded: number of coded pixels, padding included.
        bits_estimated: the entropy model's estimate in bits; NaN where there is none.
        bits_counted: the rate in bits where ``data`` is not a bitstream (``rate: estimate``), or
            holds what the decoder knows from elsewhere.
        latent: what a learned codec's entropy decoder must return, which ``finish`` reconstructs;
            None of other codecs.
        rate_map: estimated bits of each position of the latent, float32 [h, w], whose sum is
            ``bits_estimated``; None where the codec does not state them.
    """

    data: bytes
    reconstruction: RgbImage | Latents | None
    pixels_coded: int
    bits_estimated: float = float("nan")
    bits_counted: int | None = None
    latent: Any = None
    rate_map: np.ndarray | None = None

    @property
    def bits(self) -> int:
        """The rate in bits."""
        return 8 * len(self.data) if self.bits_counted is None else self.bits_counted


@dataclass
class CodecOutput:
    """The output of a learned codec for a batch, in training and validation.

    Attributes:
        images: decoded batch [B, 3, H, W], float32 in [0, 1]; None where pixels are not decoded.
        bits: estimated bits of the whole batch, a scalar tensor.
        pixels: coded pixels of the whole batch, padding included.
        features: what tasks read of a feature codec [B, C, h, w], else None.
        terms: loss terms that the codec computes itself, by name, scalars.
        coded_bits: bits of the bitstreams of rounded latents, containers included, as far as they
            can be estimated, without gradient; None where the codec does not compute them. At low
            rates ``bits``, which are those of noisy latents, are more.
    """

    images: Tensor | None
    bits: Tensor
    pixels: int
    features: Tensor | None = None
    terms: dict[str, Tensor] = field(default_factory=dict)
    coded_bits: Tensor | None = None


@dataclass(frozen=True)
class Features:
    """The input of a task that reads features.

    Attributes:
        values: [B, C, h, w], of images that were padded to a common size.
        sizes: height and width of each image in pixels, without padding.
        padded: height and width, in pixels, of what ``values`` covers.
    """

    values: Tensor
    sizes: list[tuple[int, int]]
    padded: tuple[int, int]

    def to(self, device: torch.device) -> Features:
        """Return the features on a device."""
        return Features(self.values.to(device), self.sizes, self.padded)
