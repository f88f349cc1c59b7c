"""What full-size trainings cost: seconds per step and peak memory, each in its own process.

    python benchmarks/full_size.py --scale paper-check zhu2024/ours/adapted-mask-rcnn/joint ...

Trains the last operating point (the highest rate) of each named variant, and before that what its
weights come from, for as many steps as the scale has. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from icmbench.config.plan import Plan, load_plan
from icmbench.config.points import Point


def needed(plan: Plan, point: Point, found: list[Point]) -> None:
    """Append ``point`` and every training before it, in an order that works."""
    for part in ("codec", "task"):
        place = plan.source(point, part).place  # type: ignore[arg-type]
        if isinstance(place, Point):
            needed(plan, place, found)
    if point not in found and plan.variant(point).train is not None:
        found.append(point)


def measure(plan: Plan, point: Point) -> str:
    """Train a point and return its row of the table."""
    job = plan.job_path("train", point.key)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    # A process of its own starts the training, so that the peak of its children is this one's.
    program = (
        "import resource, subprocess, sys\n"
        "code = subprocess.call(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(code)\n"
    )
    command = [sys.executable, "-m", "icmbench", "train", str(job)]
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{point.key}: {done.stderr[-2000:]}")
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = json.loads((plan.run_folder(point) / "run.json").read_text())
    settings = json.loads(job.read_text())
    parameters = sum(run["parameters"].values()) / 1e6
    gigabytes = int(done.stdout.split()[-1]) / 2**20
    cells = [
        point.key,
        f"{parameters:.1f}",
        str(settings["schedule"]["batch_size"]),
        f"{run['wall_seconds'] / run['steps_done']:.1f}",
        f"{gigabytes:.1f}",
        f"{wall:.0f}",
        f"{after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:.0f}",
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
    plan.write()
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
    print("| operating point | parameters, M | batch | s per step | peak GB | s in all | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for point in points:
        print(measure(plan, point), flush=True)


if __name__ == "__main__":
    main()
