"""Classical codecs that packages bring: their bits, their decoding elsewhere, odd sizes, damage."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imagecodecs
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from icmbench.codecs.classical.base import (
    ClassicalCodec,
    add_padding_header,
    crop,
    pad,
    split_padding_header,
)
from icmbench.codecs.classical.colour import from_planes, split_planes, to_planes
from icmbench.data.synthetic.scenes import make_scene
from icmbench.errors import UserError
from icmbench.evaluate.classical import open_codec
from icmbench.jobs import ClassicalSpec
from icmbench.metrics.image_quality import psnr
from icmbench.plugins import load_modules
from icmbench.registry import CODECS
from icmbench.utils.files import read_json

load_modules([])
# Name, a middle rate, settings that save time
LIBRARY: dict[str, tuple[float, dict[str, Any]]] = {
    "jpeg": (30, {}),
    "jpeg2000": (20, {}),
    "jpegxl": (2, {"effort": 3}),
    "webp": (50, {}),
    "avif-444": (50, {"speed": 9}),
    "avif-420": (50, {"speed": 9}),
    "x265-444": (32, {"preset": "fast"}),
    "x265-420": (32, {"preset": "fast"}),
    "vvenc-ffmpeg-420": (32, {"preset": "faster"}),
}
PARTS = {"4:4:4": "yuv444p", "4:2:0": "yuv420p"}


def make(name: str, rate: float | None = None, **parameters: Any) -> ClassicalCodec:
    middle, fast = LIBRARY[name]
    settings = ClassicalSpec(
        name=name,
        parameters={**CODECS[name].defaults, **fast, **parameters},
        rate=middle if rate is None else rate,
        version=1,
        programs={},
        modules=[],
    )
    return open_codec(settings)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return make_scene(np.random.default_rng(3), 128).image[:, :96]


# --- bits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rate", "parameters", "form", "options"),
    [
        ("jpeg", 20, {}, "JPEG", {"quality": 20}),
        ("jpeg", 20, {"chroma": "4:4:4"}, "JPEG", {"quality": 20, "subsampling": 0}),
        (
            *("jpeg2000", 20.5, {}, "JPEG2000"),
            {"quality_layers": [20.5], "irreversible": True, "mct": 1},
        ),
        ("webp", 40, {}, "WEBP", {"quality": 40, "method": 6}),
        (
            *("avif-444", 40, {}, "AVIF"),
            {"quality": 40, "speed": 9, "subsampling": "4:4:4", "max_threads": 1, "codec": "aom"},
        ),
    ],
)
def test_pillow_codecs_write_the_files_that_pillow_writes(
    image: np.ndarray,
    name: str,
    rate: float,
    parameters: dict[str, Any],
    form: str,
    options: dict[str, Any],
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, **options)
    encoded = make(name, rate, **parameters).encode(image)
    assert encoded.data == buffer.getvalue()
    assert np.array_equal(encoded.reconstruction, np.asarray(Image.open(buffer)))
    assert encoded.pixels_coded == 128 * 96


def test_jpegxl_is_the_file_that_libjxl_writes(image: np.ndarray) -> None:
    data = imagecodecs.jpegxl_encode(image, distance=3.0, effort=5, usecontainer=False)
    encoded = make("jpegxl", 3, effort=5).encode(image)
    assert encoded.data == data and encoded.bits == 8 * len(data)
    assert np.array_equal(encoded.reconstruction, imagecodecs.jpegxl_decode(data))
    assert len(make("jpegxl", 0.5).encode(image).data) > len(make("jpegxl", 6).encode(image).data)


def test_jpeg2000_has_the_requested_ratio(image: np.ndarray) -> None:
    for ratio in (10, 40):
        data = make("jpeg2000", ratio, container="j2k").encode(image).data
        # OpenJPEG leaves a part of the budget of a small image.
        assert len(data) == pytest.approx(image.size / ratio, rel=0.08)


def by_recipe(planes: list[np.ndarray], layout: str, qp: int, extra: str = "") -> bytes:
    """Code with PyAV alone, the way that was measured against BPG."""
    height, width = planes[0].shape
    context = av.CodecContext.create("libx265", "w")
    context.width, context.height, context.pix_fmt = width, height, layout
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25, 1)
    fixed = "keyint=1:info=0:log-level=none:pools=none:frame-threads=1"
    context.options = {
        "preset": "veryslow",
        "tune": "ssim",
        "qp": str(qp),
        "x265-params": fixed + extra,
    }
    frame = av.VideoFrame.from_ndarray(np.stack(planes), format=layout)
    return b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)])


def test_x265_is_the_recipe_and_three_bytes_of_colour_description(image: np.ndarray) -> None:
    codec = make("x265-444", 37, bit_depth=8, ip_ratio=1.4, preset="veryslow")
    data = codec.encode(image).data
    planes = to_planes(image, "4:4:4", 8)
    assert data == by_recipe(planes, "yuv444p", 37, ":range=full:colormatrix=bt709")
    bare = by_recipe(planes, "yuv444p", 37)
    assert len(data) == len(bare) + 3
    assert data.split(b"\0\0\1")[-1] == bare.split(b"\0\0\1")[-1]  # the coded image itself


def test_x265_reports_the_qp_of_intra_images(image: np.ndarray) -> None:
    default = make("x265-444", 37, ip_ratio=1.4)
    nominal = make("x265-444", 34)
    assert default.encode(image).data == nominal.encode(image).data
    assert default.describe().intra_qp == nominal.describe().intra_qp == 34


def test_descriptions_name_libraries_and_settings() -> None:
    text = make("jpeg").implementation()
    for part in ("Pillow ", "libjpeg-turbo ", "quality 30", "subsampling 4:2:0", "optimize False"):
        assert part in text
    version = make("x265-444").describe().version
    assert version[0].isdigit() and "PyAV " in version and "FFmpeg " in version
    assert "aom [enc]" in make("avif-444").describe().version
    vvenc = make("vvenc-ffmpeg-420").describe()
    assert vvenc.version[0].isdigit() and "FFmpeg n" in vvenc.version
    assert len(vvenc.digests["ffmpeg"]) == 64


def vvenc_alone(image: np.ndarray, folder: Path, extra: str = "") -> tuple[bytes, str]:
    """Code with FFmpeg alone; return the file it writes and what it says."""
    raw = b"".join(plane.tobytes() for plane in to_planes(image, "4:2:0", 10))
    (folder / "in.yuv").write_bytes(raw)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-f", "rawvideo", "-pix_fmt", "yuv420p10le"]
    command += ["-s", f"{image.shape[1]}x{image.shape[0]}", "-r", "1", "-i", "in.yuv"]
    command += ["-frames:v", "1", "-c:v", "libvvenc", "-preset", "faster", "-qp", "32", "-qpa", "0"]
    command += ["-threads", "1", "-vvenc-params"]
    command += [f"intraperiod=1:IntraQPOffset=0:range=full:matrixcoefficients=1{extra}"]
    done = subprocess.run(
        [*command, "-loglevel", "verbose", "out.266"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return (folder / "out.266").read_bytes(), done.stdout + done.stderr


def test_vvenc_is_the_file_that_ffmpeg_writes(image: np.ndarray, tmp_path: Path) -> None:
    data, said = vvenc_alone(image, tmp_path, ":verbosity=5")
    codec = make("vvenc-ffmpeg-420", 32)
    assert codec.encode(image).data == data
    assert "I-SLICE, QP 32" in said
    assert codec.describe().intra_qp == 32


# --- decoding ----------------------------------------------------------------------------------


_OTHER_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from icmbench.plugins import load_modules
from icmbench.registry import CODECS, implementation
load_modules([])
for path in Path(sys.argv[1]).glob("*.bin"):
    entry = CODECS[path.stem]
    codec = implementation(entry)(entry.parameters.model_validate(entry.defaults), 20)
    np.save(path.with_suffix(".npy"), codec.decode(path.read_bytes()))
"""


def test_another_process_decodes_the_reconstruction(image: np.ndarray, tmp_path: Path) -> None:
    expected = {}
    for name in set(LIBRARY) - {"vvenc-ffmpeg-420"}:
        encoded = make(name).encode(image[:51, :37])
        (tmp_path / f"{name}.bin").write_bytes(encoded.data)
        expected[name] = encoded.reconstruction
    subprocess.run([sys.executable, "-c", _OTHER_PROCESS, str(tmp_path)], check=True)
    for name, reconstruction in expected.items():
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), reconstruction), name


def by_program(data: bytes, form: str, layout: str) -> bytes:
    """Decode with the FFmpeg program, another version than the one inside PyAV."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", form, "-i", "pipe:0"]
    command += ["-f", "rawvideo", "-pix_fmt", layout, "pipe:1"]
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


def test_another_decoder_reads_jpegxl(image: np.ndarray) -> None:
    encoded = make("jpegxl").encode(image)
    assert encoded.data[:2] == b"\xff\x0a"  # a bare codestream
    raw = by_program(encoded.data, "jpegxl_pipe", "rgb24")
    decoded = np.frombuffer(raw, np.uint8).reshape(image.shape).astype(int)
    # Another version of libjxl rounds differently.
    assert np.abs(decoded - encoded.reconstruction).max() <= 1


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize("chroma", ["4:4:4", "4:2:0"])
def test_another_decoder_reads_x265(image: np.ndarray, chroma: str, bit_depth: int) -> None:
    name = "x265-" + chroma.replace(":", "")
    encoded = make(name, bit_depth=bit_depth).encode(image)
    layout = PARTS[chroma] + ("10le" if bit_depth == 10 else "")
    if layout == "yuv420p":
        layout = "yuvj420p"  # of full range: FFmpeg would convert to the other otherwise
    raw = by_program(encoded.data, "hevc", layout)
    assert len(raw) == image.size * (1 if bit_depth == 8 else 2) / (1 if chroma[2] == "4" else 2)
    decoded = from_planes(split_planes(raw, 128, 96, chroma, bit_depth), bit_depth)
    assert np.array_equal(decoded, encoded.reconstruction)


def test_another_decoder_reads_vvenc(image: np.ndarray) -> None:
    codec = make("vvenc-ffmpeg-420")
    data = codec.encode(image).data
    context = av.CodecContext.create("vvc", "r")
    packets = [*context.parse(data), *context.parse(b"")]
    (frame,) = [frame for packet in (*packets, None) for frame in context.decode(packet)]
    assert (frame.width, frame.height, frame.format.name) == (96, 128, "yuv420p10le")
    planes = [
        np.frombuffer(memoryview(p), "<u2").reshape(p.height, -1)[:, : p.width]
        for p in frame.planes
    ]
    assert np.array_equal(from_planes(planes, 10), codec.decode(data))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system pins no process")
@pytest.mark.parametrize("name", ["jpegxl", "avif-444", "x265-444", "vvenc-ffmpeg-420"])
def test_bits_do_not_depend_on_the_cores(image: np.ndarray, name: str) -> None:
    cores = os.sched_getaffinity(0)
    whole = make(name).encode(image).data
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert make(name).encode(image).data == whole
    finally:
        os.sched_setaffinity(0, cores)


# --- sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIBRARY)
@pytest.mark.parametrize("shape", [(51, 37), (1, 1), (64, 5)])
def test_codecs_take_images_of_any_size(name: str, shape: tuple[int, int]) -> None:
    flat = np.full((*shape, 3), (90, 120, 60), np.uint8)
    codec = make(name)
    encoded = codec.encode(flat)
    decoded = codec.decode(encoded.data)
    assert decoded.shape == flat.shape and decoded.dtype == np.uint8
    assert psnr(flat, decoded) > 25
    assert encoded.reconstruction is None or np.array_equal(encoded.reconstruction, decoded)
    assert encoded.pixels_coded >= shape[0] * shape[1]


@pytest.mark.parametrize("name", ["x265-444", "x265-420", "vvenc-ffmpeg-420"])
def test_a_padding_header_is_written_only_if_needed(name: str) -> None:
    odd = make_scene(np.random.default_rng(1), 64).image[:51, :38]
    codec = make(name)
    assert codec.encode(odd[:50]).data[:4] == b"\0\0\0\1"
    data = codec.encode(odd).data
    if name == "x265-444":
        assert data[:4] == b"\0\0\0\1"
    else:
        assert data[:5] == b"\x82\0\0\0\1"
        assert data[1:] == codec.encode(np.pad(odd, ((0, 1), (0, 0), (0, 0)), "edge")).data


def test_padding_headers_by_hand() -> None:
    stream = b"\0\0\0\1rest"
    assert add_padding_header(stream, (4, 6, 3), (4, 6, 3)) == stream
    assert add_padding_header(stream, (3, 6, 3), (4, 6, 3)) == b"\x82" + stream
    assert add_padding_header(stream, (4, 5, 3), (4, 6, 3)) == b"\x81" + stream
    assert add_padding_header(stream, (3, 5, 3), (4, 6, 3)) == b"\x83" + stream
    assert add_padding_header(stream, (3, 5, 3), (16, 16, 3)) == b"\x84\x0d\x0b" + stream
    for header in (b"", b"\x81", b"\x82", b"\x83", b"\x84\x0d\x0b"):
        assert split_padding_header(header + stream)[0] == stream
    assert split_padding_header(b"\x82" + stream)[1:] == (1, 0)
    assert split_padding_header(b"") == (b"", 0, 0)
    small = np.arange(45, dtype=np.uint8).reshape(3, 5, 3)
    padded = pad(small, 2, 16)
    assert padded.shape == (16, 16, 3) and np.array_equal(padded[-1, -1], small[-1, -1])
    assert np.array_equal(crop(padded, 13, 11), small)
    with pytest.raises(UserError, match="damaged"):
        crop(small, 3, 0)


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rates", "allowed"),
    [
        ("jpeg", (0, 96, 12.5), "quality .* 1 to 95"),
        ("jpeg2000", (1, 0, -3), "ratio .* above 1"),
        ("jpegxl", (0, -1, 25.1), "distance .* at most 25"),
        ("webp", (-1, 101, 0.5), "quality .* 0 to 100"),
        ("avif-444", (-1, 101, 0.5), "quality .* 0 to 100"),
        ("x265-444", (-1, 52, 36.6), "qp .* 0 to 51"),
        ("vvenc-ffmpeg-420", (-1, 64, 36.6), "qp .* 0 to 63"),
    ],
)
def test_codecs_refuse_other_rates(name: str, rates: tuple[float, ...], allowed: str) -> None:
    for rate in rates:
        with pytest.raises(UserError, match=allowed):
            make(name, rate)


def first(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(share * len(data))]


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (96, 128), "teal").save(buffer, "PNG")
    return buffer.getvalue()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "noise": lambda data: np.random.default_rng(0).bytes(len(data)),
    "noise after a header": lambda data: b"\x83" + np.random.default_rng(1).bytes(len(data)),
    "another format": lambda data: png(),
    "10 bytes": lambda data: data[:10],
    "half": first(0.5),
    "most": first(0.9),
    "but 8 bytes": lambda data: data[:-8],
}


@pytest.mark.parametrize("name", LIBRARY)
@pytest.mark.parametrize("damage", DAMAGE)
def test_decoders_refuse_damaged_bitstreams(image: np.ndarray, name: str, damage: str) -> None:
    codec = make(name)
    with pytest.raises(UserError, match="damaged") as caught:
        codec.decode(DAMAGE[damage](codec.encode(image).data))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", LIBRARY)
def test_a_bitstream_without_its_last_byte_gives_no_other_image(
    image: np.ndarray, name: str
) -> None:
    codec = make(name)
    data = codec.encode(image).data
    try:
        decoded = codec.decode(data[:-1])
    except UserError:
        return
    assert np.array_equal(decoded, codec.decode(data))  # the byte only filled up


def test_images_too_large_for_a_format_are_refused() -> None:
    with pytest.raises(UserError, match=r"WEBP .*17000 x 1"):
        make("webp").encode(np.zeros((1, 17000, 3), np.uint8))


def test_a_slow_program_is_stopped(image: np.ndarray) -> None:
    with pytest.raises(UserError, match="time_limit_s"):
        make("vvenc-ffmpeg-420", time_limit_s=0.001).encode(image)


def test_a_program_without_vvenc_is_named(
    image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "ffmpeg"
    other.write_text("#!/bin/sh\necho \"Unknown encoder 'libvvenc'\" >&2\nexit 8\n")
    other.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(other))
    with pytest.raises(UserError, match=r"code 8.*'libvvenc'"):
        make("vvenc-ffmpeg-420").encode(image)


# --- published curves --------------------------------------------------------------------------


def kodak(mirror: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(p).convert("RGB")) for p in sorted((mirror / "kodak").iterdir())]


def means(codec: ClassicalCodec, images: list[np.ndarray]) -> tuple[float, float]:
    """Return mean bits per pixel and mean PSNR."""
    encoded = [(p, codec.encode(p)) for p in images]
    bpp = [8 * len(e.data) / (p.shape[0] * p.shape[1]) for p, e in encoded]
    return float(np.mean(bpp)), float(np.mean([psnr(p, e.reconstruction) for p, e in encoded]))


def test_jpeg_reproduces_the_published_kodak_curve(mirror: Path) -> None:
    published = read_json(mirror / "published/kodak/jpeg.json")["results"]
    curve = sorted(zip(published["bpp"], published["psnr-rgb"], strict=True))
    images = kodak(mirror)
    for quality, (rate, level) in zip(range(5, 100, 5), curve, strict=True):
        bpp, decibels = means(make("jpeg", quality), images)
        assert bpp == pytest.approx(rate, rel=0.003)
        # libjpeg-turbo's newer upsampling gives up to 0.14 dB more than Pillow 7.1.2 did
        assert -0.01 < decibels - level < 0.14


def test_x265_lies_on_the_curve_of_bpg(mirror: Path) -> None:
    published = read_json(mirror / "published/kodak/bpg_444_x265_ycbcr.json")["results"]
    curve = sorted(zip(published["bpp"], published["psnr-rgb"], strict=True))
    codec = make("x265-444", 42, bit_depth=8, ip_ratio=1.4, preset="veryslow")
    bpp, decibels = means(codec, kodak(mirror))
    # Measured before with BT.601 colours: 0.1804 bpp, 29.063 dB
    assert bpp == pytest.approx(0.1804, rel=0.03)
    assert decibels == pytest.approx(29.06, abs=0.15)
    rates, levels = zip(*curve, strict=True)
    assert decibels == pytest.approx(np.interp(np.log(bpp), np.log(rates), levels), abs=0.15)
