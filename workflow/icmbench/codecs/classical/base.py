"""What all classical codecs share: who coded, with which settings, and padding.

Padding: most images need none, and the bitstream is the codec's own file. Otherwise a header
precedes it and counts as bits: one byte, 0x81 to 0x83, for one additional column (bit 0) and one
additional row (bit 1); or 0x84 and two bytes, rows and columns, for an image smaller than the codec
can code. Annex B streams begin with a zero byte and BPG with a letter, so neither is mistaken for a
header.
"""

from __future__ import annotations

import math
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from icmbench.codecs.base import Encoded, RgbImage
from icmbench.codecs.classical.entries import CLASSICAL_VERSION
from icmbench.errors import UserError
from icmbench.utils.models import Strict
from icmbench.utils.programs import Program

_BLOCK = 8
_MARK = 0x80
_COUNTED = 0x84


@dataclass(frozen=True)
class Implementation:
    """The code that made a bitstream, and everything that decides its bits.

    Attributes:
        name: the library or program, e.g. ``bpgenc``.
        version: as the library or program reports it.
        settings: every setting that changes bits or decoded samples, the rate included.
        digests: SHA-256 of the programs by name; empty for a library, which its version identifies.
        intra_qp: the quantisation parameter that intra images are really coded with, which x265
            and VVenC place below the nominal one; None for codecs without one.
    """

    name: str
    version: str
    settings: Mapping[str, Any]
    digests: Mapping[str, str] = field(default_factory=dict)
    intra_qp: float | None = None

    def text(self) -> str:
        """Return one line for records and the report."""
        parts = [f"{self.name} {self.version}"]
        parts += [f"{name} {digest[:12]}" for name, digest in sorted(self.digests.items())]
        parts += [f"{name} {value}" for name, value in self.settings.items()]
        if self.intra_qp is not None:
            parts.append(f"intra QP {self.intra_qp:g}")
        return ", ".join(parts)

    def identity(self) -> dict[str, Any]:
        """Return the key of the cache, besides the image."""
        return {
            "code": CLASSICAL_VERSION,
            "name": self.name,
            "version": self.version,
            "settings": dict(self.settings),
            "digests": dict(self.digests),
        }


class ClassicalCodec(ABC):
    """A classical codec at one rate setting.

    Args:
        parameters: the codec's own typed settings.
        rate: value of its rate parameter.
        programs: external programs by name, those that its registry entry lists.

    Attributes:
        title: name in error messages.
        rate_name: name of the rate parameter.
        rate_range: smallest and largest rate, whole numbers.
        external: whether decoding starts another program. The decoder of a library instead runs in
            another process.

    Raises:
        UserError: for a rate that the codec does not have.
    """

    title: str
    rate_name: str = "qp"
    rate_range: ClassVar[tuple[int, int]]
    external: ClassVar[bool] = False

    def __init__(
        self,
        parameters: Strict,
        rate: float | None = None,
        programs: Mapping[str, Program] | None = None,
    ) -> None:
        self.parameters: Any = parameters
        self.rate = self.check_rate(rate)
        self.programs = dict(programs or {})

    def check_rate(self, rate: float | None) -> float:
        """Return the rate as the codec takes it, by default a whole number in ``rate_range``."""
        low, high = self.rate_range
        if rate is None or not math.isfinite(rate) or rate != int(rate) or not low <= rate <= high:
            raise UserError(
                f"{self.title} {self.rate_name} {rate!r}: must be a whole number from {low} to "
                f"{high}"
            )
        return int(rate)

    @abstractmethod
    def describe(self) -> Implementation:
        """Return the implementation and every setting that changes its bits."""

    def implementation(self) -> str:
        """Return the implementation as one line."""
        return self.describe().text()

    def program_digests(self) -> dict[str, str]:
        """Return the SHA-256 of the external programs that are files here, by name."""
        return {name: program.digest for name, program in self.programs.items() if program.digest}

    @abstractmethod
    def encode(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3] of any size.

        The rate is the length of the bitstream that the decoder needs, headers included.

        Raises:
            UserError: where the codec fails, with its message.
        """

    @abstractmethod
    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a bitstream, cropped to the original size.

        Raises:
            UserError: where the bitstream is damaged; a wrong image is never returned.
        """


class InProcessCodec(ClassicalCodec):
    """A classical codec in a library of this process."""

    @abstractmethod
    def compress(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3] of any size, without decoding it; this is timed."""

    def encode(self, image: RgbImage) -> Encoded:
        """Code an image; the reconstruction is what this process decodes."""
        encoded = self.compress(image)
        return replace(encoded, reconstruction=self.decode(encoded.data))


def damaged(what: str, reason: str) -> UserError:
    """Return the error for a bitstream that cannot be decoded; ``reason`` becomes one line."""
    line = " ".join(reason.split())[:200]
    return UserError(f"bitstream is damaged: {what}: {line}; code the image again")


def stored_png(image: RgbImage) -> bytes:
    """Return a PNG file without compression: several times cheaper to write than Pillow's."""
    height, width = image.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter, none
    rows[:, 1:] = image.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.data, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


# --- padding --------------------------------------------------------------------------------------


def pad(image: RgbImage, multiple: int = 2, smallest: int = 1) -> RgbImage:
    """Repeat the last row and column of an image [H, W, 3] to a size that can be coded.

    Args:
        image: uint8 RGB.
        multiple: each side becomes a multiple of it.
        smallest: shortest side, itself a multiple.
    """
    height, width = image.shape[:2]
    bottom, right = (max(-side % multiple, smallest - side) for side in (height, width))
    if not (bottom or right):
        return image
    return np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge")


def block_pixels(shape: tuple[int, ...]) -> int:
    """Return how many pixels HEVC and VVC code of an image (H, W, ...): whole blocks of 8 x 8.

    >>> block_pixels((9, 16, 3))
    256
    """
    return math.prod(-(-side // _BLOCK) * _BLOCK for side in shape[:2])


def add_padding_header(
    data: bytes, image_shape: tuple[int, ...], coded_shape: tuple[int, ...]
) -> bytes:
    """Return a bitstream with a header, if one is needed.

    Args:
        data: the codec's own bitstream.
        image_shape: (H, W, ...) of the original.
        coded_shape: (H, W, ...) of the padded image.
    """
    bottom, right = coded_shape[0] - image_shape[0], coded_shape[1] - image_shape[1]
    if bottom <= 1 and right <= 1:
        return bytes([_MARK | bottom << 1 | right]) + data if bottom or right else data
    return bytes([_COUNTED, bottom, right]) + data


def split_padding_header(data: bytes) -> tuple[bytes, int, int]:
    """Return a bitstream without its header, and the numbers of padded rows and columns."""
    if data and _MARK < data[0] < _COUNTED:
        return data[1:], data[0] >> 1 & 1, data[0] & 1
    if len(data) > 2 and data[0] == _COUNTED:
        return data[3:], data[1], data[2]
    return data, 0, 0


def crop(image: RgbImage, bottom: int, right: int) -> RgbImage:
    """Remove rows at the bottom and columns at the right of an image [H, W, 3].

    Raises:
        UserError: where nothing would be left.
    """
    height, width = image.shape[0] - bottom, image.shape[1] - right
    if height < 1 or width < 1:
        raise damaged(
            "padding",
            f"{bottom} rows and {right} columns of an image of {image.shape[1]} x {image.shape[0]}",
        )
    return np.ascontiguousarray(image[:height, :width])
