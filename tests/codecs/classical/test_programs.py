"""External programs, by fakes: their arguments, and every way in which they fail."""

from __future__ import annotations

import io
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from icmbench.codecs.classical.bpg import Bpg
from icmbench.codecs.classical.entries import (
    BpgParameters,
    HmParameters,
    VtmParameters,
    VvencParameters,
)
from icmbench.codecs.classical.raw_video import Hm, Vtm, Vvenc, stream_size
from icmbench.codecs.classical.run import program_version, read_output, run_program, workspace
from icmbench.data.synthetic.scenes import make_scene
from icmbench.errors import UserError
from icmbench.utils.programs import Program

Fake = Callable[[str, str], Program]

# In a fake, the words after these options.
_OPTIONS = """
words="$*"
while [ $# -gt 0 ]; do
  case "$1" in
    -i) in="$2";; -o) out="$2";; -b) bits="$2";;
  esac
  last="$1"; shift
done
"""
# As the manuals have it; what is not the same for every image is left open.
_BPGENC = "-o {t}/out.bpg -q 37 -f 420 -e jctvc -c rgb -b 10 -m 9 {t}/in.png"
_VTM = (
    "-c {t}/vtm_config -i {t}/in.yuv -b {t}/out.bin -o {t}/recon.yuv -q 37 -wdt 6 -hgt 4 -fr 1 "
    "-f 1 --InputChromaFormat=444 --InputBitDepth=10 --OutputBitDepth=10 --OutputBitDepthC=10 "
    "--ConformanceWindowMode=1"
)
_HM = (
    "-c {t}/hm_config -i {t}/in.yuv -b {t}/out.bin -o {t}/recon.yuv -q 37 -wdt 6 -hgt 4 -fr 1 "
    "-f 1 --InputChromaFormat=420 --InputBitDepth=8 --OutputBitDepth=8 --OutputBitDepthC=8 "
    "--SEIDecodedPictureHash --Level=5.1 --ConformanceMode=1"
)
_VVENC = (
    "--preset slow -q 37 -s 6x4 -r 1 --frames 1 -i {t}/in.yuv -o {t}/out.bin "
    "--qpa 0 -t 1 -ip 1 -c yuv420_10 --additional IntraQPOffset=0"
)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory of the test's own, which must hold no folder afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert [path for path in folder.iterdir() if path.is_dir()] == []


@pytest.fixture
def fake(tmp_path: Path, temporary: Path) -> Fake:
    """Return a function that makes a program of a name and of lines of shell."""

    def make(name: str, lines: str) -> Program:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        return Program(name=name, command=(str(path),))

    return make


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return make_scene(np.random.default_rng(3), 128).image[:48, :80]


def _run(program: Program, cwd: Path, *words: str, limit: float = 20.0) -> str:
    return run_program([*program.command, *words], what="fake", time_limit_s=limit, cwd=cwd)


def _fault(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def _alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    status = Path(f"/proc/{pid}/status")
    try:
        os.kill(pid, 0)
        return not (status.is_file() and "\nState:\tZ" in status.read_text())
    except OSError:
        return False


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not _alive(pid)


# --- arguments ------------------------------------------------------------------------------------


def _noted(tmp_path: Path) -> str:
    """Return the arguments that a fake noted, without the name of its temporary folder."""
    words = (tmp_path / "noted").read_text().strip()
    return re.sub(rf"{tmp_path}(/temporary/icmbench-\w+)?", "{t}", words)


def test_bpg_passes_every_setting_and_the_image(
    fake: Fake, tmp_path: Path, image: np.ndarray
) -> None:
    note = f'{_OPTIONS} echo "$words" > {tmp_path}/noted; cp "$last" "$out"'
    parameters = BpgParameters(
        chroma="4:2:0", encoder="jctvc", colour_space="rgb", bit_depth=10, level=9
    )
    encoded = Bpg(parameters, 37, {"bpgenc": fake("bpgenc", note)}).encode(image)
    assert _noted(tmp_path) == _BPGENC
    with Image.open(io.BytesIO(encoded.data)) as opened:
        assert opened.format == "PNG" and np.array_equal(np.asarray(opened), image)
    assert encoded.reconstruction is None and encoded.pixels_coded == 48 * 80


def test_bpg_pads_narrow_images(fake: Fake, image: np.ndarray) -> None:
    encoder = fake("bpgenc", f'{_OPTIONS} cp "$last" "$out"')
    encoded = Bpg(BpgParameters(), 37, {"bpgenc": encoder}).encode(image[:40, :20])
    assert encoded.data[:3] == bytes([0x84, 0, 5])
    with Image.open(io.BytesIO(encoded.data[3:])) as image:
        assert image.size == (25, 40)


@pytest.mark.parametrize(
    ("codec", "parameters", "expected"),
    [
        (Vtm, VtmParameters(), _VTM),
        (Hm, HmParameters(chroma="4:2:0", bit_depth=8), _HM),
        (Vvenc, VvencParameters(preset="slow"), _VVENC),
    ],
    ids=["vtm", "hm", "vvenc"],
)
def test_raw_video_codecs_pass_every_setting(
    fake: Fake, tmp_path: Path, codec: type, parameters: object, expected: str
) -> None:
    write = 'if [ "$bits" ]; then cp "$in" "$bits"; fi; cp "$in" "$out"'
    encoder = fake("encoder", f'{_OPTIONS} echo "$words" > {tmp_path}/noted; {write}')
    programs = {codec.encoder: encoder}
    for name in ("vtm_config", "hm_config"):
        programs[name] = Program(name=name, command=(str(tmp_path / name),))
    white = np.full((4, 6, 3), 255, np.uint8)
    encoded = codec(parameters, 37, programs).encode(white)
    assert _noted(tmp_path) == expected
    # ITU-T H.273, full range: white is the highest luma and half the range in chroma.
    luma, chroma, order = (255, 128, "u1") if codec is Hm else (1023, 512, "<u2")
    half = 24 if codec is Vtm else 6
    assert np.array_equal(np.frombuffer(encoded.data, order), [luma] * 24 + [chroma] * 2 * half)
    assert codec is Vvenc or np.array_equal(encoded.reconstruction, white)
    assert encoded.pixels_coded == 64


def test_vvenc_averages_chroma_over_four_samples(fake: Fake) -> None:
    image = np.full((2, 2, 3), 255, np.uint8)
    image[0, 1] = (0, 0, 255)
    encoder = fake("vvencapp", f'{_OPTIONS} cp "$in" "$out"')
    data = Vvenc(VvencParameters(), 37, {"vvencapp": encoder}).encode(image).data
    # BT.709, 10 bit: blue is (74, 1023, 465) and white (1023, 512, 512)
    assert np.frombuffer(data, "<u2").tolist() == [1023, 74, 1023, 1023, 640, 500]


def test_bpg_runs_a_program_through_a_wrapper(
    fake: Fake, tmp_path: Path, image: np.ndarray
) -> None:
    real = fake("bpgenc", f'{_OPTIONS} echo "$WRAPPED" > {tmp_path}/wrapped; cp "$last" "$out"')
    words = ("/usr/bin/env", "WRAPPED=by env", *real.command)
    program = Program(name="bpgenc", command=words)
    Bpg(BpgParameters(), 37, {"bpgenc": program}).encode(image)
    assert (tmp_path / "wrapped").read_text() == "by env\n"


def test_run_program_gives_no_input(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"typed")
    own = os.dup(0)
    try:
        with (tmp_path / "input").open("rb") as stream:
            os.dup2(stream.fileno(), 0)
            assert _run(fake("reader", "wc -c"), tmp_path).split() == ["0"]
    finally:
        os.dup2(own, 0)
        os.close(own)


def test_run_program_keeps_long_output_in_part(fake: Fake, tmp_path: Path) -> None:
    lines = "echo banner; yes nothing | head -c 3000000; echo end"
    said = _run(fake("talker", lines), tmp_path)
    assert said.startswith("banner\n") and said.endswith("end\n") and len(said) <= 1 << 16


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("echo out; echo 'no  such' >&2; echo row >&2; exit 3", "code 3: no such row;"),
        ("yes long | head -9999; exit 1", f"code 1: {'long ' * 59}long;"),  # 300 characters
        ("exit 1", "code 1"),
    ],
)
def test_run_program_quotes_the_end_of_the_messages(
    fake: Fake, tmp_path: Path, lines: str, message: str
) -> None:
    text = _fault(lambda: _run(fake("failing", lines), tmp_path))
    assert f"`{tmp_path}/failing`" in text and message in text


def test_run_program_names_a_signal(fake: Fake, tmp_path: Path) -> None:
    text = _fault(lambda: _run(fake("crashing", "kill -SEGV $$"), tmp_path))
    assert "SIGSEGV" in text


def test_run_program_kills_a_late_program_with_its_children(fake: Fake, tmp_path: Path) -> None:
    hang = f"sleep 60 & echo $! > {tmp_path}/child; wait"
    inner = fake("inner", hang)
    outer = fake("outer", f"{inner.command[0]}; true")
    start = time.monotonic()
    text = _fault(lambda: _run(outer, tmp_path, limit=1))
    assert time.monotonic() - start < 5
    assert "time_limit_s" in text
    assert _gone(int((tmp_path / "child").read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_kills_the_program_and_removes_its_files(
    fake: Fake, tmp_path: Path, temporary: Path, number: signal.Signals
) -> None:
    hang = fake(
        "hanging",
        f"echo $$ > {tmp_path}/child.new; mv {tmp_path}/child.new {tmp_path}/child; sleep 60",
    )
    code = (
        "from icmbench.codecs.classical.run import run_program, workspace\n"
        "with workspace() as folder:\n"
        f"    run_program([{hang.command[0]!r}], what='fake', time_limit_s=60, cwd=folder)\n"
    )
    job = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.DEVNULL,
    )
    child = tmp_path / "child"
    deadline = time.monotonic() + 20
    while not child.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    job.send_signal(number)
    assert job.wait(10) != 0
    assert _gone(int(child.read_text()))


def test_bpg_reports_a_missing_program(fake: Fake, tmp_path: Path, image: np.ndarray) -> None:
    program = fake("bpgenc", "true")
    Path(program.command[0]).unlink()
    codec = Bpg(BpgParameters(), 37, {"bpgenc": program})
    text = _fault(lambda: codec.encode(image))
    assert "bpgenc, qp 37" in text and "cannot start (No such file or directory)" in text
    assert codec.describe().version == "unknown version"


def test_run_program_reports_a_program_without_permission(fake: Fake, tmp_path: Path) -> None:
    program = fake("plain", "true")
    Path(program.command[0]).chmod(0o644)
    assert "cannot start (Permission denied)" in _fault(lambda: _run(program, tmp_path))


@pytest.mark.parametrize(
    ("writes", "expected"),
    [
        ("true", "no file out.bin"),
        (': > "$bits"', "0 bytes as out.bin"),
        ('cp "$in" "$bits"', "no file recon.yuv, expected 23040 bytes"),
        ('cp "$in" "$bits"; head -c 11520 "$in" > "$out"', "11520 bytes as recon.yuv"),
    ],
)
def test_vtm_reports_missing_output(
    fake: Fake, image: np.ndarray, writes: str, expected: str
) -> None:
    program = fake("encoder", _OPTIONS + writes)
    programs = {"vtm_encoder": program, "vtm_config": program}
    text = _fault(lambda: Vtm(VtmParameters(), 40, programs).encode(image))
    assert text.startswith("VTM encoder, qp 40: ") and expected in text


def test_read_output_takes_any_size_but_none(tmp_path: Path) -> None:
    path = tmp_path / "some"
    path.write_bytes(b"abc")
    assert read_output(path, "fake") == read_output(path, "fake", 3) == b"abc"


def test_workspace_reports_a_full_disk(fake: Fake, temporary: Path, image: np.ndarray) -> None:
    codec = Bpg(BpgParameters(), 37, {"bpgenc": fake("bpgenc", "true")})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # the image needs 11520 bytes
    try:
        text = _fault(lambda: codec.encode(image))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert text.startswith(f"{temporary}: ") and "File too large" in text


def test_workspace_reports_a_missing_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(UserError, match="set TMPDIR"), workspace():
        pass


def test_workspace_is_removed_after_a_failure(temporary: Path) -> None:
    with pytest.raises(ZeroDivisionError), workspace() as folder:
        (folder / "file").write_bytes(b"x")
        raise ZeroDivisionError


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores, and a system that can choose one",
)
def test_run_program_keeps_a_program_on_one_core(fake: Fake, tmp_path: Path) -> None:
    command = fake("core", "grep Cpus_allowed_list /proc/self/status").command
    before = os.sched_getaffinity(0)
    output = run_program(command, what="fake", time_limit_s=20, cwd=tmp_path, one_core=True)
    assert int(output.split()[1]) in before
    assert os.sched_getaffinity(0) == before


# --- versions and identity ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ("echo 'BPG Image Encoder version 0.9.8'; exit 1", "0.9.8"),
        ("echo; echo 'VVCSoftware: VTM Encoder Version 23.13 [Linux][GCC 12.2.0]'", "23.13"),
        ("echo 'HM software: Encoder Version [16.7_SCM5.4] (including RExt)'", "16.7_SCM5.4"),
        ("echo 'vvencapp version 1.14.0' >&2", "1.14.0"),
        ("echo Usage", "unknown version"),
        ("kill -SEGV $$", "unknown version"),
    ],
)
def test_program_version_is_read_once_from_the_banner(
    fake: Fake, tmp_path: Path, banner: str, version: str
) -> None:
    program = fake("banner", f"echo run >> {tmp_path}/runs; {banner}")
    assert program_version(program.command) == version
    assert program_version(program.command) == version
    assert (tmp_path / "runs").read_text() == "run\n"


def test_bpg_reports_the_qp_of_intra_images(fake: Fake) -> None:
    encoder = fake("bpgenc", "echo version 0.9.8")
    programs = {
        "bpgenc": encoder,
        "bpgdec": Program(name="bpgdec", command=("bpgdec",), digest="12ab"),
    }
    described = [
        Bpg(BpgParameters(encoder=name), 37, programs).describe() for name in ("x265", "jctvc")
    ]
    assert [each.intra_qp for each in described] == [34, 37]
    assert described[0].digests == {"bpgdec": "12ab"}
    assert described[0].identity() != described[1].identity()


@pytest.mark.parametrize(
    ("codec", "parameters", "highest"),
    [
        (Bpg, BpgParameters(), 51),
        (Hm, HmParameters(), 51),
        (Vtm, VtmParameters(), 63),
        (Vvenc, VvencParameters(), 63),
    ],
)
def test_programs_refuse_other_qps(codec: type, parameters: object, highest: int) -> None:
    for rate in (None, -1, highest + 1, 36.5):
        assert f"0 to {highest}" in _fault(lambda rate=rate: codec(parameters, rate))


# --- decoders -------------------------------------------------------------------------------------


def _hevc(height: int, width: int) -> bytes:
    """A real HEVC 4:4:4 stream, by another encoder."""
    context = av.CodecContext.create("libx265", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv444p"
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    context.options = {"preset": "ultrafast", "x265-params": "keyint=1:log-level=none:pools=none"}
    frame = av.VideoFrame.from_ndarray(np.full((3, height, width), 90, np.uint8), "yuv444p")
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


@pytest.mark.parametrize("shape", [(64, 96), (51, 37)])
def test_stream_size_reads_the_headers(shape: tuple[int, int]) -> None:
    assert stream_size(_hevc(*shape), "hevc") == shape


@pytest.mark.parametrize("data", [b"", b"\x81", b"\0\0\0\1", np.random.default_rng(0).bytes(500)])
def test_decoders_are_not_started_without_an_image(fake: Fake, data: bytes) -> None:
    for codec, parameters in (
        (Vtm, VtmParameters()),
        (Hm, HmParameters()),
        (Vvenc, VvencParameters()),
    ):
        assert "damaged" in _fault(lambda c=codec, p=parameters: c(p, 37, {}).decode(data))


_GREY = 'head -c 18432 /dev/zero > "$out"'  # 96 x 64 samples of 8 bits, 3 planes


@pytest.mark.parametrize(
    ("decoder", "expected"),
    [
        (f"{_GREY}; echo '[MD5:0123,(OK)]'", None),
        (f"{_GREY}; echo '[:,(unk)]'", "MD5"),
        (f"{_GREY}; echo '***ERROR*** mismatch'; exit 1", "exit code 1: \\*\\*\\*ERROR"),
        ("echo '(OK)'", "no file out.yuv.*damaged"),
        (f"{_GREY}; echo >> $out; echo '(OK)'", "18433 bytes as out.yuv"),
    ],
)
def test_hm_refuses_damaged_images(fake: Fake, decoder: str, expected: str | None) -> None:
    codec = Hm(HmParameters(bit_depth=8), 37, {"hm_decoder": fake("dec", _OPTIONS + decoder)})
    stream = _hevc(64, 96)
    if expected is None:
        assert codec.decode(stream).shape == (64, 96, 3)
    else:
        assert re.search(expected, _fault(lambda: codec.decode(stream)))


_PPM = 'printf "P6 2 1 255 abcdef" > "$out"'


def test_bpg_returns_the_samples_of_the_ppm(fake: Fake) -> None:
    codec = Bpg(BpgParameters(), 37, {"bpgdec": fake("bpgdec", _OPTIONS + _PPM)})
    assert codec.decode(b"BPG\xfb").tobytes() == b"abcdef"


@pytest.mark.parametrize(
    ("decoder", "expected"),
    [
        ('echo "Could not decode image" >&2; exit 1', "damaged"),
        ("true", "no file out.ppm"),
        ('printf "P6 2 1 255 abc" > "$out"', "incomplete image"),
        ('printf "no image" > "$out"', "incomplete image"),
        # as bpgdec does: where samples are missing, what follows them changes the image
        ('(printf "P6 2 1 255 abcde"; tail -c 1 "$last") > "$out"', "its end is missing"),
    ],
)
def test_bpg_refuses_damaged_files(fake: Fake, decoder: str, expected: str) -> None:
    codec = Bpg(BpgParameters(), 37, {"bpgdec": fake("bpgdec", _OPTIONS + decoder)})
    assert expected in _fault(lambda: codec.decode(b"BPG\xfb"))
