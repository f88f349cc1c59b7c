"""Compare accuracy and run times of scale mini with their targets.

    python benchmarks/targets.py                  accuracy and CPU seconds of results/mini
    python benchmarks/targets.py --time smoke     also time a fresh run of a scale and a second one

Quote times together with the machine.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from icmbench.utils.files import read_json

REPOSITORY = Path(__file__).parents[1]
STUDY = "chamain2021"
HYPERPRIOR = "hyperprior/faster-rcnn"


def curve(table: pd.DataFrame, variant: str, metric: str) -> pd.DataFrame:
    """Return rate and value of a variant's operating points, lowest rate first."""
    rows = table[(table["variant"] == variant) & (table["metric"] == metric)]
    return rows.sort_values("bpp")


def at(table: pd.DataFrame, variant: str, metric: str, bpp: float) -> tuple[float, bool]:
    """Return the metric at a rate, linear in log rate, and whether that lies inside the curve."""
    rows = curve(table, variant, metric)
    rates = rows["bpp"].to_numpy()
    value = float(np.interp(np.log(bpp), np.log(rates), rows["value"].to_numpy()))
    return value, bool(rates[0] <= bpp <= rates[-1])


def cpu_seconds(root: Path, variant: str) -> list[float]:
    """Return the CPU seconds of a variant's training runs, lowest rate first."""
    files = sorted((root / "runs" / STUDY / variant).glob("rate*-seed0/run.json"))
    return [round(read_json(file)["cpu_seconds"], 1) for file in files]


def accuracy(root: Path) -> None:
    """Print the accuracy table."""
    table = pd.read_csv(root / "tables" / "curves.csv")
    table = table[table["study"] == STUDY]
    uncoded = "uncoded/faster-rcnn/pretrained"
    mse = "hyperprior/reconstruction/mse"
    clean = curve(table, uncoded, "box_map")["value"].iloc[0]
    wanted: list[tuple[str, float, float, bool, str]] = [
        ("detector on original test scenes, mAP", 0.65, clean, True, uncoded)
    ]
    for label, variant, metric, bpp, least in (
        ("hyperprior, PSNR in dB", mse, "psnr", 0.26, 27.0),
        ("T-FT, mAP", f"{HYPERPRIOR}/t-ft", "box_map", 0.25, 0.58),
        ("C-FT, mAP", f"{HYPERPRIOR}/c-ft", "box_map", 0.11, 0.41),
        ("C-FT, PSNR in dB (about)", f"{HYPERPRIOR}/c-ft", "psnr", 0.11, 17.0),
        ("J-FT, mAP", f"{HYPERPRIOR}/j-ft", "box_map", 0.07, 0.48),
        ("J-FT, PSNR in dB (paper: 16.31)", f"{HYPERPRIOR}/j-ft", "psnr", 0.07, 16.3),
    ):
        value, inside = at(table, variant, metric, bpp)
        wanted.append((f"{label} at {bpp} bpp", least, value, inside, variant))
    print(f"{'figure':<42} {'target':>7} {'reached':>8}  CPU seconds of training")
    for label, least, value, inside, variant in wanted:
        edge = "" if inside else "  (outside the measured rates: nearest point)"
        print(f"{label:<42} {least:>7g} {value:>8.3f}  {cpu_seconds(root, variant)}{edge}")
    files = [read_json(f) for f in (root / "runs").rglob("run.json")]
    total = sum(f["cpu_seconds"] for f in files)
    print(f"{len(files)} training runs, {total:.0f} CPU seconds in their loops")


def run_times(scale: str) -> None:
    """Time a fresh run of a scale in an empty folder, and the next one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("workflow", "envs"):
            shutil.copytree(REPOSITORY / part, folder / part)
        (folder / "profiles").symlink_to("workflow/profiles")
        for part in ("Snakefile", "config.yaml"):
            shutil.copy(REPOSITORY / part, folder)
        shutil.copytree(REPOSITORY / "data/photographs", folder / "data/photographs")
        shutil.copy(REPOSITORY / "data/catalogue.yaml", folder / "data")
        command = [str(Path(sys.executable).parent / "snakemake"), "--cores", "2"]
        command += ["--config", f"scale={scale}"]
        for label in ("fresh run", "nothing to do"):
            began = time.monotonic()
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            seconds = time.monotonic() - began
            state = "" if done.returncode == 0 else f" FAILED:\n{done.stderr[-2000:]}"
            print(f"scale {scale}, {label}: {seconds:.1f} s wall on 2 cores{state}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results" / "mini")
    parser.add_argument("--time", choices=["smoke", "mini"], action="append", default=[])
    arguments = parser.parse_args()
    if (arguments.results / "tables" / "curves.csv").is_file():
        accuracy(arguments.results)
    else:
        print(f"{arguments.results}: no tables yet; run `make results` first")
    for scale in arguments.time:
        run_times(scale)


if __name__ == "__main__":
    main()
