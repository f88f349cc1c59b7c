"""The real programs, where they are installed: published curves, other decoders, damage."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from icmbench.codecs.base import RgbImage
from icmbench.codecs.classical.base import ClassicalCodec
from icmbench.codecs.classical.bpg import Bpg
from icmbench.codecs.classical.colour import from_planes, rgb_to_ycbcr
from icmbench.codecs.classical.entries import (
    BpgParameters,
    HmParameters,
    JpegXlParameters,
    VtmParameters,
    VvencParameters,
)
from icmbench.codecs.classical.jpegxl import JpegXl
from icmbench.codecs.classical.raw_video import Hm, Vtm, Vvenc
from icmbench.data.synthetic.scenes import make_scene
from icmbench.errors import UserError
from icmbench.metrics.image_quality import psnr
from icmbench.utils.files import read_json
from icmbench.utils.programs import Program, find_program

pytestmark = pytest.mark.binary

_PROGRAMS = {
    Bpg: ("bpgenc", "bpgdec"),
    Vtm: ("vtm_encoder", "vtm_decoder", "vtm_config"),
    Hm: ("hm_encoder", "hm_decoder", "hm_config"),
    Vvenc: ("vvencapp", "vvdecapp"),
}
# Each in both chroma formats and bit depths that it has.
_ALL = [
    (Bpg, BpgParameters()),
    (Bpg, BpgParameters(chroma="4:2:0", bit_depth=10)),
    (Vtm, VtmParameters()),
    (Vtm, VtmParameters(chroma="4:2:0", bit_depth=8)),
    (Hm, HmParameters()),
    (Hm, HmParameters(chroma="4:2:0", bit_depth=8)),
    (Vvenc, VvencParameters(preset="faster")),
]
# What CompressAI's benchmark passes, for an image of 112 x 80.
_BARE_VTM = (
    "-i in.yuv -q 40 -o /dev/null -b out.bin -wdt 112 -hgt 80 -fr 1 -f 1 "
    "--InputChromaFormat=444 --InputBitDepth=8 --ConformanceWindowMode=1"
)
_IDS = [f"{codec.__name__.lower()}-{index}" for index, (codec, _) in enumerate(_ALL)]


def _programs(codec: type[ClassicalCodec]) -> dict[str, Program]:
    found = {name: find_program(name, {}) for name in _PROGRAMS[codec]}
    missing = [name for name, program in found.items() if program is None]
    if missing:
        pytest.skip(f"not on PATH: {', '.join(missing)}")
    return {name: program for name, program in found.items() if program is not None}


def _open(codec: Callable[..., ClassicalCodec], parameters: object, qp: int) -> ClassicalCodec:
    return codec(parameters, qp, _programs(codec))


@pytest.fixture(scope="module")
def image() -> RgbImage:
    return make_scene(np.random.default_rng(3), 128).image[:80, :112]


def _kodak(mirror: Path) -> list[RgbImage]:
    paths = sorted((mirror / "kodak").glob("*.png"))
    assert len(paths) == 24
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def _bpp(data: bytes, image: RgbImage) -> float:
    return 8 * len(data) / (image.shape[0] * image.shape[1])


# Published curves


@pytest.mark.slow
@pytest.mark.parametrize(("qp", "index"), [(47, 0), (37, 2)])
def test_bpg_reproduces_the_published_kodak_points(mirror: Path, qp: int, index: int) -> None:
    published = read_json(mirror / "published/kodak/bpg_444_x265_ycbcr.json")["results"]
    points = sorted(zip(published["bpp"], published["psnr-rgb"], strict=True))
    codec, rates, levels = _open(Bpg, BpgParameters(), qp), [], []
    for image in _kodak(mirror):
        data = codec.encode(image).data
        rates.append(_bpp(data, image))
        levels.append(psnr(image, codec.decode(data)))
    assert np.mean(rates) == pytest.approx(points[index][0], abs=1e-6)
    assert np.mean(levels) == pytest.approx(points[index][1], abs=1e-3)


@pytest.mark.slow
def test_hm_reproduces_the_published_kodak_rate(mirror: Path) -> None:
    published = read_json(mirror / "published/kodak/hm.json")["results"]["bpp"]
    codec = _open(Hm, HmParameters(bit_depth=8, rounding="truncate"), 47)
    rates = [_bpp(codec.encode(image).data, image) for image in _kodak(mirror)]
    assert np.mean(rates) == pytest.approx(min(published), abs=1e-8)


@pytest.mark.slow
def test_vtm_codes_as_an_independent_harness_does(mirror: Path) -> None:
    image = _kodak(mirror)[0]
    codec = _open(Vtm, VtmParameters(bit_depth=8, rounding="truncate"), 47)
    if codec.describe().version != "23.13":
        pytest.skip(f"measured with VTM 23.13, this is {codec.describe().version}")
    assert _bpp(codec.encode(image).data, image) == pytest.approx(0.05947, abs=5e-6)


# Other programs and decoders


@pytest.mark.parametrize(("codec", "parameters"), _ALL, ids=_IDS)
@pytest.mark.parametrize("shape", [(80, 112), (51, 37), (33, 62), (1, 1)])
def test_programs_code_images_of_any_size(
    image: RgbImage, codec: type[ClassicalCodec], parameters: object, shape: tuple[int, int]
) -> None:
    part = np.ascontiguousarray(image[: shape[0], : shape[1]])
    codec = _open(codec, parameters, 27)
    encoded = codec.encode(part)
    decoded = codec.decode(encoded.data)
    assert decoded.shape == part.shape and decoded.dtype == np.uint8
    assert psnr(part, decoded) > 27
    if isinstance(codec, Vtm | Hm):
        assert np.array_equal(decoded, encoded.reconstruction)


@pytest.mark.parametrize("codec", [Vtm, Hm])
@pytest.mark.parametrize("chroma", ["4:4:4", "4:2:0"])
def test_ffmpeg_decodes_the_same_samples(
    image: RgbImage, codec: type[Vtm] | type[Hm], chroma: str
) -> None:
    parameters = (VtmParameters if codec is Vtm else HmParameters)(chroma=chroma)
    encoded = _open(codec, parameters, 32).encode(image)
    context = av.CodecContext.create(codec.stream, "r")
    packets = [*context.parse(encoded.data), *context.parse(b"")]
    frames = [frame for packet in [*packets, None] for frame in context.decode(packet)]
    assert [frame.format.name for frame in frames] == [f"yuv{chroma.replace(':', '')}p10le"]
    planes = [
        np.frombuffer(plane, "<u2").reshape(plane.height, -1)[:, : plane.width]
        for plane in frames[0].planes
    ]
    assert np.array_equal(from_planes(planes, 10), encoded.reconstruction)


def test_bpg_bits_are_those_of_bpgenc_on_all_cores(tmp_path: Path, image: RgbImage) -> None:
    programs = _programs(Bpg)
    Image.fromarray(image).save(tmp_path / "in.png")
    command = [*programs["bpgenc"].command, "-q", "30", "-f", "444", "-o", "out.bpg", "in.png"]
    subprocess.run(command, cwd=tmp_path, check=True)
    data = Bpg(BpgParameters(), 30, programs).encode(image).data
    assert data == (tmp_path / "out.bpg").read_bytes()
    command = [*programs["bpgdec"].command, "-o", "out.png", "out.bpg"]
    subprocess.run(command, cwd=tmp_path, check=True)
    decoded = Bpg(BpgParameters(), 30, programs).decode(data)
    assert np.array_equal(decoded, np.asarray(Image.open(tmp_path / "out.png")))


def test_vtm_bits_are_those_of_the_bare_command(tmp_path: Path, image: RgbImage) -> None:
    programs = _programs(Vtm)
    planes = rgb_to_ycbcr(image, "bt709", 8, "truncate")
    (tmp_path / "in.yuv").write_bytes(b"".join(plane.tobytes() for plane in planes))
    start = [*programs["vtm_encoder"].command, "-c", programs["vtm_config"].command[0]]
    command = [*start, *_BARE_VTM.split()]
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    parameters = VtmParameters(bit_depth=8, rounding="truncate")
    assert Vtm(parameters, 40, programs).encode(image).data == (tmp_path / "out.bin").read_bytes()


@pytest.mark.parametrize("threads", [2, 4])
def test_vvenc_bits_do_not_depend_on_threads(
    image: RgbImage, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    codec = _open(Vvenc, VvencParameters(preset="faster"), 32)
    one = codec.encode(image).data
    options = [str(threads) if word == "1" else word for word in Vvenc.options[:4]]
    monkeypatch.setattr(Vvenc, "options", (*options, *Vvenc.options[4:]))
    assert str(threads) in Vvenc.options
    assert codec.encode(image).data == one


@pytest.mark.parametrize(
    ("codec", "parameters", "options"),
    [
        (Vtm, VtmParameters(), ("-d", "0")),
        (Hm, HmParameters(), ("-d", "0")),
        (Vvenc, VvencParameters(preset="faster"), ("-v", "5")),
    ],
    ids=["vtm", "hm", "vvenc"],
)
def test_decoders_see_the_nominal_qp(
    tmp_path: Path, image: RgbImage, codec: type[Vtm], parameters: object, options: tuple[str, ...]
) -> None:
    codec = _open(codec, parameters, 37)
    (tmp_path / "in.bin").write_bytes(codec.encode(image).data)
    command = [*codec.programs[codec.decoder].command, "-b", "in.bin", "-o", "o.yuv", *options]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "I-SLICE, QP 37 )" in done.stdout and codec.describe().intra_qp == 37


# Damage


@pytest.mark.parametrize(("codec", "parameters"), _ALL, ids=_IDS)
def test_decoders_refuse_damaged_bitstreams(
    image: RgbImage, codec: type[ClassicalCodec], parameters: object
) -> None:
    codec = _open(codec, parameters, 32)
    data = codec.encode(image).data
    right = codec.decode(data)
    lengths = [len(data) - missing for missing in (1, 2, 3, 5, 10)]
    lengths += [len(data) * share // 10 for share in (1, 3, 5, 7, 9)]
    noise = np.random.default_rng(0).bytes(len(data))
    for damaged in [b"", noise, data[:8] + noise, *(data[:length] for length in lengths)]:
        try:
            decoded = codec.decode(damaged)
        except UserError as error:
            assert "damaged" in str(error) and "\n" not in str(error)
        else:  # only where nothing is missing that the image needs
            assert len(damaged) >= len(data) - 2 and np.array_equal(decoded, right)


def test_hm_refuses_changed_samples(image: RgbImage) -> None:
    codec = _open(Hm, HmParameters(), 32)
    data = codec.encode(image).data
    for place in np.linspace(len(data) // 3, len(data) - 30, 12, dtype=int):
        changed = bytearray(data)
        changed[place] ^= 0x10
        with pytest.raises(UserError, match="damaged"):
            codec.decode(bytes(changed))


# JPEG XL


def test_libjxls_programs_agree_with_the_package(tmp_path: Path, image: RgbImage) -> None:
    """Debian's libjxl is older than the package's: each decodes what the other codes."""
    if shutil.which("cjxl") is None or shutil.which("djxl") is None:
        pytest.skip("not on PATH: cjxl, djxl")
    Image.fromarray(image).save(tmp_path / "in.png")
    codec = JpegXl(JpegXlParameters(), 2)
    (tmp_path / "ours.jxl").write_bytes(codec.encode(image).data)
    for command in (
        ["cjxl", "in.png", "theirs.jxl", "--distance=2", "--container=0"],
        ["djxl", "theirs.jxl", "theirs.png"],
        ["djxl", "ours.jxl", "ours.png"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    sizes = [(tmp_path / f"{side}.jxl").stat().st_size for side in ("ours", "theirs")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.25)
    for side in ("ours", "theirs"):
        decoded = codec.decode((tmp_path / f"{side}.jxl").read_bytes()).astype(int)
        with Image.open(tmp_path / f"{side}.png") as opened:
            assert np.abs(decoded - np.asarray(opened.convert("RGB"))).max() <= 1
