"""External programs that code one intra image of raw planes: VTM and VVenC (VVC), HM (HEVC)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import av

from icmbench.codecs.base import Encoded, RgbImage
from icmbench.codecs.classical.base import (
    ClassicalCodec,
    Implementation,
    add_padding_header,
    block_pixels,
    crop,
    damaged,
    pad,
    split_padding_header,
)
from icmbench.codecs.classical.colour import (
    Rounding,
    from_planes,
    join_planes,
    split_planes,
    to_planes,
)
from icmbench.codecs.classical.entries import (
    Chroma,
    ReferenceSoftwareParameters,
    VvencParameters,
)
from icmbench.codecs.classical.run import (
    CHECK_PROGRAM,
    last_message,
    program_version,
    read_output,
    run_program,
    workspace,
)
from icmbench.utils.programs import Program

Words = list[str]

_DAMAGED = "if this program works here, the bitstream is damaged: code the image again"


class RawVideoCodec(ClassicalCodec):
    """A program that codes one image of raw planes, BT.709 full range, at one QP.

    Attributes:
        chroma, bit_depth, rounding: format of the planes, and how they are made.
        stream: format of the bitstream, by FFmpeg's name.
        encoder: key of the encoder among the programs.
        decoder: key of the decoder.
        version_arguments: arguments with which the encoder prints its version, if it needs any.
        options: fixed options that change bits; they come last.
        smallest: shortest side that the encoder codes.
        advice: what the user can do if the encoder fails.
    """

    rate_range = (0, 63)
    external = True
    stream: ClassVar[Literal["hevc", "vvc"]]
    encoder: ClassVar[str]
    decoder: ClassVar[str]
    version_arguments: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[tuple[str, ...]] = ()
    smallest: ClassVar[int] = 1
    advice: ClassVar[str] = CHECK_PROGRAM

    chroma: Chroma = "4:2:0"
    bit_depth: int = 10
    rounding: Rounding = "nearest"

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Return the settings that change bits, besides QP and options."""

    @abstractmethod
    def encoder_words(self, width: int, height: int, folder: Path) -> Words:
        """Return the encoder's arguments: from ``in.yuv`` in a folder to ``out.bin``.

        An encoder that can write its reconstruction writes it to ``recon.yuv``.
        """

    @abstractmethod
    def decoder_words(self, folder: Path) -> Words:
        """Return the decoder's arguments: from ``in.bin`` in a folder to ``out.yuv``."""

    def summary(self, output: str) -> str:
        """Return the part of a failing program's messages that the error quotes."""
        return last_message(output)

    def check_decoded(self, output: str) -> None:
        """Raise a UserError if the decoder's standard output reports damage."""
        return

    def describe(self) -> Implementation:
        """Return the encoder's version, every setting and the programs' digests."""
        version = program_version(self.programs[self.encoder].command, self.version_arguments)
        return Implementation(
            self.title,
            version,
            {"qp": self.rate, **self.settings(), "options": " ".join(self.options)},
            self.program_digests(),
            intra_qp=self.rate,
        )

    def encode(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3]; the rate is the size of the bitstream."""
        coded = pad(image, 2 if self.chroma == "4:2:0" else 1, self.smallest)
        height, width = coded.shape[:2]
        what = f"{self.title} encoder, qp {self.rate}"
        reconstruction = None
        with workspace() as folder:
            raw = join_planes(to_planes(coded, self.chroma, self.bit_depth, self.rounding))
            (folder / "in.yuv").write_bytes(raw)
            words = [*self.encoder_words(width, height, folder), *self.options]
            run_program(
                [*self.programs[self.encoder].command, *words],
                what=what,
                time_limit_s=self.parameters.time_limit_s,
                cwd=folder,
                advice=self.advice,
                summary=self.summary,
            )
            data = read_output(folder / "out.bin", what)
            if str(folder / "recon.yuv") in words:
                planes = read_output(folder / "recon.yuv", what, len(raw))
                reconstruction = self._from_raw(planes, height, width)
        if reconstruction is not None:
            rows, columns = image.shape[:2]
            reconstruction = crop(reconstruction, height - rows, width - columns)
        data = add_padding_header(data, image.shape, coded.shape)
        return Encoded(data, reconstruction, block_pixels(coded.shape))

    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a bitstream."""
        stream, bottom, right = split_padding_header(data)
        height, width = stream_size(stream, self.stream)
        what = f"{self.title} decoder"
        with workspace() as folder:
            (folder / "in.bin").write_bytes(stream)
            output = run_program(
                [*self.programs[self.decoder].command, *self.decoder_words(folder)],
                what=what,
                time_limit_s=self.parameters.time_limit_s,
                cwd=folder,
                advice=_DAMAGED,
                summary=self.summary,
            )
            self.check_decoded(output)
            raw = read_output(folder / "out.yuv", what, self._raw_size(height, width), _DAMAGED)
        return crop(self._from_raw(raw, height, width), bottom, right)

    def _raw_size(self, height: int, width: int) -> int:
        luma = height * width
        chroma = luma if self.chroma == "4:4:4" else (height // 2) * (width // 2)
        return (luma + 2 * chroma) * (1 if self.bit_depth <= 8 else 2)

    def _from_raw(self, raw: bytes, height: int, width: int) -> RgbImage:
        planes = split_planes(raw, height, width, self.chroma, self.bit_depth)
        return from_planes(planes, self.bit_depth, self.rounding)


class ReferenceSoftware(RawVideoCodec):
    """VTM and HM, which share most of their command lines.

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
        super().__init__(parameters, rate, programs)
        self.chroma, self.bit_depth = parameters.chroma, parameters.bit_depth
        self.rounding = parameters.rounding

    def settings(self) -> Mapping[str, Any]:
        """Return the format of the planes and how they are made."""
        return {"chroma": self.chroma, "bit_depth": self.bit_depth, "rounding": self.rounding}

    def encoder_words(self, width: int, height: int, folder: Path) -> Words:
        """Return the encoder's arguments; those after the configuration file override it."""
        return [
            *("-c", self.programs[self.configuration].command[0]),
            *("-i", str(folder / "in.yuv"), "-b", str(folder / "out.bin")),
            *("-o", str(folder / "recon.yuv"), "-q", str(self.rate)),
            *("-wdt", str(width), "-hgt", str(height), "-fr", "1", "-f", "1"),
            f"--InputChromaFormat={self.chroma.replace(':', '')}",
            f"--InputBitDepth={self.bit_depth}",
            f"--OutputBitDepth={self.bit_depth}",
            f"--OutputBitDepthC={self.bit_depth}",
        ]

    def decoder_words(self, folder: Path) -> Words:
        """Return the decoder's arguments; it writes samples of the encoder's bit depth."""
        return [
            *("-b", str(folder / "in.bin"), "-o", str(folder / "out.yuv")),
            *("-d", str(self.bit_depth)),
        ]


class Vtm(ReferenceSoftware):
    """VVC by VTM's EncoderApp and DecoderApp; its bitstream has no checksum."""

    title = "VTM"
    stream = "vvc"
    encoder, decoder, configuration = "vtm_encoder", "vtm_decoder", "vtm_config"
    options = ("--ConformanceWindowMode=1",)


class Hm(ReferenceSoftware):
    """HEVC by HM with range extensions; its bitstream has an MD5 of the decoded image."""

    title = "HM"
    rate_range = (0, 51)
    stream = "hevc"
    encoder, decoder, configuration = "hm_encoder", "hm_decoder", "hm_config"
    options = ("--SEIDecodedPictureHash", "--Level=5.1", "--ConformanceMode=1")

    def summary(self, output: str) -> str:
        """Return the part of a failing program's messages that the error quotes."""
        return last_message(output)

    def check_decoded(self, output: str) -> None:
        """Raise a UserError unless the decoder found a matching MD5."""
        if "(OK)" not in output:
            raise damaged("HM", "the decoder found no matching MD5")


class Vvenc(RawVideoCodec):
    """VVC 4:2:0, 10 bit, by Fraunhofer's vvencapp and vvdecapp, without perceptual QP adaptation.

    Intra images are coded with exactly the given QP. The encoder writes no reconstruction.
    """

    title = "VVenC"
    stream = "vvc"
    encoder, decoder = "vvencapp", "vvdecapp"
    version_arguments = ("--version",)
    # Without threads the bits differ; they do not depend on the number of threads. VVenC would
    # otherwise subtract 3 from the QP.
    options = (
        *("--qpa", "0", "-t", "1", "-ip", "1", "-c", "yuv420_10"),
        *("--additional", "IntraQPOffset=0"),
    )
    parameters: VvencParameters

    def settings(self) -> Mapping[str, Any]:
        """Return the preset."""
        return {"preset": self.parameters.preset}

    def encoder_words(self, width: int, height: int, folder: Path) -> Words:
        """Return vvencapp's arguments."""
        return [
            *("--preset", self.parameters.preset, "-q", str(self.rate), "-s", f"{width}x{height}"),
            *("-r", "1", "--frames", "1"),
            *("-i", str(folder / "in.yuv"), "-o", str(folder / "out.bin")),
        ]

    def decoder_words(self, folder: Path) -> Words:
        """Return vvdecapp's arguments."""
        return ["-t", "1", "-b", str(folder / "in.bin"), "-o", str(folder / "out.yuv")]


def stream_size(data: bytes, stream: Literal["hevc", "vvc"]) -> tuple[int, int]:
    """Return height and width of the images of a bitstream, from its headers.

    FFmpeg's parser reads them without decoding; only some of the programs can do this.

    Raises:
        UserError: where the bitstream contains no image.
    """
    context = av.CodecContext.create(stream, "r")
    try:
        context.parse(data)
        context.parse(b"")
    except av.FFmpegError:
        context = av.CodecContext.create(stream, "r")
    if not (context.height and context.width):
        raise damaged(stream.upper(), f"{len(data)} bytes without the headers of an image")
    return context.height, context.width
