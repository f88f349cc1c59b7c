"""VVC intra by libvvenc, and decoded, inside the FFmpeg program that imageio-ffmpeg brings.

Syntax and samples of Rec. ITU-T H.266; the bitstream is a bare Annex B one (parameter sets and one
IDR image) whose VUI says BT.709 and full range, which costs 7 bytes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import imageio_ffmpeg  # type: ignore[import-untyped]

from icmbench.codecs.base import Encoded, RgbImage
from icmbench.codecs.classical import VvencFfmpegParameters
from icmbench.codecs.classical.base import ClassicalCodec, Implementation, whole_rate
from icmbench.codecs.classical.colour import Plane
from icmbench.codecs.classical.cropping import block_pixels, crop, pack, pad, unpack
from icmbench.codecs.classical.planar import from_planes, join_planes, split_planes, to_planes
from icmbench.codecs.classical.process import read_output, run_program, workspace
from icmbench.errors import UserError
from icmbench.utils.files import sha256_file
from icmbench.utils.programs import Program

_SMALLEST = 16  # sides that vvenc takes
# Without an offset, which is -3 otherwise, vvenc codes intra images at the nominal QP. More
# threads than one change the bits in some versions.
_VVENC = "intraperiod=1:IntraQPOffset=0:threads=1:range=full:matrixcoefficients=1"
_QUIET = ("-hide_banner", "-nostdin", "-loglevel", "error")
_NOISE = ("Configuration warning", "Task finished", "Terminating thread", "Nothing was written")
_CHECK_VVENC = "see that this FFmpeg has libvvenc"
_DAMAGED = "where this program runs here, the bitstream is damaged: code the image again"


class VvencFfmpeg(ClassicalCodec):
    """VVC intra 4:2:0 at one quantisation parameter, 10 bits, on one thread.

    FFmpeg's decoder notices a bitstream that lacks its end; bits changed inside the coded samples
    may go unnoticed, since no checksum is written.

    Args:
        parameters: preset and time limit.
        rate: vvenc's ``qp``, 0 to 63.
        programs: none; the program comes with imageio-ffmpeg.
    """

    external = True

    def __init__(
        self,
        parameters: VvencFfmpegParameters,
        rate: float | None = None,
        programs: Mapping[str, Program] | None = None,
    ) -> None:
        super().__init__(parameters, rate, programs)
        self.parameters = parameters
        self.qp = whole_rate("vvenc", "qp", rate, 0, 63)

    def describe(self) -> Implementation:
        """Return vvenc and FFmpeg with their versions and digest, and every option given."""
        program = _program()
        return Implementation(
            "vvenc",
            _version(program),
            {
                "qp": self.qp,
                "chroma": "4:2:0",
                "bit_depth": 10,
                "preset": self.parameters.preset,
                "qpa": 0,
                "vvenc-params": _VVENC,
            },
            digests={"ffmpeg": _digest(program)},
            intra_qp=self.qp,
        )

    def encode(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3]; the rate is the size of the bare bitstream."""
        coded = pad(image, 2, _SMALLEST)
        what = f"vvenc qp {self.qp}"
        with workspace() as folder:
            (folder / "in.yuv").write_bytes(join_planes(to_planes(coded, "4:2:0", 10)))
            run_program(
                _encoding(_program(), coded.shape, self.parameters.preset, self.qp),
                what=what,
                time_limit_s=self.parameters.time_limit_s,
                cwd=folder,
                advice=_CHECK_VVENC,
                telling=_said,
            )
            stream = read_output(folder / "out.266", what)
        data = pack(stream, image.shape, coded.shape)
        return Encoded(data, None, block_pixels(coded.shape))

    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a bitstream."""
        stream, bottom, right = unpack(data)
        command = [_program(), *_QUIET, "-threads", "1", "-xerror", "-err_detect", "explode"]
        # The headers of YUV4MPEG carry the size; rawvideo would not.
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
                telling=_said,
            )
            planes = _y4m_planes(read_output(folder / "out.y4m", what, advice=_DAMAGED))
        return crop(from_planes(planes, 10), bottom, right)


def _encoding(program: str, shape: Sequence[int], preset: str, qp: int) -> list[str]:
    """Return the command line that codes planes [H, W] and [H / 2, W / 2], in.yuv to out.266."""
    command = [program, *_QUIET, "-f", "rawvideo", "-pix_fmt", "yuv420p10le"]
    command += ["-s", f"{shape[1]}x{shape[0]}", "-r", "1", "-i", "in.yuv", "-frames:v", "1"]
    command += ["-c:v", "libvvenc", "-threads", "1", "-preset", preset, "-qp", str(qp)]
    # Not to standard output: vvenc prints warnings there, which would pass for bits.
    return [*command, "-qpa", "0", "-vvenc-params", _VVENC, "-f", "vvc", "out.266"]


def _y4m_planes(content: bytes) -> list[Plane]:
    """Return the planes of YUV4MPEG video of exactly one 10 bit 4:2:0 image."""
    header, _, rest = content.partition(b"\n")
    found = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) .*\bC420p10\b", header)
    if found is None:
        raise _damaged("it holds no 4:2:0 image of 10 bits")
    width, height = int(found[1]), int(found[2])
    mark, _, samples = rest.partition(b"\n")
    if mark.split() != [b"FRAME"] or len(samples) != 3 * height * width:
        raise _damaged("it does not decode to exactly one whole image")
    return split_planes(samples, height, width, "4:2:0", 10)


def _said(said: str) -> str:
    """Return the first line of what FFmpeg said that tells more than that it failed."""
    lines = [" ".join(line.split()) for line in said.splitlines()]
    telling = [line for line in lines if line and not any(noise in line for noise in _NOISE)]
    return re.sub(r" @ 0x[0-9a-f]+", "", telling[0])[:300] if telling else ""


def _damaged(reason: str) -> UserError:
    return UserError(f"bitstream is damaged: VVC: {reason}; code the image again")


def _program() -> str:
    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        raise UserError(
            "imageio-ffmpeg has no FFmpeg program on this platform; set IMAGEIO_FFMPEG_EXE to one "
            "that has libvvenc, or choose another classical codec"
        ) from None
    # It runs in other directories than this one.
    return str(Path(shutil.which(program) or program).absolute())


@lru_cache(maxsize=4)
def _digest(program: str) -> str:
    return sha256_file(program)


@lru_cache(maxsize=4)
def _version(program: str) -> str:
    """Return the versions of vvenc, which it tells when coding, and of FFmpeg."""
    size = (_SMALLEST, _SMALLEST)
    words = _encoding(program, size, "faster", 32)
    command = ["info" if word == "error" else word for word in words if word != "-hide_banner"]
    with workspace() as folder:
        (folder / "in.yuv").write_bytes(bytes(_SMALLEST**2 * 3))
        said = run_program(command, what="vvenc", time_limit_s=60, cwd=folder, advice=_CHECK_VVENC)
    vvenc = re.search(r"libvvenc version: (\S+)", said)
    ffmpeg = re.search(r"ffmpeg version (\S+)", said)
    names = [found[1] if found else "unknown" for found in (vvenc, ffmpeg)]
    return "{}, FFmpeg {}".format(*names)
