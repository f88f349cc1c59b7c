"""From the files of an operating point to the run it should be in MLflow."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from icmbench.config.summary import PlanSummary, PointSummary
from icmbench.errors import damaged_file, unknown
from icmbench.utils.files import read_object

Status = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
Json = dict[str, Any]

#: A training run with status ``running`` that has written nothing for this many seconds is dead.
STALE_S = 600.0
#: Longest parameter and tag; MLflow takes 6000 and 8000 characters.
MAX_PARAMETER, MAX_TAG = 500, 5000

_STATUS: dict[str, Status] = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}
# Paths on this machine, and what tags hold already.
_NO_PARAMETERS = frozenset({"key", "output", "folder", "manifest", "modules"})
# What every training run leaves in run.json.
_NEEDED = (
    *("status", "started", "finished", "steps", "steps_done", "final", "parameters", "job"),
    *("dataset", "environment", "weights_sha256", "fingerprint", "error"),
)


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
        started: Unix milliseconds.
        ended: Unix milliseconds; None for a run that has not ended.
        parent: key of the parent run.
        parameters: settings, as text.
        tags: other text.
        values: of all metrics; those that a training run in progress adds come last.
        data: data sets read.
        artefacts: small files to attach.
        model: registered model that gets ``weights.pt`` of ``folder`` as a version.
        folder: the operating point's files.
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
    model: str | None = None
    folder: Path = Path()


def read_point(
    root: Path, plan: PlanSummary, point: PointSummary, parent: str, name: str, rows: list[Json]
) -> tuple[Run | None, bool]:
    """Return the run of an operating point, None without files, and whether it is final.

    Args:
        root: ``results/<scale>``.
        plan: content of ``plan.json``.
        point: one of the plan that is trained, evaluated or both.
        parent: key of the variant's run.
        name: of the variant, to display.
        rows: of the operating point in ``curves.csv``.

    Raises:
        UserError: naming the file that cannot be read.
    """
    folder = root / "runs" / point.key
    training = _record(folder / "run.json", *_NEEDED) if point.trained else {}
    evaluation = _record(folder / "evaluate.json", "metrics", "dataset") if point.evaluated else {}
    if not training and not evaluation:
        return None, False
    status = _status(folder, training)
    trained, running = bool(training) and status == "FINISHED", status == "RUNNING"
    log = list(_training_log(folder / "metrics.jsonl")) if training else []
    started, ended, measured = _times(folder, training, evaluation, running, log)
    model = _model(plan, point) if trained and (folder / "weights.pt").is_file() else None
    tags = {
        **point.model_dump(exclude={"key", "folder", "trained", "evaluated"}),
        **_environment((training or evaluation).get("environment") or {}),
        "kind": "operating point",
        "stage": "evaluated" if evaluation else "trained" if trained else "training",
        "mlflow.note.content": _note(point, model),
    }
    if training:
        tags |= {name: training[name] for name in ("fingerprint", "error", "weights_sha256")}
        tags["training_data.digest"] = training["dataset"]["digest"]
    if training and not running:  # steps and run.json change with every checkpoint
        tags["steps"] = f"{training['steps_done']}/{training['steps']}"
    if trained:
        tags["weights_path"] = (folder / "weights.pt").relative_to(root.parent).as_posix()
    records = ("evaluate.json",) if running else ("run.json", "evaluate.json")
    run = Run(
        key=point.key,
        name=f"{name}, rate {point.rate_index}, seed {point.seed}",
        status=status,
        started=started,
        ended=ended,
        parent=parent,
        parameters=_parameters(root, point, training),
        tags=texts(tags),
        values=numbers(_results(point, training, evaluation, rows), measured) + log,
        data=list(_data(plan, training, evaluation)),
        artefacts=[folder / record for record in records if (folder / record).is_file()],
        model=model,
        folder=folder,
    )
    return run, trained >= point.trained and bool(evaluation) >= point.evaluated


def _record(path: Path, *needed: str) -> Json:
    """Return the content of a record, empty if there is none."""
    if not path.exists():
        return {}
    return read_object(path, *needed)


def _status(folder: Path, training: Json) -> Status:
    status = training.get("status", "finished")  # without training, there is an evaluation
    if status not in _STATUS:
        raise damaged_file(folder / "run.json", unknown("status", status, _STATUS))
    files = [path for path in (folder / "run.json", folder / "metrics.jsonl") if path.exists()]
    if status == "running" and time.time() - max(map(written, files)) / 1000 > STALE_S:
        return "KILLED"
    return _STATUS[status]


def _times(
    folder: Path, training: Json, evaluation: Json, running: bool, log: list[Value]
) -> tuple[int, int | None, int]:
    """Return start, end and the time of results, in Unix milliseconds."""
    evaluated = written(folder / "evaluate.json") if evaluation else 0
    if not training:
        return evaluated - round(1000 * evaluation.get("wall_seconds", 0)), evaluated, evaluated
    # A resumed training run has a new start; its log keeps the first one.
    started = min([round(1000 * training["started"]), *(value.time for value in log[:1])])
    finished = round(1000 * (training["finished"] or 0)) or written(folder / "run.json")
    return started, None if running else finished, evaluated or (started if running else finished)


def _training_log(path: Path) -> Iterator[Value]:
    """Yield the values of ``metrics.jsonl``, except those of a row that is not complete."""
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
            split, step, time_ms = row["split"], row["step"], round(1000 * row["time"])
            measured = {name: float(v) for name, v in row["values"].items() if v is not None}
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # cut off by a kill, or still being written
        for name, value in measured.items():
            yield Value(f"{split}/{name}", value, time_ms, step)


def _parameters(root: Path, point: PointSummary, training: Json) -> dict[str, str]:
    """Return the settings of the training job, or of the evaluation without one."""
    if training:
        return flatten(training["job"])
    curve = root / "plan" / "evaluate" / point.study / f"{point.variant}.json"
    jobs = read_object(curve, "jobs")["jobs"] if curve.is_file() else []
    return flatten(next((job for job in jobs if job["key"] == point.key), {}))


def _results(point: PointSummary, training: Json, evaluation: Json, rows: list[Json]) -> Json:
    """Return final values by name: of the tables, the evaluation and the training run."""
    values: Json = {}
    for row in rows:
        metric = row["metric"]
        values |= {name: value for name, value in row.items() if name.startswith("bpp")}
        values |= {metric: row["value"], "n_images": row.get("n_images")}
        values |= {f"interval/{metric}_{bound}": row.get(bound) for bound in ("low", "high")}
    values |= evaluation.get("metrics", {})
    if point.encoding is None:  # the 24 bpp of original images would flatten every plot
        values = {name: value for name, value in values.items() if not name.startswith("bpp")}
    if evaluation:
        values["n_images"] = evaluation.get("n_images")
        values["cost/evaluate_wall_seconds"] = evaluation.get("wall_seconds")
        values["cost/evaluate_cpu_seconds"] = evaluation.get("cpu_seconds")
    if training.get("status") == "finished":
        values |= {f"final/{name}": value for name, value in training["final"].items()}
        values |= {f"parameters/{part}": count for part, count in training["parameters"].items()}
        values["cost/train_wall_seconds"] = training.get("wall_seconds")
        values["cost/train_cpu_seconds"] = training.get("cpu_seconds")
    return values


def _environment(environment: Json) -> Json:
    rest = {k: v for k, v in environment.items() if k not in ("versions", "git_commit")}
    commit = environment.get("git_commit")
    return {
        **flatten({"environment": rest, "version": environment.get("versions") or {}}),
        # The second name is the one that MLflow shows as the version of the source.
        **{"git_commit": commit, "mlflow.source.git.commit": commit},
    }


def _data(plan: PlanSummary, training: Json, evaluation: Json) -> Iterator[DataUse]:
    for record, context in ((training, "training"), (evaluation, "evaluation")):
        if record:
            dataset = record["dataset"]
            settings = plan.datasets[dataset["role"]].settings.model_dump_json()
            name = f"{dataset['name']}:{dataset.get('split', 'train')}"
            yield DataUse(name, dataset["digest"], context, settings)


def _model(plan: PlanSummary, point: PointSummary) -> str:
    """Return e.g. ``icmbench.chamain2021.mini.hyperprior.faster-rcnn.j-ft``, without / and :."""
    parts = (plan.run.tracking.experiment, point.study, point.scale, point.variant)
    return re.sub(r"[/:']", ".", "/".join(parts))


def _note(point: PointSummary, model: str | None) -> str:
    rate = f" at {point.rate_parameter} {point.rate_value}" if point.rate_parameter else ""
    link = f". [Registered weights](#/models/{model})" if model else ""
    return f"**{point.label}**{rate}, seed {point.seed}{link}"


# --- text, numbers and times as MLflow takes them -------------------------------------------------


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as text by dotted names, e.g. ``schedule.steps``.

    The level ``parameters`` is left out of names, lists are joined by commas and long values cut.
    """
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, prefix if name == "parameters" else f"{prefix}{name}.")
        elif name not in _NO_PARAMETERS:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            flat[f"{prefix}{name}"] = text[:MAX_PARAMETER]
    return flat


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the entries that are not None as text."""
    return {name: str(value)[:MAX_TAG] for name, value in values.items() if value is not None}


def numbers(values: Mapping[str, Any], time_ms: int) -> list[Value]:
    """Return the entries that are finite numbers: an undefined PSNR is not a value of a run."""
    return [
        Value(name, float(value), time_ms)
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    ]


def written(path: Path) -> int:
    """Return when a file was last written, in Unix milliseconds."""
    return path.stat().st_mtime_ns // 1_000_000
