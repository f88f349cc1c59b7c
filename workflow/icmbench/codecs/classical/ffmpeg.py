"""VVC intra by libvvenc and FFmpeg's own decoder, in the program that imageio-ffmpeg installs.

Syntax and samples of Rec. ITU-T H.266; the bitstream is a bare Annex B one (parameter sets and one
IDR image) with a VUI of BT.709 and full range, which costs 7 bytes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import imageio_ffmpeg  # type: ignore[import-untyped]

from icmbench.codecs.classical.base import Implementation
from icmbench.codecs.classical.entries import VvencFfmpegParameters
from icmbench.codecs.classical.raw_video import RawVideoCodec, Words
from icmbench.codecs.classical.run import run_program, workspace
from icmbench.errors import UserError
from icmbench.utils.files import sha256_file
from icmbench.utils.programs import Program

# VVenC's default offset of -3 would code intra images below the nominal QP. In some versions more
# than one thread changes the bits.
_VVENC = "intraperiod=1:IntraQPOffset=0:threads=1:range=full:matrixcoefficients=1"
_QUIET = ("-hide_banner", "-nostdin", "-loglevel", "error")
_NOISE = ("Configuration warning", "Task finished", "Terminating thread", "Nothing was written")


class VvencFfmpeg(RawVideoCodec):
    """VVC intra 4:2:0 at one quantisation parameter, 10 bits, on one thread.

    FFmpeg's decoder notices a missing end. Changed bits inside the coded samples may go unnoticed,
    since no checksum is written.
    """

    title = "vvenc"
    stream = "vvc"
    encoder = decoder = "ffmpeg"
    smallest = 16
    advice = "check that this FFmpeg has libvvenc"
    parameters: VvencFfmpegParameters

    def __init__(
        self,
        parameters: VvencFfmpegParameters,
        rate: float | None = None,
        programs: Mapping[str, Program] | None = None,
    ) -> None:
        super().__init__(parameters, rate, {"ffmpeg": _program()})

    def settings(self) -> Mapping[str, Any]:
        """Return every option that changes bits."""
        return {
            "chroma": self.chroma,
            "bit_depth": self.bit_depth,
            "preset": self.parameters.preset,
            "qpa": 0,
            "vvenc-params": _VVENC,
        }

    def describe(self) -> Implementation:
        """Return VVenC and FFmpeg with their versions and checksum, and every option."""
        settings = {"qp": self.rate, **self.settings()}
        version = _version(self.programs["ffmpeg"].command[0])
        return Implementation(
            self.title, version, settings, self.program_digests(), intra_qp=self.rate
        )

    def encoder_words(self, width: int, height: int, folder: Path) -> Words:
        """Return the arguments that code ``in.yuv`` to ``out.bin``."""
        coding = _coding_words(width, height, self.parameters.preset, self.rate)
        return [*_QUIET, *coding]

    def decoder_words(self, folder: Path) -> Words:
        """Return the arguments that decode ``in.bin`` to ``out.yuv``, in the coded pixel format."""
        strict = ("-threads", "1", "-xerror", "-err_detect", "explode")
        return [*_QUIET, *strict, "-f", "vvc", "-i", "in.bin", "-f", "rawvideo", "out.yuv"]

    def summary(self, output: str) -> str:
        """Return the first line of FFmpeg's messages that gives a reason."""
        lines = [" ".join(line.split()) for line in output.splitlines()]
        reasons = [line for line in lines if line and not any(noise in line for noise in _NOISE)]
        return re.sub(r" @ 0x[0-9a-f]+", "", reasons[0])[:300] if reasons else ""


def _coding_words(width: int, height: int, preset: str, qp: float) -> Words:
    words = ["-f", "rawvideo", "-pix_fmt", "yuv420p10le", "-s", f"{width}x{height}", "-r", "1"]
    words += ["-i", "in.yuv", "-frames:v", "1", "-c:v", "libvvenc", "-threads", "1"]
    words += ["-preset", preset, "-qp", str(qp), "-qpa", "0", "-vvenc-params", _VVENC]
    # Not to standard output: VVenC prints warnings there, which would become part of the stream.
    return [*words, "-f", "vvc", "out.bin"]


def _program() -> Program:
    try:
        found = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        raise UserError(
            "imageio-ffmpeg has no FFmpeg program on this platform; set IMAGEIO_FFMPEG_EXE to one "
            "that has libvvenc, or choose another classical codec"
        ) from None
    # Absolute, since it runs in other directories.
    path = str(Path(shutil.which(found) or found).absolute())
    return Program(name="ffmpeg", command=(path,), digest=_digest(path))


@lru_cache(maxsize=4)
def _digest(path: str) -> str:
    return sha256_file(path)


@lru_cache(maxsize=4)
def _version(path: str) -> str:
    """Return the versions of VVenC, which it logs when coding, and of FFmpeg."""
    side = VvencFfmpeg.smallest
    command = [path, "-nostdin", "-loglevel", "info", *_coding_words(side, side, "faster", 32)]
    with workspace() as folder:
        (folder / "in.yuv").write_bytes(bytes(side**2 * 3))
        output = run_program(
            command, what="vvenc", time_limit_s=60, cwd=folder, advice=VvencFfmpeg.advice
        )
    vvenc = re.search(r"libvvenc version: (\S+)", output)
    ffmpeg = re.search(r"ffmpeg version (\S+)", output)
    names = [found[1] if found else "unknown" for found in (vvenc, ffmpeg)]
    return "{}, FFmpeg {}".format(*names)
