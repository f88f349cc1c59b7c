"""Cost of coding with classical codecs, compared with compressai.utils.bench.

    python benchmarks/classical_codecs.py KODAK            # everything whose programs are found
    python benchmarks/classical_codecs.py KODAK --only jpeg bpg --alternations 5

Each figure is the median over alternations of both tools in one run, in CPU seconds of the whole
process tree with its start, so that a busy machine has little influence; only the gain of a second
process is wall time. "Programs" are the same encoders and decoders, called directly on the same
images.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

JPEG = [str(q) for q in range(5, 100, 5)]
BPG = ["42", "37", "32", "27"]
VTM = ["47", "42"]
# Of Kodak, the images that VTM codes fastest, so that five alternations take minutes.
VTM_IMAGES = ("kodim04.png", "kodim23.png")


class Cost:
    """CPU and wall seconds of one run of a tool, and the curve it printed."""

    def __init__(self, command: list[str]) -> None:
        before, start = _children_cpu(), time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.wall = time.monotonic() - start
        self.cpu = _children_cpu() - before
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}\n{done.stderr}")
        self.curve = json.loads(done.stdout)["results"] if done.stdout.startswith("{") else {}


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def ours(codec: str, folder: Path, rates: list[str], jobs: int = 1, *more: str) -> Cost:
    """Run `icmbench rd`."""
    command = [sys.executable, "-m", "icmbench", "rd", codec, str(folder), *rates]
    return Cost([*command, "--jobs", str(jobs), *more])


def peer(codec: str, folder: Path, rates: list[str], jobs: int = 1, *more: str) -> Cost:
    """Run compressai.utils.bench with the same metric."""
    command = [sys.executable, "-m", "compressai.utils.bench", codec, str(folder)]
    command += ["-q", ",".join(rates), "-j", str(jobs), "--metrics", "psnr-rgb", *more]
    return Cost(command)


def programs(commands: Callable[[Path, Path, str], list[list[str]]], folder: Path,
             rates: list[str]) -> float:  # fmt: skip
    """Return the CPU seconds of an encoder and a decoder called directly."""
    total = 0.0
    with tempfile.TemporaryDirectory() as name:
        for path in sorted(folder.iterdir()):
            for rate in rates:
                for command in commands(path, Path(name), rate):
                    before = _children_cpu()
                    subprocess.run(command, capture_output=True, check=True)
                    total += _children_cpu() - before
    return total


def _bpg(path: Path, folder: Path, rate: str) -> list[list[str]]:
    stream, image = folder / "o.bpg", folder / "o.ppm"
    return [
        ["bpgenc", "-o", str(stream), "-q", rate, "-f", "444", "-e", "x265", str(path)],
        ["bpgdec", "-o", str(image), str(stream)],
    ]


def _subset(folder: Path, target: Path, names: list[str]) -> Path:
    target.mkdir()
    for name in names:
        shutil.copy(folder / name, target)
    return target


def _row(what: str, values: list[float], target: str) -> None:
    low, high = min(values), max(values)
    print(f"| {what} | {statistics.median(values):.2f} ({low:.2f} to {high:.2f}) | {target} |")


def _same_rates(mine: Cost, theirs: Cost, what: str) -> None:
    pairs = zip(sorted(mine.curve["bpp"]), sorted(theirs.curve["bpp"]), strict=True)
    if any(abs(a - b) > 1e-9 for a, b in pairs):
        raise SystemExit(f"{what}: rates differ:\n{mine.curve['bpp']}\n{theirs.curve['bpp']}")


def jpeg(folder: Path, alternations: int) -> None:
    """19 qualities over all images, PSNR included."""
    pairs = [(ours("jpeg", folder, JPEG), peer("jpeg", folder, JPEG)) for _ in range(alternations)]
    _same_rates(*pairs[0], "jpeg")
    _row("JPEG, 19 qualities: peer / icmbench, CPU", [b.cpu / a.cpu for a, b in pairs], ">= 10")


def bpg(folder: Path, alternations: int) -> None:
    """BPG 4:4:4 x265, QP 27 to 42, PSNR included."""
    rows = [
        (
            ours("bpg-444-x265", folder, BPG),
            peer("bpg", folder, BPG),
            programs(_bpg, folder, BPG),
        )
        for _ in range(alternations)
    ]
    _same_rates(rows[0][0], rows[0][1], "bpg")
    _row("BPG 4:4:4, 4 QPs: peer / icmbench, CPU", [b.cpu / a.cpu for a, b, _ in rows], ">= 2.5")
    _row("BPG 4:4:4: icmbench / programs, CPU", [a.cpu / c for a, _, c in rows], "<= 1.10")
    walls, theirs = [], []
    for _ in range(alternations):
        walls.append(ours("bpg-444-x265", folder, BPG).wall)
        walls[-1] /= ours("bpg-444-x265", folder, BPG, 2).wall
        theirs.append(peer("bpg", folder, BPG).wall / peer("bpg", folder, BPG, 2).wall)
    _row("BPG: one job / two jobs, wall, icmbench", walls, ">= 1.8")
    _row("BPG: one job / two jobs, wall, peer", theirs, "")


def vtm(folder: Path, alternations: int) -> None:
    """VTM 4:4:4 against the programs alone."""
    from icmbench.utils.programs import find_program

    found = {name: find_program(name, {}) for name in ("vtm_encoder", "vtm_decoder", "vtm_config")}
    encoder, decoder, config = (program.command[0] if program else "" for program in found.values())

    def commands(path: Path, into: Path, rate: str) -> list[list[str]]:
        from icmbench.codecs.classical.colour import rgb_to_ycbcr
        from icmbench.data.images import read_image

        image = read_image(path)
        raw, stream = into / "in.yuv", into / "o.bin"
        raw.write_bytes(b"".join(p.tobytes() for p in rgb_to_ycbcr(image, "bt709", 10)))
        height, width = image.shape[:2]
        sizes = ["-wdt", str(width), "-hgt", str(height), "-fr", "1", "-f", "1"]
        formats = ["--InputChromaFormat=444", "--InputBitDepth=10", "--ConformanceWindowMode=1"]
        return [
            [encoder, "-i", str(raw), "-c", config, "-q", rate, "-o", "/dev/null",
             "-b", str(stream), *sizes, *formats],
            [decoder, "-b", str(stream), "-o", str(into / "r.yuv"), "-d", "10"],
        ]  # fmt: skip

    ratios = [
        ours("vtm-444", folder, VTM).cpu / programs(commands, folder, VTM)
        for _ in range(alternations)
    ]
    _row("VTM 4:4:4: icmbench / programs, CPU", ratios, "<= 1.02")


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("kodak", type=Path, help="folder of the 24 Kodak images")
    parser.add_argument("--only", nargs="+", choices=["jpeg", "bpg", "vtm"])
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--bpg-images", type=int, default=4)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    wanted = arguments.only or ["jpeg", "bpg", "vtm"]
    missing = {"bpg": "bpgenc", "vtm": "EncoderAppStatic"}
    print("| what | median (range) | target |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        names = sorted(path.name for path in arguments.kodak.glob("*.png"))
        few = _subset(arguments.kodak, Path(name) / "few", names[: arguments.bpg_images])
        fast = _subset(arguments.kodak, Path(name) / "fast", [n for n in VTM_IMAGES if n in names])
        folders = {"jpeg": arguments.kodak, "bpg": few, "vtm": fast}
        for what in wanted:
            if what in missing and shutil.which(missing[what]) is None:
                print(f"| {what}: {missing[what]} is not on PATH | not measured | |")
                continue
            {"jpeg": jpeg, "bpg": bpg, "vtm": vtm}[what](folders[what], arguments.alternations)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
