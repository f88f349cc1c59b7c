"""Evaluate one operating point: run its task on the decoded images, join everything known."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from icmbench.data.dataset import Split, data_digest
from icmbench.evaluate.coded import coded_rows, coded_state, decoded_archives
from icmbench.evaluate.complexity import complexity_of, point_complexity
from icmbench.evaluate.records import write_records
from icmbench.evaluate.statistics import save_statistics
from icmbench.jobs import EvaluateJob
from icmbench.metrics.catalogue import quality_metrics
from icmbench.registry import TASKS, implementation
from icmbench.summaries import DataSummary, EvaluationSummary, NetworkComplexity
from icmbench.utils.environment import describe_environment
from icmbench.utils.files import sha256_file, write_json

logger = logging.getLogger(__name__)


def evaluate(job: EvaluateJob) -> EvaluationSummary:
    """Evaluate a point and leave ``records.parquet``, ``statistics-*.npz`` and ``*.json``.

    ``per_class.json`` has metrics of single classes, ``predictions.json`` the task's output.

    Returns:
        the content of ``evaluate.json``: metrics, complexity, data set, environment.
    """
    wall, cpu = time.monotonic(), time.process_time()
    folder = Path(job.output)
    # Tasks that read features need no decoded image.
    images = job.coded if job.decoder is None else None
    split = Split(job.dataset, job.split, decoded_archives(images), needs=job.task.needs)
    records = _records(job, split)
    write_records(folder / "records.parquet", records)

    outcome = implementation(TASKS[job.task.network]).evaluate(job, split)
    for name, statistics in outcome.statistics.items():
        save_statistics(folder / f"statistics-{name}.npz", statistics)
    if outcome.predictions is not None:
        write_json(folder / "predictions.json", outcome.predictions)

    per_class = [asdict(own) for own in outcome.per_class]
    write_json(folder / "per_class.json", per_class)

    task = _task_complexity(job, split)
    codec = None if job.coded is None else coded_state(job.coded.folders[0]).weights
    loaded = {"codec": codec, "task": task and task.weights}
    metrics = {
        "bpp": float(records["bits"].sum() / records["pixels"].sum()),
        "psnr": float(records["psnr"].mean()),
        **outcome.metrics,
    }
    shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    logger.info("%s: %s", job.key, shown)
    return EvaluationSummary(
        key=job.key,
        metrics=metrics,
        complexity=point_complexity(job.coded, task),
        n_images=len(split),
        implementation=str(records["implementation"].iloc[0]),
        weights={name: record for name, record in loaded.items() if record},
        dataset=DataSummary(
            role=job.dataset.role,
            name=job.dataset.name,
            digest=data_digest(job.dataset),
            split=job.split,
        ),
        files={path: sha256_file(Path(path)) for path in job.task.files},
        wall_seconds=time.monotonic() - wall,
        cpu_seconds=time.process_time() - cpu,
        environment={**describe_environment(folder), "device": outcome.device},
    )


def _records(job: EvaluateJob, split: Split) -> pd.DataFrame:
    """Return what coding gave for each image, and what identifies the operating point."""
    quality = quality_metrics(job.perceptual)
    if job.coded is not None and job.decoder is None:
        frame = coded_rows(job.coded, quality)
    else:  # no image is decoded
        frame = _original_rows(split) if job.coded is None else coded_rows(job.coded)
        frame[quality] = math.nan
    for name in ("study", "variant", "codec", "mode", "rate_index", "seed"):
        frame[name] = getattr(job, name)
    return frame.assign(task=job.task.name, dataset=job.dataset.name, split=job.split)


def _original_rows(split: Split) -> pd.DataFrame:
    """Return the rows of original pixels, which take 24 bits each."""
    pixels = [split.rate_pixels(index) for index in range(len(split))]
    shapes = [split.image(index).shape for index in range(len(split))]
    return pd.DataFrame(
        {
            "image_id": [str(identity) for identity in split.ids],
            "pixels": pixels,
            "pixels_coded": [height * width for height, width, _ in shapes],
            "bits": [24 * count for count in pixels],
            "bits_estimated": math.nan,
            "encode_s": 0.0,
            "decode_s": 0.0,
            "reconstruct_s": math.nan,
            "roundtrip_ok": None,
            "implementation": "original pixels, 24 bits each",
        }
    )


def _task_complexity(job: EvaluateJob, split: Split) -> NetworkComplexity | None:
    """Return parameters and operations per pixel of the task's network on the first image."""
    if not TASKS[job.task.network].trainable:
        return None
    import torch

    from icmbench.codecs.base import Features
    from icmbench.evaluate.predict import Predictor
    from icmbench.utils.device import Compute

    # Counted on the CPU in float32, so that the count does not depend on the machine.
    predictor = Predictor(job, split, Compute(torch.device("cpu"), "fp32"))
    predictor.network.requires_grad_(False)
    inputs = predictor.inputs([0])
    height, width = inputs.padded if isinstance(inputs, Features) else inputs[0].shape[-2:]
    return complexity_of(
        predictor.network, height * width, {"task": lambda: predictor.predict(inputs)}
    )
