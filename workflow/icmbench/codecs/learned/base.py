"""What all learned codecs share: padding, bitstreams, trainable parts.

    encode   image -> pad -> analyse -> compress_latent -> pack      -> bytes
    decode   bytes -> unpack -> decompress_latent -> finish          -> image, or latents
    forward  padded batch -> estimated rate, and images or features  -> CodecOutput (training)

Image codecs with CompressAI's networks inherit from ``compressai_codec.CompressaiCodec``. A feature
codec inherits from :class:`LearnedFeatureCodec` and adds its networks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from compressai.entropy_models import EntropyBottleneck, EntropyBottleneckVbr
from torch import Tensor, nn
from torch.nn import functional

from icmbench.codecs.base import CodecOutput, Encoded, Latents, RgbImage, decoded_digest
from icmbench.codecs.bitstream import pack, unpack_image
from icmbench.summaries import LoadedWeights
from icmbench.utils.images import to_tensor

_BOTTLENECKS = (EntropyBottleneck, EntropyBottleneckVbr)


class LearnedCodec(nn.Module, ABC):
    """A codec with trainable parts.

    Made as ``Codec(parameters, rate=None)``, where ``rate`` is the value on the ladder of the point
    that runs it. A codec with published weights has ``load_pretrained(rate)``, which loads those
    for a value.

    Attributes:
        loaded: what it took from a file of the user's or of another codec.
        multiple: image sides are padded to multiples of this.
        latent_stride: pixels per position of the latent.
        strings: number of strings in a bitstream.
        wanted: names of the loss terms that training needs. The trainer sets it; in training mode
            :meth:`forward` may leave out other terms. Evaluation mode does not depend on it.
    """

    multiple: ClassVar[int] = 64  # 16 for the latent, 4 for the hyper-latent
    latent_stride: ClassVar[int] = 16
    strings: ClassVar[int] = 1
    wanted: frozenset[str] = frozenset()
    loaded: LoadedWeights | None = None

    @classmethod
    def published_parameters(cls, parameters: Any, rate: float | None) -> Any:
        """Return the parameters in the size of the published weights for a value of the ladder."""
        return parameters

    @classmethod
    def parameters_of(cls, parameters: Any, state: Mapping[str, Any]) -> Any:
        """Return the parameters in the size of a state dict that is not this project's own."""
        return parameters

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    # --- training -----------------------------------------------------------------------------

    @abstractmethod
    def forward(self, images: Tensor) -> CodecOutput:
        """Code a batch [B, 3, H, W] in [0, 1] whose sides are multiples of ``multiple``."""

    @abstractmethod
    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part."""

    def initialise(
        self, parts: Collection[str], images: Iterable[Tensor], loss: Mapping[str, float]
    ) -> None:
        """Set initial weights that depend on training data; by default there are none.

        Called before the first step of a training run that trains the codec.

        Args:
            parts: names of the parts that are trained, see :meth:`part_modules`.
            images: batches [B, 3, H, W] of train images in [0, 1], padded to ``multiple``.
            loss: weight of each loss term at the first step.
        """

    def reach_rate(self, parts: Collection[str], images: Iterable[Tensor], bpp: float) -> float:
        """Set the quantisation step for a rate; by default training alone leads to the rate.

        Called before the first step, after :meth:`initialise`, and after the last step of a
        training run that steers the rate.

        Args:
            parts, images: as of :meth:`initialise`.
            bpp: the target.

        Returns:
            The factor by which the step changed.
        """
        return 1.0

    def auxiliary_parameters(self) -> list[nn.Parameter]:
        """Return the quantiles of factorised priors, which only the auxiliary loss trains."""
        return [p for name, p in self.named_parameters() if name.endswith("quantiles")]

    def auxiliary_loss(self) -> Tensor:
        """Return the distance of the quantiles from those of the learned densities, a scalar."""
        loss = torch.zeros((), device=self.device)
        for module in self.modules():
            if isinstance(module, _BOTTLENECKS) and module.quantiles.requires_grad:
                loss = loss + module.loss()
        return loss

    # --- coding -------------------------------------------------------------------------------

    @abstractmethod
    def implementation(self) -> str:
        """Return name, version and size of the code, for the records."""

    @property
    @abstractmethod
    def symbols_per_position(self) -> int:
        """Upper bound on the symbols in one string, per position of the latent."""

    @abstractmethod
    def analyse(self, images: Tensor) -> Tensor:
        """Return the latent [1, C, h, w] of a padded image [1, 3, H, W]."""

    @abstractmethod
    def compress_latent(self, y: Tensor) -> tuple[list[bytes], Any, Tensor]:
        """Return the strings of a latent, the decoded latent, and the rate map.

        The rate map has the estimated bits of each position, [h, w], see
        :func:`bits_by_position`; their sum is the estimated rate of the image.
        """

    @abstractmethod
    def decompress_latent(self, strings: Sequence[bytes], rows: int, columns: int) -> Any:
        """Return the decoded latent of strings; ``rows`` and ``columns`` are its h and w."""

    @abstractmethod
    def finish(self, latent: Any, height: int, width: int) -> RgbImage | Latents:
        """Return what :meth:`decode` returns for a decoded latent and the image's size."""

    def prepare_coding(self) -> None:
        """Switch to evaluation mode and build coding tables; call it after training or loading."""
        self.eval()

    @torch.no_grad()
    def encode(self, image: RgbImage, reconstruct: bool = True) -> Encoded:
        """Code a uint8 RGB image [H, W, 3].

        Args:
            image: the image.
            reconstruct: also run the decoder's networks on the decoded latent.
        """
        height, width = image.shape[:2]
        padded = self.padded(image)
        strings, latent, bits = self.compress_latent(self.analyse(padded))
        return Encoded(
            data=pack(width, height, strings),
            reconstruction=self.finish(latent, height, width) if reconstruct else None,
            pixels_coded=padded.shape[-2] * padded.shape[-1],
            bits_estimated=float(bits.sum()),
            latent=latent,
            rate_map=bits.cpu().numpy(),
        )

    @torch.no_grad()
    def decode(self, data: bytes) -> Any:
        """Return the uint8 RGB image [H, W, 3] of a bitstream, or the latents of its features.

        Raises:
            UserError: where the bitstream is damaged.
        """
        return self.finish(*self.decode_latent(data))

    @torch.no_grad()
    def decode_latent(self, data: bytes) -> tuple[Any, int, int]:
        """Return the decoded latent of a bitstream, and the image's height and width.

        Raises:
            UserError: where the bitstream is damaged.
        """
        width, height, strings = unpack_image(data, self.strings, self.multiple)
        rows, columns = (
            math.ceil(side / self.multiple) * self.multiple // self.latent_stride
            for side in (height, width)
        )
        strings = guarded(strings, self.symbols_per_position * rows * columns)
        return self.decompress_latent(strings, rows, columns), height, width

    @staticmethod
    def latent_digest(latent: Any) -> str:
        """Return the SHA-256 of a decoded latent, a tensor or arrays by name."""
        if isinstance(latent, Tensor):
            latent = (latent + 0.0).cpu().numpy()  # rounding leaves -0, decoding does not
        return decoded_digest(latent)

    def padded(self, image: RgbImage) -> Tensor:
        """Return a uint8 image [H, W, 3] as a batch of one, padded to multiples of ``multiple``."""
        return pad_to_multiple(to_tensor(image).to(self.device), self.multiple)


class LearnedFeatureCodec(LearnedCodec):
    """A codec whose bitstream decodes to features that tasks read without pixels.

    Decoded latents are dictionaries of arrays [C, h, w], which are stored; use small types. A
    codec that can also make an image of them has ``image(latents)``, which returns uint8 RGB.
    """

    @abstractmethod
    def features(self, latents: Latents) -> Tensor:
        """Return what tasks read, float32 [1, C, h, w], of the padded image."""

    def finish(self, latent: Latents, height: int, width: int) -> Latents:
        """Return the arrays of a decoded latent and ``size``, int32 [height, width]."""
        return {**latent, "size": np.array([height, width], dtype=np.int32)}

    def latent_tensor(self, latents: Latents, name: str) -> Tensor:
        """Return one array of decoded latents as a batch of one [1, C, h, w]."""
        return torch.from_numpy(latents[name].copy())[None].to(self.device)


def rounded(values: Tensor) -> Tensor:
    """Round; the gradient passes unchanged."""
    return values + (torch.round(values) - values).detach()


def bits_of(likelihoods: Tensor) -> Tensor:
    """Return the information of likelihoods in bits, summed.

    >>> bits_of(torch.tensor([0.5, 0.25])).item()
    3.0
    """
    return -torch.log2(likelihoods).sum()


def bits_by_position(likelihoods: Tensor, side: Tensor | None = None) -> Tensor:
    """Return the information of an image's latent in bits for each position, [h, w].

    Args:
        likelihoods: of the latent [1, C, h, w].
        side: likelihoods of side information on a coarser grid, whose bits are spread evenly over
            the positions that they cover.

    >>> bits_by_position(torch.full((1, 1, 1, 2), 0.5), torch.tensor(0.25).reshape(1, 1, 1, 1))
    tensor([[2., 2.]])
    """
    bits = -torch.log2(likelihoods).sum(1, keepdim=True)
    if side is not None:
        spread = functional.interpolate(bits_by_position(side)[None, None], bits.shape[-2:])
        bits = bits + spread * (side[0, 0].numel() / bits.numel())
    return bits[0, 0]


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad [B, 3, H, W] at the right and bottom to multiples of a side, repeating the edge."""
    height, width = images.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not (bottom or right):
        return images
    return functional.pad(images, (0, right, 0, bottom), mode="replicate")


def guarded(strings: list[bytes], symbols: int) -> list[bytes]:
    """Return range-coded strings, each followed by zeros.

    CompressAI's range decoder does not know where its string ends: for a damaged string it would
    read memory behind it. It takes at most four bytes per symbol, and as many per escape; zeros
    end escapes. An undamaged string decodes to the same symbols.

    Args:
        strings: as unpacked from the container.
        symbols: upper bound on the symbols decoded from one string.
    """
    zeros = bytes(8 * symbols + 64)
    return [string + zeros for string in strings]
