"""What the encoder, the decoder, the trainer and the tasks may ask of a codec."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from icmbench.utils.images import Latents, RgbImage, decoded_digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "CodecOutput",
    "Encoded",
    "FeatureCodec",
    "Features",
    "ImageCodec",
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
            latents of a feature codec; None for an external encoder that does not report it.
        pixels_coded: number of coded pixels, padding included.
        bits_estimated: the entropy model's estimate in bits; NaN where there is none.
        bits_counted: the rate in bits where ``data`` is not a bitstream (``rate: estimate``).
    """

    data: bytes
    reconstruction: RgbImage | Latents | None
    pixels_coded: int
    bits_estimated: float = float("nan")
    bits_counted: int | None = None

    @property
    def bits(self) -> int:
        """The rate in bits."""
        return 8 * len(self.data) if self.bits_counted is None else self.bits_counted


class ImageCodec(Protocol):
    """Turns an RGB image into bytes and back."""

    def implementation(self) -> str:
        """Return name and version of the code or program that does the coding."""
        ...

    def encode(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3]."""
        ...

    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a bitstream."""
        ...


class FeatureCodec(Protocol):
    """Turns an RGB image into bytes, and these into features that tasks read without pixels."""

    def implementation(self) -> str:
        """Return name and version of the code that does the coding."""
        ...

    def encode(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3]; ``reconstruction`` holds latents."""
        ...

    def decode(self, data: bytes) -> Latents:
        """Return the latents of a bitstream."""
        ...

    def features(self, latents: Latents) -> Tensor:
        """Return what tasks read, float32 [1, C, h, w], of the padded image."""
        ...


@dataclass
class CodecOutput:
    """The output of a learned codec for a batch, in training and validation.

    Attributes:
        images: decoded batch [B, 3, H, W], float32 in [0, 1]; None where pixels are not decoded.
        bits: estimated bits of the whole batch, a scalar tensor.
        pixels: coded pixels of the whole batch, padding included.
        features: what tasks read of a feature codec [B, C, h, w], else None.
        terms: loss terms that the codec computes itself, by name, scalars.
        coded_bits: bits of rounded latents, without gradient; None where the codec does not
            compute them. At low rates ``bits``, which are those of noisy latents, are more.
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
