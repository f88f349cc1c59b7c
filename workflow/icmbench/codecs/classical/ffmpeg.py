"""VVC intra by libvvenc and FFmpeg's own decoder, in the program that imageio-ffmpeg installs.

Syntax and samples of Rec. ITU-T H.266; the bitstream is a bare Annex B one (parameter sets and one
IDR image) whose VUI says BT.709 and full range, which costs 7 bytes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import imageio_ffmpeg  # type: ignore[import-untyped]

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
    Plane,
    from_planes,
    join_planes,
    split_planes,
    to_planes,
)
from icmbench.codecs.classical.entries import VvencFfmpegParameters
from icmbench.codecs.classical.run import read_output, run_program, workspace
from icmbench.errors import UserError
from icmbench.utils.files import sha256_file

_SMALLEST = 16  # shortest side for VVenC
# VVenC's default offset of -3 would code intra images below the nominal QP. In some versions more
# than one thread changes the bits.
_VVENC = "intraperiod=1:IntraQPOffset=0:threads=1:range=full:matrixcoefficients=1"
_QUIET = ("-hide_banner", "-nostdin", "-loglevel", "error")
_NOISE = ("Configuration warning", "Task finished", "Terminating thread", "Nothing was written")
_CHECK_VVENC = "check that this FFmpeg has libvvenc"
_DAMAGED = "if this program works here, the bitstream is damaged: code the image again"


class VvencFfmpeg(ClassicalCodec):
    """VVC intra 4:2:0 at one quantisation parameter, 10 bits, on one thread.

    FFmpeg's decoder notices a missing end. Changed bits inside the coded samples may go unnoticed,
    since no checksum is written. The program comes with imageio-ffmpeg.
    """

    title = "vvenc"
    rate_range = (0, 63)
    external = True
    parameters: VvencFfmpegParameters

    def describe(self) -> Implementation:
        """Return VVenC and FFmpeg with their versions and digest, and every option."""
        program = _program()
        return Implementation(
            "vvenc",
            _version(program),
            {
                "qp": self.rate,
                "chroma": "4:2:0",
                "bit_depth": 10,
                "preset": self.parameters.preset,
                "qpa": 0,
                "vvenc-params": _VVENC,
            },
            digests={"ffmpeg": _digest(program)},
            intra_qp=self.rate,
        )

    def encode(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3]; the rate is the size of the bare bitstream."""
        coded = pad(image, 2, _SMALLEST)
        what = f"vvenc qp {self.rate}"
        with workspace() as folder:
            (folder / "in.yuv").write_bytes(join_planes(to_planes(coded, "4:2:0", 10)))
            run_program(
                _encoding(_program(), coded.shape, self.parameters.preset, self.rate),
                what=what,
                time_limit_s=self.parameters.time_limit_s,
                cwd=folder,
                advice=_CHECK_VVENC,
                summary=_first_message,
            )
            stream = read_output(folder / "out.266", what)
        data = add_padding_header(stream, image.shape, coded.shape)
        return Encoded(data, None, block_pixels(coded.shape))

    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a bitstream."""
        stream, bottom, right = split_padding_header(data)
        command = [_program(), *_QUIET, "-threads", "1", "-xerror", "-err_detect", "explode"]
        # YUV4MPEG has the size in its header; rawvideo does not.
        command += ["-f", "vvc", "-i", "in.266", "-f", "yuv4mpegpipe", "-strict", "-1", "out.y4m"]
        what = "VVC decoder"
        with workspace() as folder:
            (folder / "in.266").write_bytes(stream)
            run_program(
                command,
                what=what,
                time_limit_s=self.parameters.time_limit_s,
                cwd=folder,
                advice=_DAMAGED,
                summary=_first_message,
            )
            planes = _y4m_planes(read_output(folder / "out.y4m", what, advice=_DAMAGED))
        return crop(from_planes(planes, 10), bottom, right)


def _encoding(program: str, shape: Sequence[int], preset: str, qp: float) -> list[str]:
    """Return the command line that codes planes [H, W] and [H / 2, W / 2], in.yuv to out.266."""
    command = [program, *_QUIET, "-f", "rawvideo", "-pix_fmt", "yuv420p10le"]
    command += ["-s", f"{shape[1]}x{shape[0]}", "-r", "1", "-i", "in.yuv", "-frames:v", "1"]
    command += ["-c:v", "libvvenc", "-threads", "1", "-preset", preset, "-qp", str(qp)]
    # Not to standard output: VVenC prints warnings there, which would become part of the stream.
    return [*command, "-qpa", "0", "-vvenc-params", _VVENC, "-f", "vvc", "out.266"]


def _y4m_planes(content: bytes) -> list[Plane]:
    """Return the planes of YUV4MPEG video of exactly one 10 bit 4:2:0 image."""
    header, _, rest = content.partition(b"\n")
    found = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) .*\bC420p10\b", header)
    if found is None:
        raise damaged("VVC", "not a 4:2:0 image of 10 bits")
    width, height = int(found[1]), int(found[2])
    mark, _, samples = rest.partition(b"\n")
    if mark.split() != [b"FRAME"] or len(samples) != 3 * height * width:
        raise damaged("VVC", "it does not decode to exactly one image")
    return split_planes(samples, height, width, "4:2:0", 10)


def _first_message(output: str) -> str:
    """Return the first line of FFmpeg's messages that gives a reason."""
    lines = [" ".join(line.split()) for line in output.splitlines()]
    reasons = [line for line in lines if line and not any(noise in line for noise in _NOISE)]
    return re.sub(r" @ 0x[0-9a-f]+", "", reasons[0])[:300] if reasons else ""


def _program() -> str:
    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        raise UserError(
            "imageio-ffmpeg has no FFmpeg program on this platform; set IMAGEIO_FFMPEG_EXE to one "
            "that has libvvenc, or choose another classical codec"
        ) from None
    # Absolute, since it runs in other directories.
    return str(Path(shutil.which(program) or program).absolute())


@lru_cache(maxsize=4)
def _digest(program: str) -> str:
    return sha256_file(program)


@lru_cache(maxsize=4)
def _version(program: str) -> str:
    """Return the versions of VVenC, which it logs when coding, and of FFmpeg."""
    size = (_SMALLEST, _SMALLEST)
    words = _encoding(program, size, "faster", 32)
    command = ["info" if word == "error" else word for word in words if word != "-hide_banner"]
    with workspace() as folder:
        (folder / "in.yuv").write_bytes(bytes(_SMALLEST**2 * 3))
        output = run_program(
            command, what="vvenc", time_limit_s=60, cwd=folder, advice=_CHECK_VVENC
        )
    vvenc = re.search(r"libvvenc version: (\S+)", output)
    ffmpeg = re.search(r"ffmpeg version (\S+)", output)
    names = [found[1] if found else "unknown" for found in (vvenc, ffmpeg)]
    return "{}, FFmpeg {}".format(*names)
