"""Measure how cost grows with a study: dry run, aggregation and report, CPU seconds and memory.

    python benchmarks/scale.py dry-run 1000 3000 10000     snakemake --dry-run, nothing planned before
    python benchmarks/scale.py analyse 1000 3000 10000     python -m icmbench analyse, 1,000 images a point
    python benchmarks/scale.py report 100 300 1000         python -m icmbench report, and its size

The numbers are operating points of a generated study at scale smoke. A group of four variants has a
hundred of them, five rates by five seeds: a trained codec, a task trained on it, JPEG 2000 with the
task as it is and with the task trained on what it decodes to; so every rule has jobs. Anchors are
JPEG 2000 since its rates, unlike JPEG's qualities, are as many as one likes. One more variant, the
task on original pictures, is what the others start from.

``analyse`` and ``report`` read records that are drawn from a seed, in the layout that evaluations
leave: the work is that of a real study, the numbers mean nothing. The task's metrics are drawn as
segmentation statistics, with ``--detection`` as average precisions, whose resampling costs most.

CPU seconds (user and system) and peak memory are those of the whole process, children included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

REPOSITORY = Path(__file__).parents[1]
STUDY = "generated"
SEEDS = [0, 1, 2, 3, 4]
RATES = 5
VARIANTS = 4  # of a group
GROUP = VARIANTS * RATES * len(SEEDS)
ORIGINAL = "uncoded/faster-rcnn/pretrained"


class Cost(NamedTuple):
    """What a command cost: CPU seconds, and the peak memory of its largest process in MB."""

    cpu_s: float
    peak_mb: float


# --- the study ------------------------------------------------------------------------------------


def study(points: int) -> dict[str, Any]:
    """Return a study of so many operating points, rounded up to whole groups."""
    variants = {ORIGINAL: _variant("uncoded", "faster-rcnn", None, task_from="random", part="task")}
    ladders = {"lambda": _ladder("lambda", [0.002 * 2**rate for rate in range(RATES)])}
    comparisons = []
    detector = {"variant": ORIGINAL, "rate": 0}
    for group in range(-(-points // GROUP)):
        codec, anchor, ratios = f"codec-{group:04}", f"jpeg2000-{group:04}", f"ratio-{group:04}"
        first = 5 + RATES * group
        ladders[ratios] = _ladder("ratio", [first + RATES - 1 - rate for rate in range(RATES)])
        mse, fine = f"{codec}/reconstruction/mse", f"{codec}/faster-rcnn/t-ft"
        plain, tuned = f"{anchor}/faster-rcnn/baseline", f"{anchor}/faster-rcnn/t-ft"
        learned = "bmshj2018-hyperprior"
        chain = {"order": "high-to-low", "schedule": "short"}
        variants |= {
            mse: _variant(
                learned, "reconstruction", "lambda", codec_from="random", part="codec", chain=chain
            ),
            fine: _variant(
                learned,
                "faster-rcnn",
                "lambda",
                codec_from={"variant": mse},
                task_from=detector,
                part="task",
            ),
            plain: _variant("jpeg2000", "faster-rcnn", ratios, task_from=detector),
            tuned: _variant("jpeg2000", "faster-rcnn", ratios, task_from=detector, part="task"),
        }
        comparisons.append({"anchor": plain, "variants": [fine, tuned], "metrics": ["box_map"]})
        comparisons.append({"anchor": plain, "variants": [mse, fine], "metrics": ["psnr"]})
    return {
        "name": STUDY,
        "title": "A generated study",
        "reference": {"authors": "nobody", "venue": "none", "year": 2026},
        "summary": "As large as one likes.",
        "ladders": ladders,
        "schedules": {"short": _schedule()},
        "variants": variants,
        "comparisons": comparisons,
    }


def _ladder(parameter: str, values: list[float]) -> dict[str, Any]:
    return {"parameter": parameter, "values": values, "origin": "ours"}


def _variant(
    codec: str, task: str, ladder: str | None, part: str | None = None, **more: Any
) -> dict[str, Any]:
    chain = more.pop("chain", None)
    variant = {"codec": codec, "task": task, "ladder": ladder, "dataset": "detection", **more}
    variant |= {"mode": "generated", "label": f"{codec}, {task}"}
    if part is not None:
        loss = {"task": 1.0} if part == "task" else {"bpp": 1.0, "mse": "$lambda"}
        training = {"parts": [part], "loss": loss, "schedule": "short", "origin": "ours"}
        variant["train"] = training | ({"chain": chain} if chain else {})
    return variant


def _schedule() -> dict[str, Any]:
    groups = {name: {"name": "adam", "lr": 1e-3} for name in ("codec", "auxiliary", "task")}
    return {"steps": 2, "batch_size": 4, "crop": 64, "optimisers": groups, "origin": "ours"}


@contextmanager
def checkout(points: int, **config: Any) -> Iterator[Path]:
    """Yield a temporary copy of the workflow's own files, set to run the generated study."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("workflow", "envs"):
            shutil.copytree(REPOSITORY / part, folder / part)
        (folder / "profiles").symlink_to("workflow/profiles")
        shutil.copy(REPOSITORY / "Snakefile", folder)
        settings = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
        settings |= {"scale": "smoke", "studies": [STUDY], "seeds": SEEDS}
        settings |= {"study_folders": ["generated"], **config}
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        for part in ("data", "generated"):
            (folder / part).mkdir()
        text = yaml.safe_dump(study(points), sort_keys=False)
        (folder / "generated" / f"{STUDY}.yaml").write_text(text)
        yield folder


def cost(command: list[str], folder: Path) -> Cost:
    """Run a command to its end and return what it cost.

    Raises:
        SystemExit: with the end of its output, where it failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder / "workflow")}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{output.read().decode()[-3000:]}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


# --- measurements ---------------------------------------------------------------------------------


def dry_run(points: int) -> list[str]:
    """Measure the dry run that writes the plan, and the next one."""
    with checkout(points) as folder:
        command = [str(Path(sys.executable).parent / "snakemake"), "--dry-run", "--quiet"]
        first, again = cost(command, folder), cost(command, folder)
        files = sum(1 for _ in (folder / "results/smoke/plan").rglob("*.json"))
    return [
        f"{first.cpu_s:.1f}",
        f"{again.cpu_s:.1f}",
        f"{max(first.peak_mb, again.peak_mb):.0f}",
        str(files),
    ]


COLUMNS = {"dry-run": ["first, CPU s", "again, CPU s", "peak MB", "plan files"]}
MEASURES = {"dry-run": dry_run}


def main() -> None:
    """Print a table of what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=sorted(MEASURES))
    parser.add_argument("points", type=int, nargs="+")
    arguments = parser.parse_args()
    columns = ["points", *COLUMNS[arguments.what]]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for points in arguments.points:
        row = [f"{points:,}", *MEASURES[arguments.what](points)]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
