"""Cost of full-size training: seconds per step and peak memory, each run in its own process.

    python benchmarks/full_size.py --scale paper-check zhu2024/ours/adapted-mask-rcnn/joint ...

Trains the last operating point (the highest rate) of each named variant, after the points that its
weights come from, with the steps of the scale. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from icmbench.config.job_settings import write_files
from icmbench.config.plan import Plan, Point, load_plan
from icmbench.jobs import PARTS


def needed(plan: Plan, point: Point, found: list[Point]) -> None:
    """Append ``point`` after every training run that it depends on."""
    for part in PARTS:
        place = plan.initial_weights(point, part).place
        if isinstance(place, Point):
            needed(plan, place, found)
    if point not in found and plan.variant(point).train is not None:
        found.append(point)


# Runs the verb in a process of its own, so that peaks are of this training run alone. Several
# devices have processes of their own, whose GPU memory is not counted here.
_PROGRAM = """
import json, resource, sys
from icmbench.cli import main
code = main(["train", sys.argv[1]])
import torch
who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
cuda = torch.cuda.is_available()
print(json.dumps({
    "peak_gb": max(resource.getrusage(one).ru_maxrss for one in who) / 2**20,
    "peak_gpu_gb": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
}))
sys.exit(code)
"""


def train_measured(job: Path, timeout: float | None = None) -> dict[str, Any]:
    """Train a job in a process of its own; return its seconds, memory and steps.

    Raises:
        RuntimeError: in one line, if it fails or takes longer than ``timeout`` seconds.
    """
    settings = json.loads(job.read_text())
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    command = [sys.executable, "-c", _PROGRAM, str(job)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"not done after {timeout:.0f} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(lines[-1].removeprefix("icmbench: error: "))
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    folder = Path(settings["output"])
    run = json.loads((folder / "run.json").read_text())
    return {
        "parameters": sum(run["parameters"].values()),
        "batch": settings["schedule"]["batch_size"],
        "steps": run["steps_done"],
        "seconds_per_step": run["wall_seconds"] / run["steps_done"],
        "seconds_per_later_step": _later_steps(folder / "metrics.jsonl"),
        "wall_seconds": wall,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "device": run["environment"]["device"],
        **json.loads(done.stdout.splitlines()[-1]),
    }


def _later_steps(log: Path) -> float | None:
    """Return seconds per step without the first logged one, or None if it is the only one."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    rows = [row for row in rows if row["split"] == "train"]
    if len(rows) < 2:
        return None
    first, last = rows[0], rows[-1]
    return (last["time"] - first["time"]) / (last["step"] - first["step"])


def measure(plan: Plan, point: Point) -> str:
    """Train a point and return its row of the table."""
    try:
        found = train_measured(plan.job_path("train", point.key))
    except RuntimeError as error:
        sys.exit(f"{point.key}: {error}")
    gpu = found["peak_gpu_gb"]
    cells = [
        point.key,
        f"{found['parameters'] / 1e6:.1f}",
        str(found["batch"]),
        f"{found['seconds_per_step']:.1f}",
        f"{found['peak_gb']:.1f}",
        "" if gpu is None else f"{gpu:.1f}",
        f"{found['wall_seconds']:.0f}",
        f"{found['cpu_seconds']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Read the command line, train, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="+", metavar="STUDY/VARIANT")
    parser.add_argument("--scale", default="paper-check")
    parser.add_argument("--config", type=Path, default=Path("config.yaml"))
    arguments = parser.parse_args()
    studies = list(dict.fromkeys(name.split("/")[0] for name in arguments.variants))
    plan = load_plan(arguments.config, {"scale": arguments.scale, "studies": studies})
    write_files(plan)
    points: list[Point] = []
    for name in arguments.variants:
        study, _, variant = name.partition("/")
        own = [p for p in plan.points if (p.study, p.variant) == (study, variant)]
        if not own:
            sys.exit(f"{name}: no such variant at scale {arguments.scale!r}")
        needed(plan, own[-1], points)
    for role in sorted({plan.variant(point).dataset for point in points}):
        job = plan.job_path("data", role)
        subprocess.run([sys.executable, "-m", "icmbench", "data", str(job)], check=True)
    columns = ["operating point", "parameters, M", "batch", "s per step", "peak GB", "peak GPU GB"]
    columns += ["total s", "CPU s"]
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for point in points:
        print(measure(plan, point), flush=True)


if __name__ == "__main__":
    main()
