"""Codecs from the command line, by scripts: their files are those that the commands write."""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import yaml
from PIL import Image

from icmbench.codecs.classical.colour import (
    from_planes,
    join_planes,
    split_planes,
    to_planes,
)
from icmbench.codecs.classical.command import CommandCodec
from icmbench.codecs.classical.command_entry import CommandParameters, command_lines
from icmbench.data.synthetic.scenes import make_scene
from icmbench.errors import UserError
from icmbench.metrics.image_quality import psnr
from icmbench.utils.programs import find_program

RECIPES = Path(__file__).parents[3] / "docs" / "command-codecs.md"
# Quantises samples of a PPM file to multiples of the rate, and packs them.
ENCODER = """
import sys, zlib
source, target, step = sys.argv[1:]
data = open(source, "rb").read()
start = data.index(b"255\\n") + 4
samples = bytes(value // int(step) for value in data[start:])
open(target, "wb").write(bytes([int(step)]) + zlib.compress(data[:start] + samples))
"""
DECODER = """
import sys, zlib
source, target = sys.argv[1:]
data = open(source, "rb").read()
step, data = data[0], zlib.decompress(data[1:])
start = data.index(b"255\\n") + 4
open(target, "wb").write(data[:start] + bytes(value * step for value in data[start:]))
"""
COPY = {"encode": "cp {input} {output} -u --suffix={rate}", "decode": "cp {input} {output}"}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return make_scene(np.random.default_rng(3), 128).image[:40, :60]


@pytest.fixture
def scripts(tmp_path: Path) -> dict[str, Any]:
    """The settings of a codec that is two Python scripts."""
    for name, text in (("enc.py", ENCODER), ("dec.py", DECODER)):
        (tmp_path / name).write_text(text)
    python = f"{sys.executable} -I -S"
    return {
        "encode": f"{python} {tmp_path}/enc.py {{input}} {{output}} {{rate}}",
        "decode": f"{python} {tmp_path}/dec.py {{input}} {{output}}",
        "version": "echo my codec, version 1.5-rc2",
        "format": "ppm",
    }


def make(rate: float | None, /, **settings: Any) -> CommandCodec:
    settings = {"rate": "step", "lower_rate": "larger", **settings}
    parameters = CommandParameters.model_validate(settings)
    lines = command_lines("mine", parameters)
    programs = {key: find_program(key, dict(lines)) for key in lines}
    assert all(programs.values())
    return CommandCodec(parameters, rate, programs)


def fault(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- bits and samples ----------------------------------------------------------------------------


def test_the_rate_is_the_file_that_the_command_writes(
    scripts: dict[str, Any], image: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(image).save(tmp_path / "by_hand.ppm")
    python = [sys.executable, "-I"]
    hand = [*python, tmp_path / "enc.py", tmp_path / "by_hand.ppm", tmp_path / "coded", "24"]
    subprocess.run(hand, check=True)
    hand = [*python, tmp_path / "dec.py", tmp_path / "coded", tmp_path / "decoded.ppm"]
    subprocess.run(hand, check=True)
    codec = make(24, **scripts)
    encoded = codec.encode(image)
    assert encoded.data == (tmp_path / "coded").read_bytes()
    assert encoded.bits == 8 * (tmp_path / "coded").stat().st_size
    assert encoded.reconstruction is None and encoded.pixels_coded == 40 * 60
    with Image.open(tmp_path / "decoded.ppm") as by_hand:
        assert np.array_equal(codec.decode(encoded.data), np.asarray(by_hand))


def test_a_png_has_the_samples(image: np.ndarray, tmp_path: Path) -> None:
    keep = f'sh -c \'cp "$1" {tmp_path}/kept.png && cp "$1" "$2"\' -- {{input}} {{output}} {{rate}}'
    codec = make(1, encode=keep, decode="cp {input} {output}")
    data = codec.encode(image).data
    with Image.open(tmp_path / "kept.png") as kept:
        assert kept.mode == "RGB" and np.array_equal(np.asarray(kept), image)
    assert np.array_equal(codec.decode(data), image)


@pytest.mark.parametrize(
    ("form", "depth", "samples"),
    [("yuv444", 8, 3), ("yuv444", 10, 6), ("yuv420", 8, 1.5), ("yuv420", 10, 3), ("yuv444", 16, 6)],
)
def test_raw_planes_go_in_and_out(image: np.ndarray, form: str, depth: int, samples: float) -> None:
    codec = make(1, format=form, bit_depth=depth, **COPY)
    encoded = codec.encode(image)
    chroma = f"4:{form[4]}:{form[5]}"
    planes = to_planes(image, chroma, depth)
    assert encoded.data == b"\x3b\x27" + join_planes(planes)  # 60 and 40 less one, 7 bits each
    assert encoded.bits == 8 * 40 * 60 * samples  # the size is known to a decoder that does not ask
    assert np.array_equal(codec.decode(encoded.data), from_planes(planes, depth))


def test_white_is_full_range() -> None:
    white = np.full((2, 2, 3), 255, np.uint8)
    data = make(1, format="yuv420", bit_depth=10, **COPY).encode(white).data
    # Rec. ITU-T H.273, full range: the highest luma and half the range in chroma.
    assert np.frombuffer(data[2:], "<u2").tolist() == [1023] * 4 + [512] * 2


def test_odd_sides_of_420_cost_a_byte(image: np.ndarray) -> None:
    codec = make(1, format="yuv420", **COPY)
    odd = image[:39, :59]
    encoded = codec.encode(odd)
    assert encoded.bits == 8 * (40 * 60 * 3 // 2 + 1) and encoded.pixels_coded == 40 * 60
    assert codec.decode(encoded.data).shape == odd.shape
    even = np.pad(odd, ((0, 1), (0, 1), (0, 0)), "edge")
    assert encoded.data[2:] == codec.encode(even).data[2:]


def test_a_size_that_the_decoder_asks_for_counts(image: np.ndarray, tmp_path: Path) -> None:
    note = f'sh -c \'echo $3 $4 > {tmp_path}/size; cp "$1" "$2"\' -- {{input}} {{output}}'
    asks = {**COPY, "decode": f"{note} {{width}} {{height}}"}
    codec = make(1, format="ppm", **asks)
    data = codec.encode(image).data
    assert data[:2] == b"\x3b\x27" and codec.encode(image).bits == 8 * len(data)
    assert np.array_equal(codec.decode(data), image)
    assert (tmp_path / "size").read_text() == "60 40\n"


def test_placeholders_are_filled(image: np.ndarray, tmp_path: Path) -> None:
    note = (
        f"sh -c 'echo $* ${{HOME}} > {tmp_path}/noted; pwd >> {tmp_path}/noted; cp $1 $2' -- "
        "{input} {output} --q={rate} {width}x{height} {folder}"
    )
    settings = {"encode": note, "decode": "cp {input} {output}", "extension": "jxl"}
    for rate, shown in ((2.0, "2"), (0.125, "0.125"), (1e6, "1000000")):
        make(rate, **settings).encode(image)
        words, folder = (tmp_path / "noted").read_text().splitlines()
        source, target, quality, size, own, _ = words.split()
        assert (quality, size, own) == (f"--q={shown}", "60x40", folder)
        assert (source, target) == (f"{folder}/in.png", f"{folder}/out.jxl")
        assert not Path(folder).exists()


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encode", "words"),
    [
        ("sh -c 'echo row 1 >&2; echo out of luck >&2; exit 3' {input} {output} {rate}",
         ["mine encoder, step 7", "exit code 3: row 1 out of luck"]),
        ("sh -c 'echo wrong option; : $*' {input} {output} {rate}",
         ["no file out.bin", "command_codecs.mine.encode", "wrong option"]),
        ("sh -c ': $*' {input} {output} {rate}", ["no file out.bin", "printed: nothing"]),
        ("sh -c ': > $1' {input} {output} {rate}", ["0 bytes as out.bin"]),
        ("sh -c 'sleep 30' {input} {output} {rate}", ["longer than 0.3 s", "time_limit_s"]),
    ],
)  # fmt: skip
def test_a_failing_encoder_is_one_line(image: np.ndarray, encode: str, words: list[str]) -> None:
    limit = 0.3 if "sleep" in encode else 20.0
    codec = make(7, encode=encode, decode="cp {input} {output}", time_limit_s=limit)
    text = fault(lambda: codec.encode(image))
    assert all(word in text for word in words), text


def png(mode: str, size: tuple[int, int] = (4, 3)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "written", "words"),
    [
        ("png", png("RGBA"), ["PNG", "8-bit RGB", "command_codecs.mine.decode"]),
        ("png", png("I;16"), ["8-bit RGB"]),
        ("png", png("RGB")[:45], ["damaged", "PNG"]),
        ("png", b"no image", ["damaged", "PNG"]),
        ("ppm", b"P6\n# by hand\n4 3 65535\n" + bytes(72), ["PPM", "8-bit RGB"]),
        ("ppm", b"P6 4 3 255 " + bytes(20), ["damaged", "PPM"]),
    ],
)
def test_a_decoder_that_writes_something_else_is_one_line(
    tmp_path: Path, form: str, written: bytes, words: list[str]
) -> None:
    (tmp_path / "written").write_bytes(written)
    decode = f"sh -c 'cp {tmp_path}/written $1' {{input}} {{output}}"
    codec = make(7, encode=COPY["encode"], decode=decode, format=form)
    text = fault(lambda: codec.decode(b"data"))
    assert all(word in text for word in words), text


@pytest.mark.parametrize(("mode", "form"), [("L", "png"), ("P", "png"), ("L", "ppm")])
def test_a_decoder_may_write_grey_or_a_palette(tmp_path: Path, mode: str, form: str) -> None:
    Image.new(mode, (4, 3), 7).save(tmp_path / f"written.{form}")
    decode = f"sh -c 'cp {tmp_path}/written.{form} $1' {{input}} {{output}}"
    decoded = make(7, encode=COPY["encode"], decode=decode, format=form).decode(b"data")
    assert decoded.shape == (3, 4, 3)
    assert mode == "P" or (decoded == 7).all()


def test_raw_planes_of_another_size_or_depth_are_refused(image: np.ndarray) -> None:
    codec = make(1, format="yuv444", bit_depth=10, **COPY)
    data = codec.encode(image).data
    assert "14400 bytes" in fault(lambda: codec.decode(data[:-2]))
    assert "bit_depth" in fault(lambda: codec.decode(data[:-1] + b"\xff"))
    assert "ends inside" in fault(lambda: codec.decode(b""))


@pytest.mark.parametrize("rate", [None, 0.5, 26, float("nan"), float("inf")])
def test_rates_outside_the_range_are_refused(rate: float | None) -> None:
    text = fault(lambda: make(rate, rate_range=[1, 25], **COPY))
    assert "mine step" in text and "1 to 25" in text


# --- versions and identity -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "version"),
    [
        ("printf 'cjxl v0.7.0 [AVX3,AVX2]\\nCopyright 2022'", "0.7.0"),
        ("echo 1.2.4", "1.2.4"),
        ("echo ffmpeg version 5.1.9-0+deb12u1 Copyright 2000-2026", "5.1.9-0+deb12u1"),
        ("echo abc1234-dirty", "abc1234-dirty"),
        ("sh -c 'echo tool 2.0 >&2; exit 1'", "2.0"),
    ],
)
def test_a_version_is_what_its_command_prints(command: str, version: str) -> None:
    assert make(1, version=command, **COPY).describe().version == version


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("true", ["`", "true`", "prints no version"]),
        ("sh -c 'echo unknown option >&2; exit 2'", ["exit code 2: unknown option"]),
    ],
)
def test_a_command_without_a_version_is_one_line(command: str, words: list[str]) -> None:
    text = fault(make(1, version=command, **COPY).describe)
    assert all(word in text for word in [*words, "command_codecs.mine.version"]), text


def test_identity_has_commands_and_checksums(scripts: dict[str, Any], tmp_path: Path) -> None:
    described = make(24, **scripts).describe()
    assert described.version == "1.5-rc2" and set(described.digests) == {"encoder", "decoder"}
    assert described.digests["encoder"] != described.digests["decoder"]
    assert described.settings["step"] == 24 and described.settings["encode"] == scripts["encode"]
    others = [
        make(25, **scripts).describe(),
        make(24, **{**scripts, "encode": f"{scripts['encode']} "}).describe(),
        make(24, **{**scripts, "format": "png"}).describe(),
        make(24, **{**scripts, "version": None}).describe(),
    ]
    (tmp_path / "dec.py").write_text(f"{DECODER}\n# changed")
    others.append(make(24, **scripts).describe())
    assert all(other.identity() != described.identity() for other in others)
    limited = make(24, **scripts | {"time_limit_s": 5.0}).describe()
    assert limited.identity() == others[-1].identity()


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encode": "enc {input} {output}"}, "{rate} is missing"),
        ({"encode": "enc {input} {output} {qp}"}, "{qp} is not a placeholder.*{rate}"),
        ({"encode": "enc '{input} {output} {rate}"}, "quot"),
        ({"encode": " "}, "empty"),
        ({"decode": "dec {input} {output} {rate}"}, "{rate} is not a placeholder"),
        ({"decode": "dec {input} > out.png"}, "{output} is missing"),
        ({"version": "enc {input}"}, "{input} is not a placeholder"),
        ({"format": "png", "bit_depth": 10}, "8 bits"),
        ({"format": "yuv422"}, "yuv444"),
        ({"rate_range": [5, 5]}, "smallest"),
        ({"rate": "a/b"}, "letters"),
        ({"extension": "../x"}, "pattern"),
        ({"lower_rate": "up"}, "smaller"),
    ],
)
def test_settings_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{", r"\{").replace("}", r"\}")):
        make(1, **COPY | change)


# --- real programs -------------------------------------------------------------------------------


def recipes() -> dict[str, dict[str, Any]]:
    blocks = RECIPES.read_text().split("```yaml\n")[1:]
    found = [yaml.safe_load(block.split("```")[0])["command_codecs"] for block in blocks]
    return {name: settings for block in found for name, settings in block.items()}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where FFmpeg is not installed, the one of a package is found under its name."""
    if shutil.which("ffmpeg") is None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("name", sorted(recipes()))
def test_recipes_of_the_documentation(name: str, tmp_path: Path) -> None:
    settings = recipes()[name]
    parameters = CommandParameters.model_validate(settings)
    for line in command_lines(name, parameters).values():
        words = shlex.split(line)
        program = words[3] if words[0] == "env" else words[0]
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    scene = make_scene(np.random.default_rng(5), 128).image[:97, :111]
    rates = {"distance": (8, 1), "quality": (10, 80), "qp": (42, 25), "crf": (50, 20)}
    low, high = rates[parameters.rate]
    coded = []
    for rate in (low, high):
        codec = make(rate, **settings)
        data = codec.encode(scene)
        coded.append((data.bits, psnr(scene, codec.decode(data.data))))
    assert coded[0][0] < coded[1][0] and 20 < coded[0][1] < coded[1][1]
    assert any(letter.isdigit() for letter in codec.describe().version)


@pytest.mark.usefixtures("programs")
def test_ffmpeg_by_hand_writes_the_same_file(tmp_path: Path) -> None:
    scene = make_scene(np.random.default_rng(5), 128).image[:96, :112]
    codec = make(32, **recipes()["ffmpeg-hevc-420"])
    encoded = codec.encode(scene)
    raw = tmp_path / "raw.yuv"
    raw.write_bytes(b"".join(plane.tobytes() for plane in to_planes(scene, "4:2:0", 8)))
    raw_video = "-f rawvideo -pix_fmt yuv420p"
    x265 = "qp=32:ipratio=1:keyint=1:info=0:log-level=none:pools=none:frame-threads=1"
    for line in (
        f"ffmpeg {raw_video} -s 112x96 -i {raw} -c:v libx265 -preset medium -x265-params {x265} "
        f"-f hevc {tmp_path}/out.hevc",
        f"ffmpeg -f hevc -i {tmp_path}/out.hevc {raw_video} {tmp_path}/out.yuv",
    ):
        subprocess.run(shlex.split(line), check=True, capture_output=True)
    data = (tmp_path / "out.hevc").read_bytes()
    assert encoded.data[2:] == data and encoded.bits == 8 * len(data)
    planes = split_planes((tmp_path / "out.yuv").read_bytes(), 96, 112, "4:2:0", 8)
    assert np.array_equal(codec.decode(encoded.data), from_planes(planes, 8))


@pytest.mark.skipif(shutil.which("cwebp") is None, reason="cwebp is not installed")
def test_cwebp_by_hand_writes_the_same_file(tmp_path: Path) -> None:
    scene = make_scene(np.random.default_rng(5), 128).image
    Image.fromarray(scene).save(tmp_path / "in.png")
    encoded = make(40, **recipes()["cwebp"]).encode(scene)
    for line in ("cwebp -m 6 -q 40 in.png -o out.webp", "dwebp out.webp -ppm -o out.ppm"):
        subprocess.run(shlex.split(line), cwd=tmp_path, check=True, capture_output=True)
    assert encoded.data == (tmp_path / "out.webp").read_bytes()
    with Image.open(tmp_path / "out.ppm") as decoded:
        again = make(40, **recipes()["cwebp"]).decode(encoded.data)
        assert np.array_equal(again, np.asarray(decoded))
