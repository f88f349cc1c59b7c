"""VVC intra, 4:2:0, by Fraunhofer's programs vvencapp and vvdecapp."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icmbench.codecs.classical import VvencParameters
from icmbench.codecs.classical.raw_video import RawVideoCodec, Words
from icmbench.utils.programs import Program


class Vvenc(RawVideoCodec):
    """VVenC at one QP, 10 bit, without perceptual QP adaptation; no reconstruction to compare with.

    Args:
        parameters: preset and time limit.
        rate: vvencapp's ``-q``, 0 to 63; intra images are coded with exactly this.
        programs: ``vvencapp`` and ``vvdecapp``.
    """

    stream = "vvc"
    encoder, decoder = "vvencapp", "vvdecapp"
    title = "VVenC"
    version_arguments = ("--version",)
    # Bits differ without threads, but not with one or more. VVenC would take 3 off the QP.
    options = (
        *("--qpa", "0", "-t", "1", "-ip", "1", "-c", "yuv420_10"),
        *("--additional", "IntraQPOffset=0"),
    )

    def __init__(
        self,
        parameters: VvencParameters,
        rate: float | None = None,
        programs: Mapping[str, Program] | None = None,
    ) -> None:
        super().__init__(parameters, rate, programs, chroma="4:2:0", bit_depth=10)
        self.preset = parameters.preset

    def settings(self) -> Mapping[str, Any]:
        """Return the preset."""
        return {"preset": self.preset}

    def encoder_words(self, width: int, height: int, folder: Path) -> Words:
        """Return vvencapp's arguments."""
        return [
            *("--preset", self.preset, "-q", str(self.qp), "-s", f"{width}x{height}"),
            *("-r", "1", "--frames", "1"),
            *("-i", str(folder / "in.yuv"), "-o", str(folder / "out.bin")),
        ]

    def decoder_words(self, folder: Path) -> Words:
        """Return vvdecapp's arguments."""
        return ["-t", "1", "-b", str(folder / "in.bin"), "-o", str(folder / "out.yuv")]
