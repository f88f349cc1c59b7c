"""What a run in MLflow should hold, whatever it is made from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from icmbench.track.weights import Weights

#: Longest parameter value; MLflow takes 6000 characters, a table cell is read up to here.
MAX_PARAMETER = 500
#: MLflow takes 8000.
MAX_TAG = 5000

Status = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class DataUse:
    """A data set that a run read.

    Attributes:
        name: name and split, e.g. ``embedded-scenes:test``.
        digest: of the data, in hexadecimal; MLflow keeps the first 32 digits.
        context: ``training`` or ``evaluation``.
        source: what it is, as JSON.
    """

    name: str
    digest: str
    context: str
    source: str


@dataclass(frozen=True)
class Content:
    """One run as it should be in MLflow.

    Attributes:
        key: stable name within an experiment; the tag ``run_key``.
        name: for people.
        status: MLflow's run status.
        started: Unix milliseconds.
        ended: Unix milliseconds, None while it goes on.
        parameters: settings, as text.
        tags: everything else that is text; it may change later, parameters and values may not.
        values: final numbers by metric.
        series: (step, value) pairs by metric.
        time: of values and series, in Unix milliseconds.
        history: the ``metrics.jsonl`` of a training.
        data: data sets read.
        artefacts: small files to attach; missing ones are passed over.
        weights: final weights to register.
    """

    key: str
    name: str
    status: Status
    started: int
    ended: int | None
    time: int
    parameters: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    series: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    history: Path | None = None
    data: tuple[DataUse, ...] = ()
    artefacts: tuple[Path, ...] = ()
    weights: Weights | None = None


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as parameters, e.g. ``schedule.steps`` or ``codec.channels``.

    The level ``parameters`` is left out of names, lists are joined by commas and long values cut.
    """
    flat: dict[str, str] = {}
    for name, value in settings.items():
        inner = prefix if name == "parameters" else f"{prefix}{name}."
        if isinstance(value, Mapping):
            flat |= flatten(value, inner)
        elif isinstance(value, list):
            flat[f"{prefix}{name}"] = cut(",".join(map(str, value)), MAX_PARAMETER)
        else:
            flat[f"{prefix}{name}"] = cut(str(value), MAX_PARAMETER)
    return flat


def cut(text: str, length: int) -> str:
    """Return ``text``, shortened to ``length`` characters where it is longer."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the entries that are finite numbers: an undefined PSNR is no value of a run."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(float(value))
    }


def text_tags(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the entries that are not None as tags."""
    return {k: cut(str(v), MAX_TAG) for k, v in values.items() if v is not None}
