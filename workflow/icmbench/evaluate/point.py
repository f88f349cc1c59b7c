"""Evaluate one operating point: run its task on the decoded images, join everything we know."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from icmbench.data.dataset import Split, data_digest
from icmbench.evaluate.complexity import count_parameters, macs_of, read_complexity
from icmbench.evaluate.records import write_records
from icmbench.evaluate.rows import check_coded, coded_rows, image_digests
from icmbench.evaluate.statistics import save_statistics
from icmbench.jobs import EvaluateJob
from icmbench.metrics.pixels import quality
from icmbench.registry import PIXEL_METRICS, TASKS, implementation
from icmbench.utils.environment import describe_environment
from icmbench.utils.files import write_json


def evaluate(job: EvaluateJob) -> None:
    """Evaluate a point and leave records.parquet, statistics-*.npz, predictions, evaluate.json.

    Args:
        job: resolved settings, see ``Plan.evaluate_job``.
    """
    wall, cpu = time.monotonic(), time.process_time()
    folder = Path(job.output)
    coded = job.coded
    # Where a task reads features, no image was decoded.
    images = coded is not None and job.decoder is None
    check_coded(coded)
    split = Split(
        job.dataset,
        job.split,
        coded.images if coded is not None and images else None,
        digests=image_digests(coded),
    )
    records = _records(job, split).join(_quality(split, images), on="image_id")
    write_records(folder / "records.parquet", records)

    evaluator = implementation(TASKS[job.task.name])
    outcome = evaluator.evaluate(job, split)
    for name, statistics in outcome.statistics.items():
        save_statistics(folder / f"statistics-{name}.npz", statistics)
    if outcome.predictions is not None:
        write_json(folder / "predictions.json", outcome.predictions)

    metrics = {
        "bpp": float(records["bits"].sum() / records["pixels"].sum()),
        "psnr": float(records["psnr"].mean()),
        **outcome.metrics,
    }
    write_json(
        folder / "evaluate.json",
        {
            "key": job.key,
            "metrics": metrics,
            "complexity": read_complexity(coded, _task_complexity(job, split)),
            "n_images": len(split),
            "implementation": str(records["implementation"].iloc[0]),
            "dataset": {
                "role": job.dataset.role,
                "name": job.dataset.name,
                "digest": data_digest(job.dataset),
                "split": job.split,
            },
            "wall_seconds": time.monotonic() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "environment": {**describe_environment(), "device": outcome.device},
        },
    )
    shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    print(f"{job.key}: {shown}", file=sys.stderr)


def _task_complexity(job: EvaluateJob, split: Split) -> dict[str, Any] | None:
    """Return parameters and MACs per pixel of the task's network on the first image."""
    if not TASKS[job.task.name].trainable:
        return None
    import torch

    from icmbench.codecs.base import Features
    from icmbench.evaluate.inputs import open_inputs
    from icmbench.networks.build import build_task

    network = build_task(job.task).eval().requires_grad_(False)
    inputs = open_inputs(job, split, torch.device("cpu"))([0])
    height, width = inputs.padded if isinstance(inputs, Features) else inputs[0].shape[-2:]
    with torch.no_grad():
        macs = macs_of(lambda: network.predict(inputs))
    return {"parameters": count_parameters(network), "macs_per_pixel": macs / (height * width)}


def _quality(split: Split, coded: bool) -> pd.DataFrame:
    """Return the image metrics by image id; undefined for original pixels."""
    rows = [
        quality(split.original(index), split.image(index))
        if coded
        else dict.fromkeys(PIXEL_METRICS, math.nan)
        for index in range(len(split))
    ]
    return pd.DataFrame(rows, index=pd.Index(map(str, split.ids), name="image_id"))


def _records(job: EvaluateJob, split: Split) -> pd.DataFrame:
    """Return the rows that coding left, or those of original pixels at 24 bits each."""
    if job.coded is None:
        pixels = [split.rate_pixels(i) for i in range(len(split))]
        coded = [split.image(i).shape[0] * split.image(i).shape[1] for i in range(len(split))]
        frame = pd.DataFrame(
            {
                "image_id": [str(identity) for identity in split.ids],
                "pixels": pixels,
                "pixels_coded": coded,
                "bits": [24 * count for count in pixels],
                "bits_estimated": float("nan"),
                "encode_s": 0.0,
                "decode_s": 0.0,
                "reconstruct_s": float("nan"),
                "roundtrip_ok": None,
                "implementation": "original pixels, 24 bits each",
            }
        )
    else:
        frame = coded_rows(job.coded)
    for name in ("study", "variant", "codec", "mode", "rate_index", "seed"):
        frame[name] = getattr(job, name)
    frame["task"] = job.task.name
    frame["dataset"] = job.dataset.name
    frame["split"] = job.split
    return frame
