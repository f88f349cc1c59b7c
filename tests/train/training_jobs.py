"""Training jobs with some settings changed, and what their runs left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from icmbench.jobs import TrainJob
from icmbench.utils.files import write_text

MSE = "hyperprior/reconstruction/mse"
J_FT = "hyperprior/faster-rcnn/j-ft"


def changed(job: TrainJob, **values: Any) -> TrainJob:
    """Return a job with other settings; those of its runtime and schedule by their own names."""
    parts: dict[str, Any] = {}
    for name in ("runtime", "schedule"):
        model = getattr(job, name)
        own = {key: values.pop(key) for key in list(values) if key in type(model).model_fields}
        parts[name] = model.model_copy(update=own)
    return job.model_copy(update={**parts, **values})


def write_job(job: TrainJob, folder: Path) -> Path:
    """Write a job whose output is a folder, and return the job's file beside it."""
    path = folder.with_suffix(".json")
    write_text(path, changed(job, output=str(folder)).model_dump_json())
    return path


def rows_of(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl, without what depends on the speed of the machine."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    rows = [row for row in map(json.loads, lines) if row["split"] == split]
    for row in rows:
        row.pop("time")
        row["values"].pop("images_per_second", None)
    return rows


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of weights.pt by part and name."""
    state = torch.load(folder / "weights.pt", weights_only=True)
    parts = [(part, state[part] or {}) for part in ("codec", "task")]
    return {f"{part}.{name}": value for part, held in parts for name, value in held.items()}
