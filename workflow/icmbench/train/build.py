"""Build codecs and task networks from a job's settings and give them their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from icmbench.registry import CODECS, TASKS, implementation
from icmbench.train.checkpoint import load_part


def build_codec(settings: dict[str, Any]) -> Any:
    """Return the learned codec of a job's ``codec`` section, with its initial or final weights.

    Args:
        settings: name, parameters, rate_index, weights (path, random or pretrained), pretrained.
    """
    entry = CODECS[settings["name"]]
    parameters = entry.parameters.model_validate(settings["parameters"])
    codec = implementation(entry)(
        parameters, rate_index=settings["rate_index"], pretrained=settings["pretrained"]
    )
    source = settings["weights"]
    if source == "pretrained":
        codec.load_pretrained(settings["rate_index"])
    elif source != "random":
        load_part(codec, Path(source), "codec")
    return codec.to(memory_format=torch.channels_last)


def build_task(settings: dict[str, Any]) -> Any:
    """Return the task network of a job's ``task`` section, with its initial or final weights."""
    entry = TASKS[settings["name"]]
    parameters = entry.parameters.model_validate(settings["parameters"])
    task = implementation(entry)(parameters, pretrained=settings["pretrained"])
    source = settings["weights"]
    if source == "pretrained":
        task.load_pretrained()
    elif source not in ("random", None):
        load_part(task, Path(source), "task")
    return task.to(memory_format=torch.channels_last)
