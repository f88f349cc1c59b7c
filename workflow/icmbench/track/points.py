"""From the folder of an operating point to the run it should be."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icmbench.errors import UserError
from icmbench.track.content import Content, DataUse, Status, finite, flatten, text_tags
from icmbench.track.tables import Tables
from icmbench.track.weights import Weights, weights_of
from icmbench.utils.files import read_object

#: A training that says it runs, but in whose folder nothing was touched for this long, is dead: its
#: lock file is touched every few seconds.
STALE_S = 600.0

_STATUS: dict[str, Status] = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}
# Places of this machine, and what tags say already.
_NO_PARAMETERS = frozenset({"key", "output", "folder", "manifest", "modules"})


@dataclass(frozen=True)
class PointState:
    """A point's run, None before its first file, and whether it is all there."""

    content: Content | None
    complete: bool


def read_point(
    root: Path, plan: dict[str, Any], point: dict[str, Any], tables: Tables
) -> PointState:
    """Return what the files of an operating point say.

    Args:
        root: ``results/<scale>``.
        plan: content of ``plan.json``.
        point: an entry of the plan's ``points``.
        tables: the result tables.

    Raises:
        UserError: naming the file that cannot be understood.
    """
    folder = root / "runs" / point["key"]
    training = _read(folder / "run.json", "status", "started") if point["trained"] else None
    evaluation = _read(folder / "evaluate.json", "metrics") if point["evaluated"] else None
    if training is None and evaluation is None:
        return PointState(None, False)
    status = _status(folder, training)
    complete = (evaluation is not None or not point["evaluated"]) and status == "FINISHED"
    stage = "evaluated" if evaluation else "trained" if status == "FINISHED" else "training"
    job = _job(root, point, training)
    weights = weights_of(root, plan, point, training) if status == "FINISHED" else None
    content = Content(
        key=point["key"],
        name=run_name(plan, point),
        status=status,
        **_times(folder, training, evaluation, status),
        parameters=flatten({k: v for k, v in _without_paths(job).items() if v is not None}),
        tags={
            **text_tags({name: point[name] for name in _POINT_TAGS}),
            **_environment_tags((training or evaluation or {}).get("environment") or {}),
            **_training_tags(root, folder, training),
            "kind": "operating point",
            "stage": stage,
            "mlflow.note.content": _note(point, weights),
        },
        values={
            **tables.point_values(point),
            **_evaluation_values(point, evaluation),
            **_training_values(training),
        },
        history=folder / "metrics.jsonl" if training else None,
        data=_data(plan, point, training, evaluation),
        artefacts=tuple(
            folder / name
            for name in ("run.json", "evaluate.json")
            # While a training runs, its file changes with every checkpoint.
            if name != "run.json" or status != "RUNNING"
        ),
        weights=weights,
    )
    return PointState(content, complete)


_POINT_TAGS = (
    "study",
    "variant",
    "label",
    "codec",
    "task",
    "mode",
    "dataset",
    "rate_index",
    "rate_parameter",
    "rate_value",
    "seed",
    "scale",
    "encoding",
)


def run_name(plan: dict[str, Any], point: dict[str, Any]) -> str:
    """Return e.g. ``j-ft hyperprior rate2 seed0``; the variant's name where that is ambiguous."""
    variants = plan["studies"][point["study"]]["variants"]
    title = _title(point["variant"], point["mode"])
    if sum(_title(name, variant["mode"]) == title for name, variant in variants.items()) > 1:
        title = point["variant"]
    return f"{title} rate{point['rate_index']} seed{point['seed']}"


def _note(point: dict[str, Any], weights: Weights | None) -> str:
    rate = f" at {point['rate_parameter']} {point['rate_value']}" if point["rate_parameter"] else ""
    note = f"**{point['label']}**{rate}, seed {point['seed']}"
    return note if weights is None else f"{note}. [Registered weights](#/models/{weights.name})"


def _title(variant: str, mode: str) -> str:
    return f"{mode} {variant.partition('/')[0]}"


def _read(path: Path, *needed: str) -> dict[str, Any] | None:
    if not path.exists():
        return None
    return read_object(path, *needed)


def _status(folder: Path, training: dict[str, Any] | None) -> Status:
    if training is None:
        return "FINISHED"  # nothing to train, and evaluated
    if training["status"] not in _STATUS:
        raise UserError(
            f"{folder / 'run.json'}: status is {training['status']!r}; "
            f"allowed: {', '.join(_STATUS)}; run its job again"
        )
    if training["status"] == "running" and time.time() - _touched(folder) > STALE_S:
        return "KILLED"
    return _STATUS[training["status"]]


def _touched(folder: Path) -> float:
    """Return when anything in a folder was last written, in Unix seconds."""
    newest = 0.0
    for path in folder.iterdir():
        try:
            newest = max(newest, path.stat().st_mtime)
        except FileNotFoundError:
            continue  # a temporary file, renamed in the meantime
    return newest


def _times(
    folder: Path,
    training: dict[str, Any] | None,
    evaluation: dict[str, Any] | None,
    status: Status,
) -> dict[str, Any]:
    evaluated = folder / "evaluate.json"
    written = evaluated.stat().st_mtime_ns // 1_000_000 if evaluation else 0
    if training is None:
        seconds = (evaluation or {}).get("wall_seconds") or 0.0
        return {"started": written - round(seconds * 1000), "ended": written, "time": written}
    started = round(training["started"] * 1000)
    ended = round(training["finished"] * 1000) if training.get("finished") else None
    if status == "KILLED" and ended is None:
        ended = round((folder / "run.json").stat().st_mtime * 1000)
    if status == "RUNNING":
        ended = None
    # A resumed training has a new start; its log keeps the first one.
    return {
        "started": min(started, _first_time(folder / "metrics.jsonl") or started),
        "ended": ended,
        "time": written or ended or started,
    }


def _first_time(path: Path) -> int | None:
    try:
        with path.open("rb") as stream:
            return round(json.loads(stream.readline())["time"] * 1000)
    except (OSError, ValueError, KeyError):
        return None


def _job(root: Path, point: dict[str, Any], training: dict[str, Any] | None) -> dict[str, Any]:
    job = (training.get("job") or {}) if training is not None else _evaluate_job(root, point)
    names = ("study", "variant", "mode", "rate_index", "rate_parameter", "rate_value", "seed")
    return {**job, **{name: point[name] for name in names}}


def _evaluate_job(root: Path, point: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a point's evaluation, from the plan of its curve."""
    curve = root / "plan" / "evaluate" / point["study"] / f"{point['variant']}.json"
    try:
        jobs = read_object(curve, "jobs")["jobs"]
    except FileNotFoundError:
        raise UserError(f"{curve}: is not there; call Snakemake again, which writes it") from None
    found: list[dict[str, Any]] = [job for job in jobs if job["key"] == point["key"]]
    if not found:
        raise UserError(f"{curve}: has no point {point['key']}; call Snakemake again")
    return found[0]


def _without_paths(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: _without_paths(v) for k, v in value.items() if k not in _NO_PARAMETERS}


def _environment_tags(environment: dict[str, Any]) -> dict[str, str]:
    apart = ("versions", "git_commit")
    flat = flatten({k: v for k, v in environment.items() if k not in apart and v is not None})
    versions = flatten(environment.get("versions") or {})
    commit = environment.get("git_commit")
    return {
        **{f"environment.{name}": value for name, value in flat.items()},
        **{f"version.{name}": value for name, value in versions.items()},
        # The name that MLflow's interface links and shows as the version.
        **text_tags({"git_commit": commit, "mlflow.source.git.commit": commit}),
    }


def _training_tags(root: Path, folder: Path, training: dict[str, Any] | None) -> dict[str, str]:
    if training is None:
        return {}
    weights = folder / "weights.pt"
    digest = training.get("weights_sha256")
    return text_tags(
        {
            "steps": f"{training.get('steps_done')}/{training.get('steps')}",
            "fingerprint": training.get("fingerprint"),
            "error": training.get("error"),
            "weights_sha256": digest,
            "weights_path": weights.relative_to(root.parent) if digest else None,
            "training_data.digest": (training.get("dataset") or {}).get("digest"),
        }
    )


def _training_values(training: dict[str, Any] | None) -> dict[str, float]:
    if training is None or training["status"] != "finished":
        return {}
    counts = training.get("parameters") or {}
    return finite(
        {
            **{f"final/{name}": value for name, value in (training.get("final") or {}).items()},
            **{f"parameters/{name}": value for name, value in counts.items()},
            "cost/train_wall_seconds": training.get("wall_seconds"),
            "cost/train_cpu_seconds": training.get("cpu_seconds"),
        }
    )


def _evaluation_values(
    point: dict[str, Any], evaluation: dict[str, Any] | None
) -> dict[str, float]:
    if evaluation is None:
        return {}
    rated = point["encoding"] is not None
    metrics = evaluation["metrics"]
    return finite(
        {
            **{k: v for k, v in metrics.items() if rated or not k.startswith("bpp")},
            "n_images": evaluation.get("n_images"),
            "cost/evaluate_wall_seconds": evaluation.get("wall_seconds"),
            "cost/evaluate_cpu_seconds": evaluation.get("cpu_seconds"),
        }
    )


def _data(
    plan: dict[str, Any],
    point: dict[str, Any],
    training: dict[str, Any] | None,
    evaluation: dict[str, Any] | None,
) -> tuple[DataUse, ...]:
    uses = []
    for record, context, split in ((training, "training", "train"), (evaluation, "evaluation", "")):
        dataset = (record or {}).get("dataset") or {}
        if not dataset.get("digest"):
            continue
        settings = plan["datasets"].get(dataset.get("role", point["dataset"]), {})
        source = {k: v for k, v in settings.items() if k not in ("folder", "manifest")}
        name = dataset.get("name") or settings.get("source") or point["dataset"]
        uses.append(
            DataUse(
                name=f"{name}:{split or dataset.get('split', 'test')}",
                digest=str(dataset["digest"]),
                context=context,
                source=json.dumps(source, sort_keys=True),
            )
        )
    return tuple(uses)
