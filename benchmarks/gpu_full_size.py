"""A few steps of every study's trainings at full size, on generated images, from random weights.

Job files are those that the plan of a scale gives, with what a machine without data and network
cannot have replaced: the data set by a generated one, published and earlier weights by random ones,
several devices by one of them with its share of the batch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from full_size import train_measured
from gpu_common import Table, TimeCap

from icmbench.config.plan import Plan, Point, load_plan
from icmbench.data.specs import EmbeddedFaces, EmbeddedScenes
from icmbench.data.synthetic.scenes import generate
from icmbench.errors import UserError

REPOSITORY = Path(__file__).parents[1]
STUDIES = ("chamain2021", "zhu2024", "tang2025", "zhang2022")


@dataclass(frozen=True)
class FullSizeSettings:
    """Which trainings take how many steps.

    Attributes:
        device: where.
        scale: whose networks and batch sizes.
        variants: as <study>/<variant>; empty for all trainings of all studies.
        steps: of each.
        batch: images of a step at most; None leaves the scale's.
        threads: of the CPU.
        workers: loader processes.
        side: of generated images at most, in pixels.
        folder: for what is written.
    """

    device: torch.device
    scale: str
    variants: tuple[str, ...]
    steps: int
    batch: int | None
    threads: int
    workers: int
    side: int
    folder: Path


def measure_full_size(settings: FullSizeSettings, cap: TimeCap) -> Table:
    """Return seconds per step and peak memory of each training."""
    table = Table(
        f"Full-size steps, scale {settings.scale}",
        ["operating point", "parameters, M", "batch", "steps", "s per step", "peak GPU GB",
         "peak GB"],
    )  # fmt: skip
    plan = load_full_size_plan(settings)
    for point in last_points(plan, settings.variants):
        try:
            cap.check()
            job = step_job(plan, point, settings)
            found = train_measured(job, timeout=max(cap.left(), 1.0))
        except Exception as error:
            table.leave_out(point.key, error)
            continue
        later = found["seconds_per_later_step"]
        gpu = found["peak_gpu_gb"] if settings.device.type == "cuda" else None
        table.add(
            [
                point.key,
                f"{found['parameters'] / 1e6:.1f}",
                found["batch"],
                found["steps"],
                "" if later is None else f"{later:.3f}",
                "" if gpu is None else f"{gpu:.1f}",
                f"{found['peak_gb']:.1f}",
            ],
            key=point.key,
            **found,
        )
    table.notes.append(
        "generated images, random weights; s per step is the mean over all but the first, the "
        "loader and a row of the log each included; of several devices' batch the share of one; "
        "trainings on decoded images of an anchor are the same step as on originals and are not "
        "among them"
    )
    return table


def load_full_size_plan(settings: FullSizeSettings) -> Plan:
    """Return the plan of the scale with all studies, or those of the variants."""
    named = dict.fromkeys(name.split("/")[0] for name in settings.variants)
    overrides = {
        "scale": settings.scale,
        "studies": list(named or STUDIES),
        "results": str(settings.folder / "full-size"),
    }
    return load_plan(REPOSITORY / "config.yaml", overrides)


def last_points(plan: Plan, variants: tuple[str, ...]) -> list[Point]:
    """Return the last operating point of each variant that trains on original images.

    Raises:
        UserError: for a variant that does not.
    """
    last: dict[str, Point] = {}
    for point in plan.trained:
        if plan.train_job(point)["coded"] is None:
            last[f"{point.study}/{point.variant}"] = point
    for name in variants:
        if name not in last:
            raise UserError(
                f"--variants {name}: not trained on original images at this scale; allowed: "
                f"{', '.join(last)}"
            )
    return [last[name] for name in variants or last]


def step_job(plan: Plan, point: Point, settings: FullSizeSettings) -> Path:
    """Write the job of some steps of a training, and return its path."""
    job: dict[str, Any] = json.loads(json.dumps(plan.train_job(point)))
    schedule = job["schedule"]
    devices = schedule.pop("devices", 1)
    batch = max(1, schedule["batch_size"] // devices)
    schedule["batch_size"] = min(batch, settings.batch or batch)
    schedule.update(steps=settings.steps, validation=None)
    for part in ("codec", "task"):
        if job[part].get("weights") is not None:
            job[part].update(weights="random", weights_of=None, weights_part=part)
    _fit_parameters(job)
    job["dataset"] = _dataset(job["dataset"], schedule["batch_size"], settings)
    job["runtime"].update(
        gpu=int(settings.device.type == "cuda"),
        threads=settings.threads,
        workers=settings.workers,
        log_every=1,
    )
    job["output"] = str(settings.folder / "runs" / point.key)
    path = settings.folder / "jobs" / f"{point.key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(job))
    return path


def _fit_parameters(job: dict[str, Any]) -> None:
    """Take out what needs a download, and fit a face task to the generated set."""
    parameters = job["task"].get("parameters") or {}
    for name, count in (("attributes", 20), ("parsing", 14)):
        if parameters.get(name):
            parameters[name] = count
    if parameters.get("imagenet_backbone"):
        parameters["imagenet_backbone"] = False
    if job["codec"]["parameters"].get("perceptual") == "vgg16":
        job["codec"]["parameters"]["perceptual"] = "random"


def _dataset(dataset: dict[str, Any], batch: int, settings: FullSizeSettings) -> dict[str, Any]:
    """Return a generated data set in the place of a role's."""
    count = {"train": batch, "val": 1, "test": 1}
    config: EmbeddedScenes | EmbeddedFaces
    if dataset["role"] == "faces":
        config = EmbeddedFaces(source="embedded-faces", size=min(256, settings.side), **count)
    else:
        # Whole images for detectors; classification takes crops of 224 to 256 pixels.
        side = 256 if dataset["role"] == "classification" else 512
        config = EmbeddedScenes(source="embedded-scenes", size=min(side, settings.side), **count)
    kind = "faces" if dataset["role"] == "faces" else "scenes"
    folder = settings.folder / "data" / f"{kind}-{config.size}-{batch}"
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        _generate(config, folder)
    return {
        "role": dataset["role"],
        "folder": str(folder),
        "manifest": str(manifest),
        **config.model_dump(),
    }


def _generate(config: EmbeddedScenes | EmbeddedFaces, folder: Path) -> None:
    if isinstance(config, EmbeddedFaces):
        from icmbench.data.synthetic.faces import generate_faces

        generate_faces(config, folder)
    else:
        generate(config, folder)
