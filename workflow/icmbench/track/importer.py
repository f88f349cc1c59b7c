"""Import a scale's results into MLflow: one pass, each run found again by its key."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from icmbench.config.summary import read_summary
from icmbench.errors import UserError
from icmbench.track.model import mlmodel
from icmbench.track.points import DataUse, Run, Value
from icmbench.track.store import artifact_root, open_store, store_address
from icmbench.track.studies import StudyRuns, read_studies
from icmbench.utils.files import digest_json, link, sha256_file, write_json
from icmbench.utils.secrets import hide_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as StoredRun

KEY = "run_key"
_PARENT, _NOTE = "mlflow.parentRunId", "mlflow.note.content"
# The number of values of a run and a digest of its content, set last: a run without it was cut off.
_CONTENT = "icmbench.content"
# MLflow's limits: runs of a page, values and parameters of a call, length of a data set's digest.
_PAGE, _BATCH, _PARAMETERS, _DIGEST = 50_000, 900, 100, 32
_LONGEST = 300  # characters of an error; MLflow's may be a page

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportResult:
    """What an import did; the content of ``tracking.json``.

    Attributes:
        status: "failed" if the plan, a table or the store failed.
        runs: runs of the results folder.
        changed: runs that are new, replaced, or longer than before.
        complete: whether every operating point is trained and evaluated as planned.
        problems: why it failed, or messages of files that cannot be read; their runs are left out.
    """

    status: Literal["done", "failed"] = "done"
    runs: int = 0
    changed: int = 0
    complete: bool = False
    problems: list[str] = field(default_factory=list)


def track(
    root: Path, uri: str | None = None, watch: float | None = None, strict: bool = False
) -> int:
    """Import results into MLflow and return an exit status: the verb ``track``.

    Writes :class:`ImportResult` to ``<root>/tracking.json``, unless it watches. A problem is a
    warning and the status is 0, because the results do not depend on MLflow.

    Args:
        root: ``results/<scale>``.
        uri: see :func:`icmbench.track.store.store_address`.
        watch: seconds between two imports, which are repeated until every operating point is
            complete or Ctrl-C. None imports once.
        strict: whether a problem ends it, with status 1.
    """
    if watch is not None and watch <= 0:
        raise UserError(f"watch is {watch}; it must be above 0 seconds")
    result = _try_sync(root, uri)
    if watch is None:  # the file is the rule's output; a watch beside the workflow leaves it alone
        write_json(root / "tracking.json", asdict(result))
    try:
        while watch is not None and not result.complete and not (strict and result.problems):
            time.sleep(watch)
            result = _try_sync(root, uri)
    except KeyboardInterrupt:
        logger.info("stopped watching")
    return int(strict and bool(result.problems))


def _try_sync(root: Path, uri: str | None) -> ImportResult:
    """Import once and log the outcome; MLflow must not fail a workflow."""
    try:
        result = sync(root, uri)
    except Exception as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        text = hide_secrets(f"{kind}{' '.join(str(error).split())}", uri or "")
        result = ImportResult("failed", problems=[text[:_LONGEST]])
    for problem in result.problems:
        logger.warning("not imported into MLflow: %s", problem)
    if result.status == "done":
        logger.info("MLflow: %d runs, %d of them changed", result.runs, result.changed)
    return result


def sync(root: Path, uri: str | None = None) -> ImportResult:
    """Import the results of a scale into MLflow; a repeat changes nothing.

    The experiment of a study is ``<tracking.experiment>/<study>/<scale>``; its runs are found again
    by the tag ``run_key``. A run that holds what the files hold is left alone, one that lacks the
    last values gets them, any other is deleted and created again. Runs of operating points that
    have left the plan stay.

    Args:
        root: ``results/<scale>``, with ``plan.json``.
        uri: see :func:`icmbench.track.store.store_address`.

    Raises:
        UserError: for a missing plan or a table that cannot be read.
        Exception: of MLflow and its libraries, if the store fails.
    """
    plan = read_summary(root)
    uri = store_address(root, uri, plan.run.tracking.uri)
    # Everything is read first: the store is locked as briefly as possible.
    studies = read_studies(root, plan)
    with open_store(root, uri) as client:
        changed = [
            _push_study(client, study, artifact_root(root, uri)) for study in studies if study.runs
        ]
    return ImportResult(
        runs=sum(len(study.runs) for study in studies),
        changed=sum(changed),
        complete=all(study.complete for study in studies),
        problems=[problem for study in studies for problem in study.problems],
    )


def _push_study(client: MlflowClient, study: StudyRuns, artifacts: str | None) -> int:
    """Bring the runs of a study into its experiment; return how many changed."""
    experiment = _experiment(client, study, artifacts)
    held = {
        run.data.tags.get(KEY): run for run in client.search_runs([experiment], max_results=_PAGE)
    }
    ids: dict[str | None, str] = {}
    changed = 0
    for run in study.runs:
        found, parent = held.get(run.key), ids.get(run.parent)
        count = _values_held(run, found)
        if found is None or count is None:
            if found is not None:
                _delete(client, found.info.run_id)
            ids[run.key] = _create(client, experiment, study.experiment, run, parent)
            changed += 1
            continue
        ids[run.key] = run_id = found.info.run_id
        if parent and found.data.tags.get(_PARENT) != parent:
            client.set_tag(run_id, _PARENT, parent)
        if count < len(run.values):
            _log_batches(client, run_id, run.values[count:])
            client.set_tag(run_id, _CONTENT, _content(run, len(run.values)))
            changed += 1
    images = [image for run in study.runs if (image := _image(run, ids[run.key]))]
    _describe(client, experiment, study.note, images)
    return changed


def _image(run: Run, run_id: str) -> str:
    """Return the plot among the files of a run, in Markdown for MLflow's pages; empty without."""
    names = [path.name for path in run.artefacts if path.suffix == ".svg"]
    return "".join(f"![{name}](get-artifact?path={name}&run_uuid={run_id})" for name in names)


def _experiment(client: MlflowClient, study: StudyRuns, artifacts: str | None) -> str:
    """Return the identifier of a study's experiment, created if it is new."""
    found = client.get_experiment_by_name(study.experiment)
    if found is not None:
        return str(found.experiment_id)
    place = artifacts and f"{artifacts}/{study.experiment}"
    return client.create_experiment(study.experiment, place)


def _describe(client: MlflowClient, experiment: str, note: str, images: list[str]) -> None:
    """Describe an experiment: a link to its curves, its leading plot, and its note."""
    curves = (
        f"#/experiments/{experiment}/runs?searchFilter=tags.kind+%3D+%27variant%27"
        "&orderByKey=tags.%60order%60&orderByAsc=true&compareRunsMode=CHART&workflowType=machine_learning"
    )
    note = "\n\n".join([f"[Rate-accuracy curves]({curves})", *images, note])
    if client.get_experiment(experiment).tags.get(_NOTE) != note:
        client.set_experiment_tag(experiment, _NOTE, note)
        # Otherwise the interface asks for the kind of experiment.
        kind = "custom_model_development"
        client.set_experiment_tag(experiment, "mlflow.experimentKind", kind)


def _content(run: Run, count: int) -> str:
    files = {path.name: sha256_file(path) for path in run.artefacts}
    settings = {**vars(run), "values": run.values[:count], "artefacts": files, "weights": None}
    return f"{count} {digest_json(settings)}"


def _values_held(run: Run, found: StoredRun | None) -> int | None:
    """Return how many values of a run the store holds; None if it holds other content."""
    tag = found.data.tags.get(_CONTENT, "") if found else ""
    count = int(tag.partition(" ")[0] or 0)
    return count if tag == _content(run, count) else None


def _delete(client: MlflowClient, run_id: str) -> None:
    """Move a run to MLflow's deleted runs, and delete its model versions."""
    for version in client.search_model_versions(f"run_id='{run_id}'"):
        client.delete_model_version(version.name, version.version)
    client.delete_run(run_id)


def _create(
    client: MlflowClient, experiment: str, experiment_name: str, run: Run, parent: str | None
) -> str:
    from mlflow.entities import Param

    tags = run.tags | {KEY: run.key} | ({_PARENT: parent} if parent else {})
    created = client.create_run(experiment, run.started, tags, run.name)
    run_id = str(created.info.run_id)
    parameters = [Param(*item) for item in run.parameters.items()]
    for start in range(0, len(parameters), _PARAMETERS):
        client.log_batch(run_id, params=parameters[start : start + _PARAMETERS])
    _log_batches(client, run_id, run.values)
    _log_data(client, run_id, run.data)
    for path in run.artefacts:
        client.log_artifact(run_id, str(path))
    if image := _image(run, run_id):
        client.set_tag(run_id, _NOTE, image)
    if run.weights:
        _attach_model(client, created, run.weights)
        model = re.sub(r"[/:']", ".", f"{experiment_name}/{run.tags['variant']}")
        if not client.search_registered_models(f"name='{model}'"):
            client.create_registered_model(model, description=run.tags["label"])
        client.create_model_version(
            model, f"runs:/{run_id}/model", run_id, run.tags | {KEY: run.key}, description=run.name
        )
    if run.ended is not None:
        client.set_terminated(run_id, run.status, run.ended)
    client.set_tag(run_id, _CONTENT, _content(run, len(run.values)))
    return run_id


def _log_batches(client: MlflowClient, run_id: str, values: list[Value]) -> None:
    from mlflow.entities import Metric

    for start in range(0, len(values), _BATCH):
        metrics = [Metric(*value) for value in values[start : start + _BATCH]]
        client.log_batch(run_id, metrics=metrics)


def _log_data(client: MlflowClient, run_id: str, data: Iterable[DataUse]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for use in data:
        profile, digest = json.dumps({"sha256": use.sha256}), use.sha256[:_DIGEST]
        dataset = Dataset(use.name, digest, "code", use.settings, profile=profile)
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", use.context)]))
    if inputs:
        client.log_inputs(run_id, datasets=inputs)


def _attach_model(client: MlflowClient, created: StoredRun, weights: Path) -> None:
    """Attach the folder of a registered version: ``MLmodel``, ``run.json`` and the weights."""
    from mlflow.utils.file_utils import get_local_path_or_none

    run_id = created.info.run_id
    client.log_text(run_id, mlmodel(run_id), "model/MLmodel")
    client.log_artifact(run_id, str(weights.with_name("run.json")), "model")
    local = get_local_path_or_none(created.info.artifact_uri)
    if local:  # a second name of the file takes no space
        link(weights, Path(local, "model", weights.name))
    else:
        client.log_artifact(run_id, str(weights), "model")
