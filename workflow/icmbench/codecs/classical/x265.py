"""HEVC intra by libx265 inside PyAV, decoded by FFmpeg's own decoder there.

Syntax and samples of Rec. ITU-T H.265; the bitstream is a bare Annex B one (parameter sets and one
IDR image) whose VUI says BT.709 and full range, which costs 3 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache

import av
import numpy as np
from av.video.frame import VideoFrame

from icmbench.codecs.base import Encoded, RgbImage
from icmbench.codecs.classical import X265Parameters
from icmbench.codecs.classical.base import Implementation, InProcessCodec, whole_rate
from icmbench.codecs.classical.colour import Plane
from icmbench.codecs.classical.cropping import block_pixels, crop, pack, pad, unpack
from icmbench.codecs.classical.planar import from_planes, to_planes
from icmbench.errors import UserError
from icmbench.utils.programs import Program

_SMALLEST = 16  # sides that x265 takes
_LAYOUTS = {("4:4:4", 8): "yuv444p", ("4:2:0", 8): "yuv420p"}
_LAYOUTS |= {("4:4:4", 10): "yuv444p10le", ("4:2:0", 10): "yuv420p10le"}
_FIXED = "keyint=1:log-level=none:pools=none:frame-threads=1:range=full:colormatrix=bt709"
# Any bytes that cannot be taken for the beginning of another part of the stream.
_TAIL = b"\x55" * 64


class X265(InProcessCodec):
    """HEVC intra at one quantisation parameter, on one thread.

    HEVC carries no checksum, and FFmpeg conceals what it cannot decode. A bitstream that lacks its
    end is found by decoding it twice, once with bytes added: a whole image never reads them. So
    the decoding time counts both. Bits changed inside the coded samples go unnoticed.

    Args:
        parameters: chroma format, bit depth, preset, tuning, ratio of intra to inter step sizes.
        rate: x265's ``qp``, 0 to 51.
        programs: none.
    """

    def __init__(
        self,
        parameters: X265Parameters,
        rate: float | None = None,
        programs: Mapping[str, Program] | None = None,
    ) -> None:
        super().__init__(parameters, rate, programs)
        self.parameters = parameters
        self.qp = whole_rate("x265", "qp", rate, 0, 51)

    def describe(self) -> Implementation:
        """Return x265, PyAV and FFmpeg with their versions, and every option given."""
        own = self.parameters
        return Implementation(
            "x265",
            f"{_x265_version()}, PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}",
            {"chroma": own.chroma, "bit_depth": own.bit_depth, **self._options()},
            # x265's own formula; at a ratio of 1.4 it gives the stream of the QP three below.
            intra_qp=max(0, math.floor(self.qp - 6 * math.log2(own.ip_ratio) + 0.5)),
        )

    def _options(self) -> dict[str, str]:
        own = self.parameters
        options = {"preset": own.preset, "qp": str(self.qp)}
        if own.tune != "none":
            options["tune"] = own.tune
        return {**options, "x265-params": f"{_FIXED}:info=0:ipratio={own.ip_ratio:g}"}

    def compress(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3]; the rate is the size of the bare bitstream."""
        own = self.parameters
        coded = pad(image, 1 if own.chroma == "4:4:4" else 2, _SMALLEST)
        planes = to_planes(coded, own.chroma, own.bit_depth)
        stream = _encode(planes, _LAYOUTS[own.chroma, own.bit_depth], self._options())
        data = pack(stream, image.shape, coded.shape)
        return Encoded(data, None, block_pixels(coded.shape))

    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a bitstream."""
        stream, bottom, right = unpack(data)
        planes, depth = _decode(stream)
        again, _ = _decode(stream + _TAIL)
        if not all(map(np.array_equal, planes, again)):
            raise _damaged("its end is missing")
        return crop(from_planes(planes, depth), bottom, right)


def _encode(planes: list[Plane], layout: str, options: dict[str, str]) -> bytes:
    """Return the bitstream of planes Y, Cb, Cr in one of FFmpeg's pixel formats."""
    height, width = planes[0].shape
    frame = VideoFrame(width, height, layout)
    for target, plane in zip(frame.planes, planes, strict=True):
        rows = np.frombuffer(memoryview(target), np.uint8).reshape(target.height, target.line_size)
        rows[:, : plane.shape[1] * plane.itemsize] = plane.view(np.uint8)
    frame.pts = 0
    context = av.CodecContext.create("libx265", "w")
    context.width, context.height, context.pix_fmt = width, height, layout
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25, 1)
    context.options = options
    try:
        packets = [*context.encode(frame), *context.encode(None)]
    except av.FFmpegError as error:
        shown = ", ".join(f"{name} {value}" for name, value in options.items())
        raise UserError(
            f"x265 cannot code {width} x {height} {layout} with {shown}: {error.strerror}"
        ) from None
    return b"".join(bytes(packet) for packet in packets)


def _decode(stream: bytes) -> tuple[list[Plane], int]:
    """Return the planes Y, Cb, Cr of the only image of a bitstream, and their bit depth."""
    context = av.CodecContext.create("hevc", "r")
    context.thread_count = 1
    context.options = {"err_detect": "explode"}
    try:
        packets = [*context.parse(stream), *context.parse(b"")]
        frames = [frame for packet in (*packets, None) for frame in context.decode(packet)]
    except av.FFmpegError as error:
        raise _damaged(str(error.strerror)) from None
    if len(frames) != 1:
        raise _damaged(f"{len(frames)} images in it instead of one")
    # FFmpeg says yuvj420p for yuv420p of full range.
    layout = frames[0].format.name.replace("yuvj", "yuv")
    if frames[0].is_corrupt or layout not in _LAYOUTS.values():
        raise _damaged(f"it decodes to {layout}, or with errors")
    depth = frames[0].format.components[0].bits
    dtype = np.dtype(np.uint8 if depth == 8 else "<u2")
    planes: list[Plane] = []
    for plane in frames[0].planes:
        samples = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
        planes.append(samples[:, : plane.width].copy())  # lines are padded in memory
    return planes, depth


def _damaged(reason: str) -> UserError:
    line = " ".join(reason.split())[:200]
    return UserError(f"bitstream is damaged: HEVC: {line}; code the image again")


@lru_cache(maxsize=1)
def _x265_version() -> str:
    """Return the version that x265 writes into a stream when it is let to."""
    planes: list[Plane] = [np.zeros((_SMALLEST, _SMALLEST), np.uint8)] * 3
    stream = _encode(planes, "yuv444p", {"preset": "ultrafast", "x265-params": _FIXED})
    words = stream[stream.index(b"x265 (build") :].split(b" - ")[1]
    return words.split(b":")[0].decode()
