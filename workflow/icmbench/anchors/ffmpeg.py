"""VVC intra by libvvenc, and decoded, inside the FFmpeg program that imageio-ffmpeg brings.

Syntax and samples of Rec. ITU-T H.266; the bitstream is a bare Annex B one (parameter sets and one
IDR picture) whose VUI says BT.709 and full range, which costs 7 bytes.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import imageio_ffmpeg  # type: ignore[import-untyped]
import numpy as np

from icmbench.anchors import VvencFfmpegParameters
from icmbench.anchors.base import Anchor, Implementation, whole_rate
from icmbench.anchors.colour import Plane
from icmbench.anchors.cropping import block_pixels, crop, pack, pad, unpack
from icmbench.anchors.planar import from_planes, split_planes, to_planes
from icmbench.anchors.programs import Program
from icmbench.codecs.base import Encoded, Picture
from icmbench.errors import UserError
from icmbench.files import sha256_file

_SMALLEST = 16  # sides that vvenc takes
# Without an offset, which is -3 otherwise, vvenc codes intra pictures at the nominal QP. More
# threads than one change the bits in some versions.
_VVENC = "intraperiod=1:IntraQPOffset=0:threads=1:range=full:matrixcoefficients=1"
_QUIET = ("-hide_banner", "-nostdin", "-loglevel", "error")
_NOISE = ("Configuration warning", "Task finished", "Terminating thread", "Nothing was written")


class VvencFfmpeg(Anchor):
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

    def encode(self, picture: Picture) -> Encoded:
        """Code a uint8 RGB picture [H, W, 3]; the rate is the size of the bare bitstream."""
        coded = pad(picture, 2, _SMALLEST)
        samples = b"".join(plane.tobytes() for plane in to_planes(coded, "4:2:0", 10))
        what, limit = f"vvenc qp {self.qp}", self.parameters.time_limit_s
        # vvenc prints warnings to standard output, where they would pass for bits.
        with TemporaryDirectory(prefix="icmbench-") as folder:
            path = Path(folder, "picture.266")
            command = _encoding(_program(), coded.shape, self.parameters.preset, self.qp, path)
            done = _run(command, samples, limit, what)
            stream = b"" if done.returncode or not path.exists() else path.read_bytes()
        if not stream:
            _fail(what, command, done)
        data = pack(stream, picture.shape, coded.shape)
        return Encoded(data, None, block_pixels(coded.shape))

    def decode(self, data: bytes) -> Picture:
        """Return the uint8 RGB picture [H, W, 3] of a bitstream."""
        stream, bottom, right = unpack(data)
        command = [_program(), *_QUIET, "-threads", "1", "-xerror", "-err_detect", "explode"]
        # The headers of YUV4MPEG carry the size; rawvideo would not.
        command += ["-f", "vvc", "-i", "pipe:0", "-f", "yuv4mpegpipe", "-strict", "-1", "pipe:1"]
        done = _run(command, stream, self.parameters.time_limit_s, "VVC decoder")
        if done.returncode < 0:
            _fail("VVC decoder", command, done)
        if done.returncode:
            raise _damaged(_said(done.stderr))
        return crop(from_planes(_y4m_planes(done.stdout), 10), bottom, right)


def _encoding(
    program: str, shape: Sequence[int], preset: str, qp: int, output: Path | str
) -> list[str]:
    """Return the command line that codes planes [H, W] and [H / 2, W / 2] from its input."""
    command = [program, *_QUIET, "-f", "rawvideo", "-pix_fmt", "yuv420p10le"]
    command += ["-s", f"{shape[1]}x{shape[0]}", "-r", "1", "-i", "pipe:0", "-frames:v", "1"]
    command += ["-c:v", "libvvenc", "-threads", "1", "-preset", preset, "-qp", str(qp)]
    return [*command, "-qpa", "0", "-vvenc-params", _VVENC, "-f", "vvc", str(output)]


def _y4m_planes(content: bytes) -> list[Plane]:
    """Return the planes of YUV4MPEG video of exactly one 10 bit 4:2:0 picture."""
    header, _, rest = content.partition(b"\n")
    found = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) .*\bC420p10\b", header)
    if found is None:
        raise _damaged("it holds no 4:2:0 picture of 10 bits")
    width, height = int(found[1]), int(found[2])
    mark, _, samples = rest.partition(b"\n")
    if mark.split() != [b"FRAME"] or len(samples) != 3 * height * width:
        raise _damaged("it does not decode to exactly one whole picture")
    return split_planes(samples, height, width, "4:2:0", 10)


def _run(
    command: list[str], given: bytes, limit_s: float, what: str
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command, input=given, capture_output=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{what}: `{' '.join(command)}` took longer than {limit_s:g} s; raise time_limit_s, "
            f"allowed are positive numbers"
        ) from None
    except OSError as error:
        raise UserError(
            f"{what}: `{command[0]}` cannot be run: {error.strerror}; reinstall imageio-ffmpeg"
        ) from None


def _fail(what: str, command: list[str], done: subprocess.CompletedProcess[bytes]) -> NoReturn:
    raise UserError(
        f"{what}: `{' '.join(command)}` ended with exit code {done.returncode}: "
        f"{_said(done.stderr)}; see that this FFmpeg has libvvenc"
    )


def _said(stderr: bytes) -> str:
    """Return the first line of what FFmpeg said that tells more than that it failed."""
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines()]
    telling = [line for line in lines if line and not any(noise in line for noise in _NOISE)]
    line = telling[0] if telling else "no message"
    return re.sub(r" @ 0x[0-9a-f]+", "", " ".join(line.split()))[:300]


def _damaged(reason: str) -> UserError:
    return UserError(f"bitstream is damaged: VVC: {reason}; code the picture again")


def _program() -> str:
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        raise UserError(
            "imageio-ffmpeg has no FFmpeg program on this platform; set IMAGEIO_FFMPEG_EXE to one "
            "that has libvvenc, or choose another anchor"
        ) from None


@lru_cache(maxsize=4)
def _digest(program: str) -> str:
    return sha256_file(program)


@lru_cache(maxsize=4)
def _version(program: str) -> str:
    """Return the versions of vvenc, which it tells when coding, and of FFmpeg."""
    size = (_SMALLEST, _SMALLEST)
    words = _encoding(program, size, "faster", 32, "pipe:1")
    command = ["info" if word == "error" else word for word in words if word != "-hide_banner"]
    blank = np.zeros(_SMALLEST**2 * 3 // 2, np.uint16).tobytes()
    done = _run(command, blank, 60.0, "vvenc")
    if done.returncode:
        _fail("vvenc", command, done)
    said = done.stderr.decode(errors="replace")
    vvenc = re.search(r"libvvenc version: (\S+)", said)
    ffmpeg = re.search(r"ffmpeg version (\S+)", said)
    names = [found[1] if found else "unknown" for found in (vvenc, ffmpeg)]
    return "{}, FFmpeg {}".format(*names)
