"""HEVC intra by libx265 inside PyAV, decoded by FFmpeg's own decoder there.

Syntax and samples of Rec. ITU-T H.265; the bitstream is a bare Annex B one (parameter sets and one
IDR image) with a VUI of BT.709 and full range, which costs 3 bytes.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import av
import numpy as np
from av.video.frame import VideoFrame

from icmbench.codecs.base import Encoded, RgbImage
from icmbench.codecs.classical.base import (
    Implementation,
    InProcessCodec,
    add_padding_header,
    block_pixels,
    crop,
    damaged,
    pad,
    split_padding_header,
)
from icmbench.codecs.classical.colour import Plane, from_planes, to_planes
from icmbench.codecs.classical.entries import X265Parameters
from icmbench.errors import UserError

_SMALLEST = 16  # shortest side for x265
_LAYOUTS = {("4:4:4", 8): "yuv444p", ("4:2:0", 8): "yuv420p"}
_LAYOUTS |= {("4:4:4", 10): "yuv444p10le", ("4:2:0", 10): "yuv420p10le"}
_FIXED = "keyint=1:log-level=none:pools=none:frame-threads=1:range=full:colormatrix=bt709"
# Bytes that cannot begin another part of the stream.
_TAIL = b"\x55" * 64


class X265(InProcessCodec):
    """HEVC intra at one quantisation parameter, on one thread. The rate is x265's ``qp``.

    HEVC has no checksum here, and FFmpeg conceals what it cannot decode. A missing end is found by
    decoding the bitstream twice, the second time with appended bytes, which the decoding of a
    complete image never reads; the decoding time counts both. Changed bits inside the coded samples
    are not detected.
    """

    title = "x265"
    rate_range = (0, 51)
    parameters: X265Parameters

    def describe(self) -> Implementation:
        """Return x265, PyAV and FFmpeg with their versions, and every option."""
        own = self.parameters
        return Implementation(
            "x265",
            f"{_x265_version()}, PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}",
            {"chroma": own.chroma, "bit_depth": own.bit_depth, **self._options()},
            # x265's formula; at a ratio of 1.4 it gives the stream of the QP three below.
            intra_qp=max(0, math.floor(self.rate - 6 * math.log2(own.ip_ratio) + 0.5)),
        )

    def _options(self) -> dict[str, str]:
        own = self.parameters
        options = {"preset": own.preset, "qp": str(self.rate)}
        if own.tune != "none":
            options["tune"] = own.tune
        return {**options, "x265-params": f"{_FIXED}:info=0:ipratio={own.ip_ratio:g}"}

    def compress(self, image: RgbImage) -> Encoded:
        """Code a uint8 RGB image [H, W, 3]; the rate is the size of the bare bitstream."""
        own = self.parameters
        coded = pad(image, 1 if own.chroma == "4:4:4" else 2, _SMALLEST)
        planes = to_planes(coded, own.chroma, own.bit_depth)
        stream = _encode(planes, _LAYOUTS[own.chroma, own.bit_depth], self._options())
        data = add_padding_header(stream, image.shape, coded.shape)
        return Encoded(data, None, block_pixels(coded.shape))

    def decode(self, data: bytes) -> RgbImage:
        """Return the uint8 RGB image [H, W, 3] of a bitstream."""
        stream, bottom, right = split_padding_header(data)
        planes, depth = _decode(stream)
        again, _ = _decode(stream + _TAIL)
        if not all(map(np.array_equal, planes, again)):
            raise damaged("HEVC", "its end is missing")
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
        raise damaged("HEVC", str(error.strerror)) from None
    if len(frames) != 1:
        raise damaged("HEVC", f"it contains {len(frames)} images instead of one")
    # FFmpeg's name of yuv420p with full range is yuvj420p.
    layout = frames[0].format.name.replace("yuvj", "yuv")
    if frames[0].is_corrupt or layout not in _LAYOUTS.values():
        raise damaged("HEVC", f"it decodes to {layout}, or with errors")
    depth = frames[0].format.components[0].bits
    dtype = np.dtype(np.uint8 if depth == 8 else "<u2")
    planes: list[Plane] = []
    for plane in frames[0].planes:
        samples = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
        planes.append(samples[:, : plane.width].copy())  # rows are padded in memory
    return planes, depth


@lru_cache(maxsize=1)
def _x265_version() -> str:
    """Return the version that x265 writes into a stream unless it is switched off."""
    planes: list[Plane] = [np.zeros((_SMALLEST, _SMALLEST), np.uint8)] * 3
    stream = _encode(planes, "yuv444p", {"preset": "ultrafast", "x265-params": _FIXED})
    words = stream[stream.index(b"x265 (build") :].split(b" - ")[1]
    return words.split(b":")[0].decode()
