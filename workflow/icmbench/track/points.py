"""From the files of an operating point to the run it should be in MLflow."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import pandas as pd

from icmbench.config.summary import PlanSummary, PointSummary
from icmbench.jobs import EvaluateCurve, read_job
from icmbench.metrics.catalogue import PIXEL_METRICS, find_metric
from icmbench.summaries import EvaluationSummary, RunStatus, TrainingSummary
from icmbench.utils.environment import JobEnvironment
from icmbench.utils.models import read_model

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
Summary = TypeVar("Summary", TrainingSummary, EvaluationSummary)

#: Longest parameter and tag; MLflow takes 6000 and 8000 characters.
LONGEST = 5000

_STATUS: dict[RunStatus, Status] = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}
# Paths on this machine, and what tags hold already.
_NO_PARAMETERS = frozenset({"key", "output", "folder", "manifest", "modules"})
#: MLflow's scatter plot of compared runs begins with the first parameter and the first metric by
#: name, capitals before small letters: these, and :func:`_leading`.
RATE = "Bits per pixel"


class Value(NamedTuple):
    """A value of a metric; ``time`` in Unix milliseconds."""

    name: str
    value: float
    time: int
    step: int = 0


class DataUse(NamedTuple):
    """A data set that a run read: its name and split, for training or evaluation, as JSON."""

    name: str
    sha256: str
    context: str
    settings: str


@dataclass(frozen=True)
class Run:
    """A run as it should be in MLflow.

    Attributes:
        key: stable name within an experiment.
        name: name to display.
        status: MLflow's run status.
        started, ended: Unix milliseconds; ended is None for a run that has not.
        parent: key of the parent run.
        parameters: settings, as text.
        tags: other text.
        values: of all metrics; those that a training run in progress adds come last.
        data: data sets read.
        artefacts: small files to attach.
        weights: of a finished training run, which become a version of a registered model.
    """

    key: str
    name: str
    status: Status
    started: int
    ended: int | None
    parent: str | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    values: list[Value] = field(default_factory=list)
    data: list[DataUse] = field(default_factory=list)
    artefacts: list[Path] = field(default_factory=list)
    weights: Path | None = None


def read_point(
    root: Path, plan: PlanSummary, point: PointSummary, parent: str, name: str, curves: pd.DataFrame
) -> tuple[Run | None, bool]:
    """Return the run of an operating point, None without files, and whether it is final.

    Args:
        root: ``results/<scale>``.
        plan: content of ``plan.json``.
        point: one of the plan that is trained, evaluated or both.
        parent: key of the variant's run.
        name: of the variant, to display.
        curves: ``curves.csv``.

    Raises:
        UserError: naming the file that cannot be read.
    """
    folder = point.inside(root)
    records = [path for path in (folder / "run.json", folder / "evaluate.json") if path.is_file()]
    training = _read(folder / "run.json", TrainingSummary) if point.trained else None
    evaluation = _read(folder / "evaluate.json", EvaluationSummary) if point.evaluated else None
    job = training or evaluation
    if job is None:
        return None, False
    status = _STATUS[training.status] if training else "FINISHED"
    weights = folder / "weights.pt" if training and status == "FINISHED" else None
    if training:
        ended = None if training.finished is None else round(1000 * training.finished)
        started = round(1000 * training.started)
    else:
        ended = written(folder / "evaluate.json")
        started = ended - round(1000 * job.wall_seconds)
    tags: dict[str, object] = {
        **point.model_dump(exclude={"key", "folder", "trained", "evaluated"}),
        **_environment(job.environment),
        "kind": "operating point",
    }
    if training:
        tags |= training.model_dump(include={"fingerprint", "error", "weights_sha256"})
    if weights:
        tags["weights_path"] = weights.relative_to(root.parent).as_posix()
    results = _results(point, training, evaluation, curves)
    parameters = _parameters(root, point, training)
    results = _leading(parameters.get("task.metrics", ""), results) | results
    run = Run(
        key=point.key,
        name=f"{name}, rate {point.rate_index}, seed {point.seed}",
        status=status,
        started=started,
        ended=ended,
        parent=parent,
        parameters=parameters | texts({RATE: results.get("bpp")}),
        tags=texts(tags),
        values=[
            *numbers(results, ended or started),
            *(_training_log(folder / "metrics.jsonl") if training else ()),
        ],
        data=list(_data(plan, training, evaluation)),
        # run.json changes with every checkpoint.
        artefacts=records if ended else [],
        weights=weights,
    )
    trained = bool(training) and status == "FINISHED"
    return run, trained >= point.trained and bool(evaluation) >= point.evaluated


def _read(path: Path, model: type[Summary]) -> Summary | None:
    return read_model(path, model) if path.exists() else None


def _training_log(path: Path) -> Iterator[Value]:
    """Yield the values of ``metrics.jsonl``, except those of a row that is not complete."""
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # cut off by a kill, or still being written
        for name, value in row["values"].items():
            yield Value(f"{row['split']}/{name}", value, round(1000 * row["time"]), row["step"])


def _parameters(
    root: Path, point: PointSummary, training: TrainingSummary | None
) -> dict[str, str]:
    """Return the settings of the training job, or of the evaluation without one."""
    if training:
        return flatten(training.job.model_dump())
    path = root / "plan" / "evaluate" / point.study / f"{point.variant}.json"
    jobs = read_job(path, EvaluateCurve).jobs
    return flatten(next(job for job in jobs if job.key == point.key).model_dump())


def _results(
    point: PointSummary,
    training: TrainingSummary | None,
    evaluation: EvaluationSummary | None,
    curves: pd.DataFrame,
) -> dict[str, object]:
    """Return final values by name: of the tables, the evaluation and the training run."""
    values: dict[str, object] = {}
    own = "variant == @point.variant and rate_index == @point.rate_index and seed == @point.seed"
    for row in curves.query(own).to_dict("records"):
        metric = row["metric"]
        values |= {str(name): value for name, value in row.items() if str(name).startswith("bpp")}
        values |= {metric: row["value"], "n_images": row["n_images"]}
        values |= {f"interval/{metric}_{bound}": row[bound] for bound in ("low", "high")}
    if evaluation:
        values |= {**evaluation.metrics, "n_images": evaluation.n_images}
        values["cost/evaluate_wall_seconds"] = evaluation.wall_seconds
        values["cost/evaluate_cpu_seconds"] = evaluation.cpu_seconds
    if point.encoding is None:  # the 24 bpp of original images would flatten every plot
        values = {name: value for name, value in values.items() if not name.startswith("bpp")}
    if training and training.status == "finished":
        values |= {f"final/{name}": value for name, value in training.final.items()}
        values |= {f"parameters/{part}": count for part, count in training.parameters.items()}
        values["cost/train_wall_seconds"] = training.wall_seconds
        values["cost/train_cpu_seconds"] = training.cpu_seconds
    return values


def _leading(metrics: str, results: dict[str, object]) -> dict[str, float]:
    """Return the first of a task's metrics by title and unit, e.g. ``Box mAP in percent``."""
    metric = find_metric(metrics.split(",")[0] or PIXEL_METRICS[0])
    unit = f" in {metric.unit.replace('%', 'percent')}" if metric.unit else ""
    name, value = re.sub(r"[^\w.\- ]+", "", metric.title + unit), results.get(metric.name)
    return {name: value * metric.factor} if isinstance(value, int | float) else {}


def _environment(environment: JobEnvironment) -> dict[str, str | None]:
    machine = {k: v for k, v in environment.items() if k not in ("versions", "git_commit")}
    return {
        **flatten({"environment": machine, "version": environment["versions"]}),
        # MLflow shows it as the version of the source.
        "mlflow.source.git.commit": environment["git_commit"],
    }


def _data(
    plan: PlanSummary, training: TrainingSummary | None, evaluation: EvaluationSummary | None
) -> Iterator[DataUse]:
    for job, context in ((training, "training"), (evaluation, "evaluation")):
        if job:
            settings = plan.datasets[job.dataset.role].settings.model_dump_json()
            name = f"{job.dataset.name}:{job.dataset.split}"
            yield DataUse(name, job.dataset.digest, context, settings)


# --- text, numbers and times as MLflow takes them -------------------------------------------------


def flatten(settings: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Return nested settings as text by dotted names, e.g. ``schedule.steps``.

    The level ``parameters`` is left out of names, lists are joined by commas and long values cut.
    """
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, prefix if name == "parameters" else f"{prefix}{name}.")
        elif name not in _NO_PARAMETERS:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            flat[f"{prefix}{name}"] = text[:LONGEST]
    return flat


def texts(values: Mapping[str, object]) -> dict[str, str]:
    """Return the entries that are not None as text."""
    return {name: str(value)[:LONGEST] for name, value in values.items() if value is not None}


def numbers(values: Mapping[str, object], time_ms: int) -> list[Value]:
    """Return the entries that are finite numbers: an undefined PSNR is not a value of a run."""
    return [
        Value(name, float(value), time_ms)
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    ]


def written(path: Path) -> int:
    """Return when a file was last written, in Unix milliseconds."""
    return path.stat().st_mtime_ns // 1_000_000
