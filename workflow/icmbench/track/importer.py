"""Import a scale's results into MLflow: one pass, each run found again by its key."""

from __future__ import annotations

import json
import logging
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icmbench.config.summary import read_summary
from icmbench.errors import UserError
from icmbench.track.model import mlmodel
from icmbench.track.points import Run
from icmbench.track.store import artifact_root, open_store, store_address
from icmbench.track.studies import StudyRuns, read_studies
from icmbench.utils.files import digest_json, link, sha256_file, write_json
from icmbench.utils.secrets import hide_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "run_key"
_PARENT = "mlflow.parentRunId"
# Tags with digests of what a run holds. The first is set last: a run without it was cut off. The
# second is apart because the values of a training run in progress grow.
_CONTENT, _VALUES = "icmbench.content", "icmbench.values"
_MODEL_TAGS = ("study", "scale", "variant", "codec", "task", "mode")
_VERSION_TAGS = (
    *("rate_index", "rate_parameter", "rate_value", "seed"),
    *("git_commit", "weights_path", "weights_sha256"),
)
# MLflow's limits: runs of a page, values and parameters of a call, length of a data set's digest.
_PAGE, _BATCH, _PARAMETERS, _DIGEST = 1000, 900, 100, 32

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportResult:
    """What an import did.

    Attributes:
        uri: the store, without credentials.
        runs: runs of the results folder.
        created: new runs.
        replaced: runs whose content had changed.
        extended: runs that got new values of a training run in progress.
        complete: whether every operating point is trained and evaluated as planned.
        problems: messages of files that cannot be read; their runs are left out.
    """

    uri: str
    runs: int
    created: int
    replaced: int
    extended: int
    complete: bool
    problems: list[str]


def track(
    root: Path, uri: str | None = None, watch: float | None = None, strict: bool = False
) -> int:
    """Import results into MLflow and return an exit status: the verb ``track``.

    Writes ``<root>/tracking.json``, unless it watches: ``{"status": "done", ...ImportResult}`` or
    ``{"status": "failed", "reason": ...}``. A failure is a warning and the status is 0, because the
    results do not depend on MLflow; with ``strict`` it is 1.

    Args:
        root: ``results/<scale>``.
        uri: see :func:`icmbench.track.store.store_address`.
        watch: seconds between two imports, which are repeated until every operating point is
            complete or Ctrl-C. None imports once.
        strict: whether a failure counts; of those while watching, the first import's.
    """
    if watch is not None and watch <= 0:
        raise UserError(f"watch is {watch}; it must be above 0 seconds")
    report = _try_import(root, uri, patient=strict or watch is not None)
    if watch is None:  # the file is the rule's output; a watch beside the workflow leaves it alone
        write_json(root / "tracking.json", report)
    failed = strict and (report["status"] == "failed" or bool(report["problems"]))
    try:
        while watch is not None and not failed and not report.get("complete"):
            time.sleep(watch)
            report = _try_import(root, uri, patient=True)
    except KeyboardInterrupt:
        logger.info("stopped watching")
    return int(failed)


def _try_import(root: Path, uri: str | None, patient: bool) -> dict[str, Any]:
    """Import once, log the outcome and return the content of ``tracking.json``."""
    try:
        result = sync(root, uri, patient)
    except Exception as error:
        reason = str(error)
        if not isinstance(error, UserError):
            # A defect of the importer, to be reported; still not a reason to fail a workflow.
            reason = hide_secrets(f"{type(error).__name__}: {error}", uri or "")
            logger.warning(hide_secrets(traceback.format_exc(), uri or ""))
        logger.warning(reason)
        return {"status": "failed", "reason": reason}
    logger.info(
        "MLflow at %s: %d runs (%d new, %d replaced, %d extended)",
        *(result.uri, result.runs, result.created, result.replaced, result.extended),
    )
    for problem in result.problems:
        logger.warning("not imported: %s", problem)
    return {"status": "done", **asdict(result)}


def sync(root: Path, uri: str | None = None, patient: bool = False) -> ImportResult:
    """Import the results of a scale into MLflow; a repeat changes nothing.

    The experiment of a study is ``<tracking.experiment>/<study>/<scale>``; its runs are found again
    by the tag ``run_key``. A run that holds what the files hold is left alone, any other is deleted
    and created again. Runs of operating points that have left the plan stay.

    Args:
        root: ``results/<scale>``, with ``plan.json``.
        uri: see :func:`icmbench.track.store.store_address`.
        patient: see :func:`icmbench.track.store.open_store`.

    Raises:
        UserError: for a missing plan or table, or a store that fails.
    """
    plan = read_summary(root)
    uri = store_address(root, uri, plan.run.tracking.uri)
    # Everything is read first: the store is locked as briefly as possible.
    studies = list(read_studies(root, plan))
    counts: Counter[str] = Counter()
    with open_store(root, uri, patient) as client:
        for study in studies:
            if study.runs:
                counts += _push_study(client, study, artifact_root(root, uri))
    return ImportResult(
        hide_secrets(uri, uri),
        runs=sum(len(study.runs) for study in studies),
        created=counts["created"],
        replaced=counts["replaced"],
        extended=counts["extended"],
        complete=all(study.complete for study in studies),
        problems=[problem for study in studies for problem in study.problems],
    )


def _push_study(client: MlflowClient, study: StudyRuns, artifacts: str | None) -> Counter[str]:
    """Bring the runs of a study into its experiment; count what was done."""
    experiment = _experiment(client, study, artifacts)
    held: dict[str, Any] = {}
    for found in _runs(client, experiment):
        key = found.data.tags.get(KEY)
        if key in held:  # two machines imported into one server at once
            _delete(client, found.info.run_id)
        elif key is not None:
            held[key] = found
    ids: dict[str | None, str] = {}
    counts: Counter[str] = Counter()
    for run in study.runs:
        ids[run.key], done = _push(client, experiment, run, held.get(run.key), ids.get(run.parent))
        counts[done] += 1
    return counts


def _experiment(client: MlflowClient, study: StudyRuns, artifacts: str | None) -> str:
    """Return the identifier of a study's experiment, created and described."""
    found = client.get_experiment_by_name(study.experiment)
    if found is None:
        place = artifacts and f"{artifacts}/{study.experiment}"
        found = client.get_experiment(client.create_experiment(study.experiment, place))
    curves = (
        f"#/experiments/{found.experiment_id}/runs?searchFilter=tags.kind+%3D+%27variant%27"
        "&compareRunsMode=CHART&workflowType=machine_learning"
    )
    tags = {
        "mlflow.note.content": f"[Rate-accuracy curves]({curves})\n\n{study.note}",
        # Otherwise the interface asks for the kind of experiment.
        "mlflow.experimentKind": "custom_model_development",
    }
    for name, value in tags.items():
        if found.tags.get(name) != value:
            client.set_experiment_tag(found.experiment_id, name, value)
    return str(found.experiment_id)


def _runs(client: MlflowClient, experiment: str) -> Iterator[Any]:
    token: str | None = None
    while token != "":
        page = client.search_runs([experiment], max_results=_PAGE, page_token=token)
        yield from page
        token = page.token or ""


def _delete(client: MlflowClient, run_id: str) -> None:
    """Move a run to MLflow's deleted runs, and delete its model versions."""
    for version in client.search_model_versions(f"run_id='{run_id}'"):
        client.delete_model_version(version.name, version.version)
    client.delete_run(run_id)


def _push(
    client: MlflowClient, experiment: str, run: Run, held: Any | None, parent: str | None
) -> tuple[str, str]:
    """Bring a run into the store; return its identifier and what was done.

    Args:
        client: of the store.
        experiment: identifier of the experiment.
        run: as it should be.
        held: the run of this key in the store (``mlflow.entities.Run``), or None.
        parent: identifier of the parent run, or None.
    """
    files = {path.name: sha256_file(path) for path in run.artefacts}
    digest = digest_json({**vars(run), "values": [], "artefacts": files, "folder": ""})
    if held is None:
        return _create(client, experiment, run, digest, parent), "created"
    run_id, tags = str(held.info.run_id), held.data.tags
    count = int(tags.get(_VALUES, "0").partition(" ")[0])
    if tags.get(_CONTENT) != digest or tags.get(_VALUES) != _values_tag(run, count):
        _delete(client, run_id)
        return _create(client, experiment, run, digest, parent), "replaced"
    if parent and tags.get(_PARENT) != parent:
        client.set_tag(run_id, _PARENT, parent)
    if count == len(run.values):
        return run_id, "unchanged"
    _log_batches(client, run_id, run, first=count)
    client.set_tag(run_id, _VALUES, _values_tag(run, len(run.values)))
    return run_id, "extended"


def _values_tag(run: Run, count: int) -> str:
    return f"{count} {digest_json(run.values[:count])}"


def _create(
    client: MlflowClient, experiment: str, run: Run, digest: str, parent: str | None
) -> str:
    tags = {**run.tags, KEY: run.key, _VALUES: _values_tag(run, len(run.values))}
    tags |= {_PARENT: parent} if parent else {}
    created = client.create_run(experiment, run.started, tags, run.name)
    run_id = str(created.info.run_id)
    _log_batches(client, run_id, run)
    _log_data(client, run_id, run)
    if run.artefacts:
        _attach(client, created, run)
    if run.model:
        _register(client, run_id, run, run.model)
    if run.ended is None:
        client.update_run(run_id, run.status)
    else:
        client.set_terminated(run_id, run.status, run.ended)
    client.set_tag(run_id, _CONTENT, digest)
    return run_id


def _log_batches(client: MlflowClient, run_id: str, run: Run, first: int = 0) -> None:
    """Send the values from index ``first`` on, and with the very first the parameters."""
    from mlflow.entities import Metric, Param

    values = [Metric(*value) for value in run.values[first:]]
    parameters = [] if first else [Param(*item) for item in run.parameters.items()]
    while values or parameters:
        client.log_batch(run_id, values[:_BATCH], parameters[:_PARAMETERS])
        values, parameters = values[_BATCH:], parameters[_PARAMETERS:]


def _log_data(client: MlflowClient, run_id: str, run: Run) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for use in run.data:
        profile, digest = json.dumps({"sha256": use.sha256}), use.sha256[:_DIGEST]
        dataset = Dataset(use.name, digest, "code", use.settings, profile=profile)
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", use.context)]))
    if inputs:
        client.log_inputs(run_id, datasets=inputs)


def _attach(client: MlflowClient, created: Any, run: Run) -> None:
    """Attach the files of a run; figures and the final weights in folders of their own."""
    from mlflow.utils.file_utils import get_local_path_or_none

    run_id, weights = str(created.info.run_id), run.folder / "weights.pt"
    figures = {f"figures/{path.name}": path for path in run.artefacts if path.suffix == ".png"}
    files = figures | {path.name: path for path in run.artefacts if path.suffix != ".png"}
    if run.model:
        files["model/run.json"] = run.folder / "run.json"
        local = get_local_path_or_none(created.info.artifact_uri)
        if local:  # a second name of the file takes no space
            link(weights, Path(local, "model", weights.name))
        else:
            files["model/weights.pt"] = weights
    with tempfile.TemporaryDirectory() as folder:
        for name, path in files.items():
            staged = Path(folder, name)
            staged.parent.mkdir(exist_ok=True)
            staged.symlink_to(path.absolute())
        if run.model:
            Path(folder, "model", "MLmodel").write_text(mlmodel(run_id), encoding="utf-8")
        client.log_artifacts(run_id, folder)


def _register(client: MlflowClient, run_id: str, run: Run, model: str) -> None:
    """Make the final weights of a run a version of the registered model of its variant."""
    tags = {tag: run.tags[tag] for tag in _MODEL_TAGS}
    if not client.search_registered_models(f"name='{model}'"):
        about = f"Weights of **{run.tags['label']}**: one version for each operating point."
        client.create_registered_model(model, tags, about)
    tags |= {tag: run.tags[tag] for tag in _VERSION_TAGS if tag in run.tags} | {KEY: run.key}
    about = f"{run.name}: `{run.tags['weights_path']}`"
    client.create_model_version(model, f"runs:/{run_id}/model", run_id, tags, description=about)
