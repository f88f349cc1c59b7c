"""What the video coders share that take raw planes: VTM, HM and VVenC."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import av

from icmbench.codecs.base import Encoded, RgbImage
from icmbench.codecs.classical import Chroma, ProgramParameters
from icmbench.codecs.classical.base import ClassicalCodec, Implementation, whole_rate
from icmbench.codecs.classical.colour import Rounding
from icmbench.codecs.classical.cropping import block_pixels, crop, pack, pad, unpack
from icmbench.codecs.classical.planar import from_planes, join_planes, split_planes, to_planes
from icmbench.codecs.classical.process import program_version, read_output, run_program, workspace
from icmbench.errors import UserError
from icmbench.utils.programs import Program

Words = list[str]

_DAMAGED = "the bitstream may be damaged: code the image again"


class RawVideoCodec(ClassicalCodec):
    """A program that codes one image of raw planes, BT.709 full range, at one QP.

    Attributes:
        stream: format of the bitstream, by FFmpeg's name.
        encoder: key of the encoder among the programs.
        decoder: key of the decoder.
        title: its name in records.
        version_arguments: what makes the encoder say its version, should that need any.
        options: fixed options that change bits; they come last.
        highest_qp: QPs go from 0 to this.
    """

    external = True
    stream: ClassVar[Literal["hevc", "vvc"]]
    encoder: ClassVar[str]
    decoder: ClassVar[str]
    title: ClassVar[str]
    version_arguments: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[tuple[str, ...]]
    highest_qp: ClassVar[int] = 63

    def __init__(
        self,
        parameters: ProgramParameters,
        rate: float | None,
        programs: Mapping[str, Program] | None,
        *,
        chroma: Chroma,
        bit_depth: int,
        rounding: Rounding = "nearest",
    ) -> None:
        super().__init__(parameters, rate, programs)
        self.time_limit_s = parameters.time_limit_s
        self.qp = whole_rate(self.title, "qp", rate, 0, self.highest_qp)
        self.chroma, self.bit_depth, self.rounding = chroma, bit_depth, rounding

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Return the settings that change bits, besides QP and options."""

    @abstractmethod
    def encoder_words(self, width: int, height: int, folder: Path) -> Words:
        """Return the encoder's arguments: from ``in.yuv`` in a folder to ``out.bin``.

        Where the encoder can, it writes its reconstruction to ``recon.yuv``.
        """

    @abstractmethod
    def decoder_words(self, folder: Path) -> Words:
        """Return the decoder's arguments: from ``in.bin`` in a folder to ``out.yuv``."""

    def check_decoded(self, said: str) -> None:
        """Raise a UserError where the decoder's standard output tells of damage."""
        return

    def describe(self) -> Implementation:
        """Return the encoder's version, every setting and the programs' digests."""
        version = program_version(self.programs[self.encoder].command, self.version_arguments)
        return Implementation(
            self.title,
            version,
            {"qp": self.qp, **self.settings(), "options": " ".join(self.options)},
            {name: program.digest for name, program in self.programs.items() if program.digest},
            intra_qp=self.qp,
        )

    def encode(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3]; the rate is the size of the bitstream."""
        coded = pad(image, 2 if self.chroma == "4:2:0" else 1)
        height, width = coded.shape[:2]
        what = f"{self.title} encoder, qp {self.qp}"
        reconstruction = None
        with workspace() as folder:
            raw = join_planes(to_planes(coded, self.chroma, self.bit_depth, self.rounding))
            (folder / "in.yuv").write_bytes(raw)
            words = [*self.encoder_words(width, height, folder), *self.options]
            run_program(
                [*self.programs[self.encoder].command, *words],
                what=what,
                time_limit_s=self.time_limit_s,
                cwd=folder,
            )
            data = read_output(folder / "out.bin", what)
            if str(folder / "recon.yuv") in words:
                planes = read_output(folder / "recon.yuv", what, len(raw))
                reconstruction = self._from_raw(planes, height, width)
        if reconstruction is not None:
            rows, columns = image.shape[:2]
            reconstruction = crop(reconstruction, height - rows, width - columns)
        return Encoded(
            pack(data, image.shape, coded.shape), reconstruction, block_pixels(coded.shape)
        )

    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a bitstream."""
        stream, bottom, right = unpack(data)
        height, width = stream_size(stream, self.stream)
        what = f"{self.title} decoder"
        with workspace() as folder:
            (folder / "in.bin").write_bytes(stream)
            said = run_program(
                [*self.programs[self.decoder].command, *self.decoder_words(folder)],
                what=what,
                time_limit_s=self.time_limit_s,
                cwd=folder,
                advice=_DAMAGED,
            )
            self.check_decoded(said)
            raw = read_output(folder / "out.yuv", what, self._raw_size(height, width), _DAMAGED)
        return crop(self._from_raw(raw, height, width), bottom, right)

    def _raw_size(self, height: int, width: int) -> int:
        luma = height * width
        chroma = luma if self.chroma == "4:4:4" else (height // 2) * (width // 2)
        return (luma + 2 * chroma) * (1 if self.bit_depth <= 8 else 2)

    def _from_raw(self, raw: bytes, height: int, width: int) -> RgbImage:
        planes = split_planes(raw, height, width, self.chroma, self.bit_depth)
        return from_planes(planes, self.bit_depth, self.rounding)


def stream_size(data: bytes, stream: Literal["hevc", "vvc"]) -> tuple[int, int]:
    """Return height and width of the images of a bitstream, as its headers say.

    FFmpeg's parser reads them without decoding; of the programs only some can tell.

    Raises:
        UserError: where there is no image in it.
    """
    context = av.CodecContext.create(stream, "r")
    try:
        context.parse(data)
        context.parse(b"")
    except av.FFmpegError:
        context = av.CodecContext.create(stream, "r")
    if not (context.height and context.width):
        raise UserError(
            f"bitstream is damaged: {len(data)} bytes without the headers of a {stream.upper()} "
            "image; code the image again"
        )
    return context.height, context.width
