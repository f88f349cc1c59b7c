"""The reference encoders and decoders of VVC (VTM) and of HEVC (HM), one intra image each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from icmbench.codecs.classical import ReferenceSoftwareParameters
from icmbench.codecs.classical.raw_video import RawVideoCodec, Words
from icmbench.errors import UserError
from icmbench.utils.programs import Program


class ReferenceSoftware(RawVideoCodec):
    """VTM and HM, which share most of their command lines.

    Args:
        parameters: format of the planes, rounding, time limit.
        rate: the encoder's ``-q``.
        programs: encoder, decoder and configuration file.

    Attributes:
        configuration: key of the configuration file among the programs.
    """

    configuration: ClassVar[str]

    def __init__(
        self,
        parameters: ReferenceSoftwareParameters,
        rate: float | None = None,
        programs: Mapping[str, Program] | None = None,
    ) -> None:
        super().__init__(
            parameters,
            rate,
            programs,
            chroma=parameters.chroma,
            bit_depth=parameters.bit_depth,
            rounding=parameters.rounding,
        )

    def settings(self) -> Mapping[str, Any]:
        """Return the format of the planes and how they are made."""
        return {"chroma": self.chroma, "bit_depth": self.bit_depth, "rounding": self.rounding}

    def encoder_words(self, width: int, height: int, folder: Path) -> Words:
        """Return the encoder's arguments; what follows the configuration file overrides it."""
        return [
            *("-c", self.programs[self.configuration].command[0]),
            *("-i", str(folder / "in.yuv"), "-b", str(folder / "out.bin")),
            *("-o", str(folder / "recon.yuv"), "-q", str(self.qp)),
            *("-wdt", str(width), "-hgt", str(height), "-fr", "1", "-f", "1"),
            f"--InputChromaFormat={self.chroma.replace(':', '')}",
            f"--InputBitDepth={self.bit_depth}",
            f"--OutputBitDepth={self.bit_depth}",
            f"--OutputBitDepthC={self.bit_depth}",
        ]

    def decoder_words(self, folder: Path) -> Words:
        """Return the decoder's arguments; it writes as many bits as the encoder was given."""
        return [
            *("-b", str(folder / "in.bin"), "-o", str(folder / "out.yuv")),
            *("-d", str(self.bit_depth)),
        ]


class Vtm(ReferenceSoftware):
    """VVC by VTM's EncoderApp and DecoderApp; its bitstream has no checksum.

    QPs go from 0 to 63; its programs are ``vtm_encoder``, ``vtm_decoder`` and ``vtm_config``.
    """

    stream = "vvc"
    encoder, decoder, configuration = "vtm_encoder", "vtm_decoder", "vtm_config"
    title = "VTM"
    options = ("--ConformanceWindowMode=1",)


class Hm(ReferenceSoftware):
    """HEVC by HM with range extensions; its bitstream carries an MD5 of the decoded image.

    QPs go from 0 to 51; its programs are ``hm_encoder``, ``hm_decoder`` and ``hm_config``.
    """

    stream = "hevc"
    encoder, decoder, configuration = "hm_encoder", "hm_decoder", "hm_config"
    title = "HM"
    options = ("--SEIDecodedPictureHash", "--Level=5.1", "--ConformanceMode=1")
    highest_qp = 51

    def check_decoded(self, said: str) -> None:
        """Raise a UserError unless the decoder found the MD5 to be right."""
        if "(OK)" not in said:
            raise UserError(
                "bitstream is damaged: HM's decoder does not find the image's MD5 to be right; "
                "code the image again"
            )
