"""A few training steps of every study at full size, on generated images, from random weights.

Jobs are those of a scale's plan with replacements that need no data and network: a generated data
set, random weights instead of published and earlier ones, one device with its share of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from full_size import train_measured
from gpu_common import Table, TimeCap

from icmbench.config.job_settings import train_job
from icmbench.config.plan import Plan, Point, load_plan
from icmbench.data.specs import DatasetSpec, EmbeddedFaces, EmbeddedScenes
from icmbench.data.synthetic.scenes import generate
from icmbench.errors import UserError
from icmbench.jobs import CodecSpec, TaskSpec

Network = TypeVar("Network", CodecSpec, TaskSpec)
REPOSITORY = Path(__file__).parents[1]
STUDIES = ("chamain2021", "zhu2024", "tang2025", "zhang2022")


@dataclass(frozen=True)
class FullSizeSettings:
    """The training runs to measure.

    Attributes:
        device: where.
        scale: whose networks and batch sizes.
        variants: as <study>/<variant>; empty for all training runs of all studies.
        steps: of each.
        batch: images of a step at most; None leaves the scale's.
        threads: of the CPU.
        workers: loader processes.
        side: of generated images at most, in pixels.
        folder: for temporary files.
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
    """Return seconds per step and peak memory of each training run."""
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
        "generated images, random weights; s per step is the mean over all but the first, with the "
        "loader and a row of the log; of several devices' batch the share of one; training on "
        "decoded images has the same steps as on originals and is not listed"
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
        if train_job(plan, point).coded is None:
            last[f"{point.study}/{point.variant}"] = point
    for name in variants:
        if name not in last:
            raise UserError(
                f"--variants {name}: not trained on original images at this scale; allowed: "
                f"{', '.join(last)}"
            )
    return [last[name] for name in variants or last]


def step_job(plan: Plan, point: Point, settings: FullSizeSettings) -> Path:
    """Write the job of some training steps, and return its path."""
    job = train_job(plan, point)
    batch = max(1, job.schedule.batch_size // job.schedule.devices)
    batch = min(batch, settings.batch or batch)
    steps = {"steps": settings.steps, "batch_size": batch, "devices": 1, "validation": None}
    runtime = {
        "gpu": int(settings.device.type == "cuda"),
        "threads": settings.threads,
        "workers": settings.workers,
        "log_every": 1,
    }
    changed = job.model_copy(
        update={
            "codec": _without_download(job.codec),
            "task": _without_download(job.task),
            "schedule": job.schedule.model_copy(update=steps),
            "dataset": _dataset(job.dataset.role, batch, settings),
            "runtime": job.runtime.model_copy(update=runtime),
            "output": str(settings.folder / "runs" / point.key),
        }
    )
    path = settings.folder / "jobs" / f"{point.key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(changed.model_dump_json())
    return path


def _without_download(network: Network) -> Network:
    """Return a network with random weights; a face task is fitted to the generated set."""
    replaced = {"attributes": 20, "parsing": 14, "imagenet_backbone": False, "perceptual": "random"}
    parameters = {
        name: replaced[name] if name in replaced and value not in (0, "none") else value
        for name, value in network.parameters.items()
    }
    weights = network.weights
    if weights.source is not None:
        weights = weights.model_copy(update={"source": "random", "of": None})
    return network.model_copy(update={"parameters": parameters, "weights": weights})


def _dataset(role: str, batch: int, settings: FullSizeSettings) -> DatasetSpec:
    """Return a generated data set for a role."""
    count = {"train": batch, "val": 1, "test": 1}
    config: EmbeddedScenes | EmbeddedFaces
    if role == "faces":
        config = EmbeddedFaces(source="embedded-faces", size=min(256, settings.side), **count)
    else:
        # Whole images for detectors; classification takes crops of 224 to 256 pixels.
        side = 256 if role == "classification" else 512
        config = EmbeddedScenes(source="embedded-scenes", size=min(side, settings.side), **count)
    kind = "faces" if role == "faces" else "scenes"
    folder = settings.folder / "data" / f"{kind}-{config.size}-{batch}"
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        _generate(config, folder)
    return DatasetSpec(role=role, folder=str(folder), manifest=str(manifest), settings=config)


def _generate(config: EmbeddedScenes | EmbeddedFaces, folder: Path) -> None:
    if isinstance(config, EmbeddedFaces):
        from icmbench.data.synthetic.faces import generate_faces

        generate_faces(config, folder)
    else:
        generate(config, folder)
