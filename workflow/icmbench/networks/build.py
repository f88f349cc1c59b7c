"""Build codecs and task networks from a job's settings and load their weights."""

from __future__ import annotations

from typing import Any

import torch

from icmbench.jobs import CodecSpec, TaskSpec
from icmbench.networks.convolutions import suit_cpu
from icmbench.networks.pretrained import published_weights
from icmbench.networks.weights import load_part
from icmbench.registry import CODECS, TASKS, implementation


def build_codec(settings: CodecSpec) -> Any:
    """Return the learned codec of a job, with its initial or final weights."""
    entry = CODECS[settings.name]
    parameters = entry.parameters.model_validate(settings.parameters)
    codec = implementation(entry)(
        parameters, rate_index=settings.rate_index, pretrained=settings.starts_pretrained
    )
    if settings.weights.source == "pretrained":
        with published_weights(settings.name):
            codec.load_pretrained(settings.rate_index)
    return _loaded(codec, settings, {settings.name, *entry.shares_weights_with})


def build_task(settings: TaskSpec) -> Any:
    """Return the task network of a job, with its initial or final weights."""
    entry = TASKS[settings.registered]
    parameters = entry.parameters.model_validate(settings.parameters)
    task = implementation(entry)(parameters, pretrained=settings.starts_pretrained)
    if settings.weights.source == "pretrained":
        with published_weights(settings.name):
            task.load_pretrained()
    return _loaded(task, settings, {settings.name})


def check_network(settings: TaskSpec) -> None:
    """Check names and files of a network that is used as it is, without its published weights.

    Raises:
        UserError: for a name that its library does not have, a missing or damaged file.
    """
    entry = TASKS[settings.registered]
    implementation(entry)(entry.parameters.model_validate(settings.parameters), pretrained=True)


def _loaded(network: Any, settings: CodecSpec | TaskSpec, same: set[str]) -> Any:
    """Return a network with its trained weights, if it has any, in the form that jobs run.

    Weights of other codecs or tasks than ``same`` are loaded as far as names and shapes agree.
    """
    weights = settings.weights
    if weights.path is not None:
        part = "codec" if isinstance(settings, CodecSpec) else "task"
        own = weights.of in same and weights.part == part
        load_part(network, weights.path, weights.part, not own, weights.sha256)
    return suit_cpu(network).to(memory_format=torch.channels_last)
