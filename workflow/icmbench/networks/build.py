"""Build codecs and task networks from a job's settings and load their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from icmbench.jobs import CodecSpec, TaskSpec, WeightsSpec
from icmbench.networks.convolutions import suit_cpu
from icmbench.networks.pretrained import published_weights
from icmbench.networks.weights import load_own, load_same, load_start, read_own, read_part
from icmbench.registry import CODECS, TASKS, CodecEntry, TaskEntry, implementation

State = Mapping[str, Any]


def build_codec(settings: CodecSpec) -> Any:
    """Return the learned codec of a job, with its initial or final weights.

    ``loaded`` of it is the record of what it took from a file of the user's or of another codec.
    """
    entry, weights = CODECS[settings.name], settings.weights
    kind = implementation(entry)
    parameters = entry.parameters.model_validate(settings.parameters)
    state = _read(weights)
    if weights.source == "pretrained":
        parameters = kind.published_parameters(parameters, weights.rate)
    elif settings.starts_pretrained and state is not None:
        parameters = kind.parameters_of(parameters, state)
    codec = kind(parameters, rate=settings.rate)
    if weights.source == "pretrained":
        with published_weights(settings.name):
            codec.load_pretrained(weights.rate)
    same = {settings.name, *entry.shares_weights_with}
    return _loaded(codec, state, settings, same, f"codec {settings.name!r}")


def build_task(settings: TaskSpec) -> Any:
    """Return the task network of a job, with its initial or final weights; see above."""
    entry, weights = TASKS[settings.network], settings.weights
    parameters = entry.parameters.model_validate(settings.parameters)
    state = _read(weights)
    kind = implementation(entry)
    as_published = settings.starts_pretrained
    if as_published and state is not None:
        as_published = getattr(kind, "is_as_published", lambda _: True)(state)
    task = kind(parameters, pretrained=as_published)
    if weights.source == "pretrained":
        with published_weights(settings.name):
            task.load_pretrained()
    return _loaded(task, state, settings, {settings.name}, f"task {settings.name!r}")


def check_network(settings: TaskSpec) -> None:
    """Check names and files of a network that is used as it is, without its published weights.

    A network that has its weights is tried on a small grey image.

    Raises:
        UserError: for a name that its library does not have, a missing or damaged file, and answers
            of another form or in other classes than the parameters state.
    """
    entry = TASKS[settings.network]
    parameters = entry.parameters.model_validate(settings.parameters)
    network = implementation(entry)(parameters, pretrained=True)
    if entry.pretrained is None:
        network.predict([torch.full((3, 64, 96), 0.5)])


def _read(weights: WeightsSpec) -> State | None:
    """Return what a job's weights file holds, or None where there is none."""
    if weights.path is None:
        return None
    if weights.own:
        return read_own(weights.path, weights.part, weights.sha256)
    return read_part(weights.path, weights.part, weights.sha256)


def _loaded(
    network: Any, state: State | None, settings: CodecSpec | TaskSpec, same: set[str], what: str
) -> Any:
    """Return a network with its weights, if it has a file of them, in the form that jobs run.

    Of other codecs or tasks than ``same``, what must load is in the registry.
    """
    weights = settings.weights
    network.loaded = None
    if state is not None:
        path = Path(str(weights.path))
        part = "codec" if isinstance(settings, CodecSpec) else "task"
        other = weights.of not in same or weights.part != part
        needed = _needed(settings, weights) if other else weights.holds or None
        if weights.own:
            network.loaded = load_own(network, state, path, what, weights.partial, needed)
        elif needed is not None:
            network.loaded = load_start(network, state, needed, path)
        else:
            load_same(network, state, path, part)
    return suit_cpu(network).to(memory_format=torch.channels_last)


def _needed(settings: CodecSpec | TaskSpec, weights: WeightsSpec) -> Sequence[str]:
    """Return what must load from another codec or task, of what the file holds."""
    entry: CodecEntry | TaskEntry
    if isinstance(settings, CodecSpec):
        entry = CODECS[settings.name]
    else:
        entry = TASKS[settings.network]
        if weights.part == "codec":
            return entry.starts_from_codec[str(weights.of)]
    names, held = entry.starts_from[str(weights.of)], tuple(weights.holds)
    return [name for name in names if name.startswith(held)] if held else names
