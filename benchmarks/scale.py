"""Measure how cost grows with the size of a study: dry run, analysis, report.

    python benchmarks/scale.py dry-run 1000 3000 10000     snakemake --dry-run, twice
    python benchmarks/scale.py analyse 1000 3000 10000     analysis, 1,000 images a point
    python benchmarks/scale.py report 1000 10000           report of the tables of such a study

The numbers are operating points of a generated study at scale smoke. A group of four variants has
100 of them, five rates by five seeds: a trained codec, a task trained on it, JPEG 2000 with a fixed
task and with a task trained on its decoded images. So every rule except fetching has jobs. One
more variant, the task on original images, provides the initial weights.

``analyse`` reads records drawn from a seed, in the layout of real evaluations: the work is that of
a real study, the numbers mean nothing. A task's metric is one number per image. Average precision
costs far more, since each resample accumulates it again: ``--detection`` prints the cost of one
point of 1,000 images. ``report`` reads such records after an analysis with ten resamples, which is
not measured. ``--keep`` names a folder for the report.

CPU seconds (user and system) are those of a process and its children, peak memory that of the
largest of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

REPOSITORY = Path(__file__).parents[1]
STUDY = "generated"
SEEDS = [0, 1, 2, 3, 4]
RATES = 5
IMAGES = 1000
VARIANTS = 4  # of a group
GROUP = VARIANTS * RATES * len(SEEDS)
ORIGINAL = "uncoded/faster-rcnn/pretrained"


class Cost(NamedTuple):
    """CPU seconds of a command, and the peak memory of its largest process in MB."""

    cpu_s: float
    peak_mb: float


# --- the study ------------------------------------------------------------------------------------


def study(points: int) -> dict[str, Any]:
    """Return a study with a number of operating points, rounded up to whole groups."""
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
        "summary": "Generated, of any size.",
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
    """Run a command and return its cost.

    Raises:
        SystemExit: with the end of its output, if it fails.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder / "workflow")}
    spent = folder / "spent.txt"
    with tempfile.TemporaryFile() as output:
        process = subprocess.run(
            [sys.executable, "-c", METER, str(spent), *command],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        if process.returncode != 0:
            output.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{output.read().decode()[-3000:]}")
    return Cost(*map(float, spent.read_text().split()))


# A process inherits the memory count of its parent, so the parent must be small.
METER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    file.write(f"{used.ru_utime + used.ru_stime} {used.ru_maxrss / 1024}")
sys.exit(code)
"""


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


def results(folder: Path, points: int, images: int) -> Path:
    """Write the plan of the study in ``folder`` and evaluations of it; return its results."""
    from icmbench.config.job_settings import write_files
    from icmbench.config.plan import load_plan

    with contextlib.chdir(folder):
        plan = load_plan()
        write_files(plan)
    evaluated = plan.evaluated
    for point in evaluated:
        # Points of different groups differ only in their names: links to one set of files.
        name = point.variant.partition("/")[2] + point.variant[:5]
        drawn = folder / "drawn" / f"{name.replace('/', '-')}-{point.rate_index}-{point.seed}"
        if not drawn.is_dir():
            draw(drawn, point.rate_index, len(list(drawn.parent.glob("*"))), images)
        target = folder / plan.run_folder(point)
        target.mkdir(parents=True, exist_ok=True)
        for file in drawn.iterdir():
            os.link(file, target / file.name)
    if len(evaluated) < points:
        sys.exit(f"the study has {len(evaluated)} evaluated points, not {points}")
    return folder / plan.root


def draw(folder: Path, rate_index: int, seed: int, images: int) -> None:
    """Write the evaluation of one operating point, drawn from a seed."""
    import numpy as np
    import pandas as pd

    from icmbench.evaluate.records import COLUMNS as RECORDS
    from icmbench.evaluate.records import write_records
    from icmbench.evaluate.statistics import MeanStatistics, save_statistics
    from icmbench.utils.files import write_json

    rng = np.random.default_rng(seed)
    ids = np.array([f"{image:06}" for image in range(images)])
    bits = np.round(6e3 * 2.0**rate_index * np.exp(rng.normal(0, 0.3, images)))
    values: dict[str, Any] = dict.fromkeys(RECORDS, "drawn")
    values |= {"rate_index": rate_index, "seed": 0, "image_id": ids}
    values |= {"pixels": 16384, "pixels_coded": 16384, "bits": bits.astype(int)}
    values |= {"bits_estimated": bits * 0.99, "roundtrip_ok": True}
    values |= {"psnr": 26 + rate_index + rng.normal(0, 1, images), "ms_ssim": 0.9}
    values |= {"psnr_ycbcr": 27 + rate_index + rng.normal(0, 1, images)}
    values |= dict.fromkeys(("encode_s", "decode_s", "reconstruct_s"), 0.01)
    folder.mkdir(parents=True)
    write_records(folder / "records.parquet", pd.DataFrame(values))
    accuracy = np.clip(0.4 + 0.05 * rate_index + rng.normal(0, 0.1, images), 0, 1)
    save_statistics(folder / "statistics-boxes.npz", MeanStatistics(ids, {"box_map": accuracy}))
    ran = {"cpu_seconds": 1.0, "environment": {"git_commit": "drawn", "device": "cpu"}}
    ran["dataset"] = {"role": "detection", "digest": "drawn"}
    counted = {"parameters": {"codec": 5e6, "task": 4e7}, "macs_per_pixel": {"encode": 4e4}}
    write_json(folder / "evaluate.json", ran | {"complexity": counted})
    steps = {"status": "finished", "steps": 2, "steps_done": 2, "finished": 1.6e9}
    write_json(folder / "run.json", ran | steps)


def analyse(points: int) -> list[str]:
    """Measure the analysis of 1,000 images for each point."""
    with checkout(points) as folder:
        root = results(folder, points, IMAGES)
        spent = cost([sys.executable, "-m", "icmbench", "analyse", str(root)], folder)
        size = (root / "tables/records.parquet").stat().st_size / 1e6
    return [f"{points * IMAGES:,}", f"{spent.cpu_s:.1f}", f"{spent.peak_mb:.0f}", f"{size:.0f}"]


def report(points: int, keep: Path | None = None) -> list[str]:
    """Measure the report of 1,000 images for each point."""
    with checkout(points, analysis={"resamples": 10}) as folder:
        root = results(folder, points, IMAGES)
        cost([sys.executable, "-m", "icmbench", "analyse", str(root)], folder)
        spent = cost([sys.executable, "-m", "icmbench", "report", str(root)], folder)
        pages = [(page.stat().st_size, page.name) for page in (root / "report").glob("*.html")]
        if keep is not None:
            for part in ("report", "tables", "curves"):
                shutil.copytree(root / part, keep / str(points) / part)
    size, name = max(pages)
    return [f"{spent.cpu_s:.1f}", f"{spent.peak_mb:.0f}", f"{size / 1e6:.1f} ({name})"]


def detection(images: int = 1000) -> str:
    """Return the cost of resampling the average precision of one operating point."""
    import time

    import numpy as np

    from icmbench.analyse.bootstrap import image_weights
    from icmbench.evaluate.statistics import AveragePrecisionStatistics
    from icmbench.metrics.average_precision import match_detections

    rng = np.random.default_rng(0)
    boxes = rng.uniform(8, 64, (4 * images, 4))
    truth = [
        {"id": n + 1, "image_id": n // 4, "category_id": n % 5 + 1, "bbox": box.tolist(),
         "area": float(box[2] * box[3]), "iscrowd": 0}
        for n, box in enumerate(boxes)
    ]  # fmt: skip
    found = [
        {"image_id": box["image_id"], "category_id": box["category_id"],
         "bbox": (np.array(box["bbox"]) + rng.normal(0, 3, 4)).tolist(), "score": rng.uniform()}
        for box in truth
        for _ in range(3)
    ]  # fmt: skip
    entries = [{"id": n, "width": 128, "height": 128} for n in range(images)]
    names = [{"id": n, "name": str(n)} for n in range(1, 6)]
    annotations = {"images": entries, "annotations": truth, "categories": names}
    statistics = AveragePrecisionStatistics(match_detections(annotations, found, "bbox"))
    began = time.process_time()
    statistics.metrics_resampled(image_weights(images, 1000, 0))
    spent = time.process_time() - began
    return f"{images:,} images, {len(found):,} boxes, 1,000 resamples: {spent:.1f} CPU s a point"


MEASURES: dict[str, tuple[Callable[..., list[str]], list[str]]] = {
    "dry-run": (dry_run, ["first, CPU s", "again, CPU s", "peak MB", "plan files"]),
    "analyse": (analyse, ["records", "CPU s", "peak MB", "records.parquet, MB"]),
    "report": (report, ["CPU s", "peak MB", "largest page, MB"]),
}


def main() -> None:
    """Print the table of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=sorted(MEASURES))
    parser.add_argument("points", type=int, nargs="*")
    parser.add_argument("--detection", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for reports")
    arguments = parser.parse_args()
    if arguments.detection:
        print(detection())
    if arguments.what is None:
        return
    measure, names = MEASURES[arguments.what]
    more = {"keep": arguments.keep} if arguments.what == "report" else {}
    columns = ["points", *names]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for points in arguments.points:
        print(f"| {' | '.join([f'{points:,}', *measure(points, **more)])} |", flush=True)


if __name__ == "__main__":
    main()
