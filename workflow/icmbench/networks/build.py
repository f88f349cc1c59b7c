"""Build codecs and task networks from a job's settings and give them their weights."""

from __future__ import annotations

from typing import Any

import torch

from icmbench.jobs import CodecSpec, TaskSpec
from icmbench.networks.convolutions import suit_cpu
from icmbench.networks.pretrained import published_weights
from icmbench.networks.weights import load_part
from icmbench.registry import CODECS, TASKS, implementation


def build_codec(settings: CodecSpec) -> Any:
    """Return the learned codec of a job's ``codec`` section, with its initial or final weights."""
    entry = CODECS[settings.name]
    parameters = entry.parameters.model_validate(settings.parameters)
    codec = implementation(entry)(
        parameters, rate_index=settings.rate_index, pretrained=settings.starts_pretrained
    )
    source = settings.weights.source
    if source == "pretrained":
        with published_weights(settings.name):
            codec.load_pretrained(settings.rate_index)
    elif source != "random":
        _load(codec, settings, "codec")
    return suit_cpu(codec).to(memory_format=torch.channels_last)


def build_task(settings: TaskSpec) -> Any:
    """Return the task network of a job's ``task`` section, with its initial or final weights."""
    entry = TASKS[settings.name]
    parameters = entry.parameters.model_validate(settings.parameters)
    task = implementation(entry)(parameters, pretrained=settings.starts_pretrained)
    source = settings.weights.source
    if source == "pretrained":
        with published_weights(settings.name):
            task.load_pretrained()
    elif source not in ("random", None):
        _load(task, settings, "task")
    return suit_cpu(task).to(memory_format=torch.channels_last)


def _load(module: Any, settings: CodecSpec | TaskSpec, part: str) -> None:
    """Load trained weights; those of another network as far as names and shapes agree."""
    names = {settings.name}
    if part == "codec":
        names.update(CODECS[settings.name].shares_weights_with)
    weights = settings.weights
    assert weights.path is not None
    own = weights.of in names and weights.part == part
    load_part(module, weights.path, weights.part, partial=not own)
