"""What every classical codec offers beyond an image codec: who coded, with which settings."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from icmbench.codecs.base import Encoded, RgbImage
from icmbench.codecs.classical import CLASSICAL_VERSION
from icmbench.errors import UserError
from icmbench.utils.models import Strict
from icmbench.utils.programs import Program


@dataclass(frozen=True)
class Implementation:
    """The code that made a bitstream, and everything that decides its bits.

    Attributes:
        name: the library or program, e.g. ``bpgenc``.
        version: as it says of itself.
        settings: every setting that changes bits or decoded samples, the rate included.
        digests: SHA-256 of the programs by name; empty for a library, which its version names.
        intra_qp: the quantisation parameter that intra images are really coded with, which x265
            and vvenc place below the nominal one; None for codecs without one.
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
        """Return what a cache of bitstreams is keyed by, besides the image."""
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
        programs: external programs by name, of those that its registry entry lists.

    Attributes:
        external: whether decoding starts another program; a library's decoder is instead given a
            process of its own.
    """

    external: ClassVar[bool] = False

    def __init__(
        self,
        parameters: Strict,
        rate: float | None = None,
        programs: Mapping[str, Program] | None = None,
    ) -> None:
        self.programs = dict(programs or {})

    @abstractmethod
    def describe(self) -> Implementation:
        """Return the implementation and every setting that changes its bits."""

    def implementation(self) -> str:
        """Return the implementation as one line."""
        return self.describe().text()

    @abstractmethod
    def encode(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3] of any size.

        The rate is the length of the bitstream that the decoder needs, headers included.

        Raises:
            UserError: where the codec fails, with what it said.
        """

    @abstractmethod
    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a bitstream, cropped to the original size.

        Raises:
            UserError: where the bitstream is damaged; never an image of something else.
        """


class InProcessCodec(ClassicalCodec):
    """A classical codec that a library codes in this process."""

    @abstractmethod
    def compress(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3] of any size, and no more: this is what is timed."""

    def encode(self, image: RgbImage) -> Encoded:
        """Code an image; the reconstruction is what this process decodes."""
        encoded = self.compress(image)
        return replace(encoded, reconstruction=self.decode(encoded.data))


def whole_rate(codec: str, parameter: str, rate: float | None, low: int, high: int) -> int:
    """Return ``rate`` as an integer.

    Raises:
        UserError: where it is no whole number from ``low`` to ``high``.
    """
    if rate is None or not math.isfinite(rate) or rate != int(rate) or not low <= rate <= high:
        raise UserError(
            f"{codec} {parameter} {rate!r}: allowed are whole numbers from {low} to {high}"
        )
    return int(rate)
