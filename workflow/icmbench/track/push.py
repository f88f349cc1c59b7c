"""Bring one run of the store up to what its content says, without ever doubling a value.

MLflow can add to a run but not change a parameter or take a value back. So a run only grows as long
as what it holds is still true; otherwise it moves to MLflow's deleted runs and is made anew. The
same holds for a run whose import was cut off, which spares any thought about how far it came.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from icmbench.track.content import Content
from icmbench.track.history import News, Position, read_news
from icmbench.track.registered import register, unregister, weights_digest
from icmbench.utils.files import digest_json, sha256_file

RUN_KEY = "run_key"
_PARENT = "mlflow.parentRunId"
_SENDING, _SENT = "icmbench.sending", "icmbench.sent"
# MLflow's limits on one call.
_METRICS, _PARAMETERS, _TAGS = 1000, 100, 100
_DIGEST_LENGTH = 32


@dataclass(frozen=True)
class Pushed:
    """What became of a run.

    Attributes:
        run_id: MLflow's identifier.
        action: what was done.
        values: metric values sent.
    """

    run_id: str
    action: Literal["created", "replaced", "updated", "unchanged"]
    values: int


@dataclass(frozen=True)
class _Sent:
    """What a run holds beyond what MLflow lists with it; kept in one of its tags."""

    position: Position
    series: str | None
    artefacts: dict[str, str]
    weights: str | None = None

    @staticmethod
    def of(run: Any | None) -> _Sent:
        text = run.data.tags.get(_SENT) if run else None
        if text is None:
            return _Sent(Position(), None, {})
        saved = json.loads(text)
        position = Position(**saved["position"])
        return _Sent(position, saved["series"], saved["artefacts"], saved.get("weights"))

    def text(self) -> str:
        return json.dumps({**vars(self), "position": vars(self.position)}, sort_keys=True)


def push(
    client: Any, experiment: str, run: Any | None, content: Content, parent: str | None
) -> Pushed:
    """Create, complete or replace a run.

    Args:
        client: an ``mlflow.MlflowClient``.
        experiment: identifier of the experiment.
        run: the run of that key in the store (``mlflow.entities.Run``), or None.
        content: what it should hold.
        parent: identifier of the parent run, or None.
    """
    sent = _Sent.of(run)
    news = _news(content, sent)
    reason = None if run is None else _outdated(run, content, sent, news)
    replaced = reason is not None
    if run is not None and reason is not None:
        discard(client, run.info.run_id, reason)
        run, sent = None, _Sent.of(None)
        news = _news(content, sent)
    created = run is None
    if run is None:
        run = client.create_run(
            experiment,
            start_time=content.started,
            run_name=content.name,
            tags={RUN_KEY: content.key, _SENDING: "yes"},
        )
    return _complete(client, run, content, parent, sent, news, created, replaced)


def discard(client: Any, run_id: str, reason: str) -> None:
    """Move a run to MLflow's deleted runs, from where its interface can restore it.

    Its registered weights are deleted: they are made anew, with the run.
    """
    unregister(client, run_id)
    client.set_tag(run_id, "superseded", reason)
    client.delete_run(run_id)


def _news(content: Content, sent: _Sent) -> News:
    if content.history is None:
        return News([], sent.position)
    return read_news(content.history, sent.position)


def _outdated(run: Any, content: Content, sent: _Sent, news: News) -> str | None:
    """Return why a run can no longer grow into its content, or None."""
    if run.data.tags.get(_SENDING) == "yes":
        return "its import was cut off"
    if any(content.parameters.get(k) != v for k, v in run.data.params.items()):
        return "its settings changed"
    values = content.values.items()
    if any(k in run.data.metrics and not _same(run.data.metrics[k], v) for k, v in values):
        return "its results changed"
    if content.series and sent.series not in (None, digest_json(content.series)):
        return "its curve changed"
    held = _held_data(run)
    if any(
        held.get(use.name, use.digest[:_DIGEST_LENGTH]) != use.digest[:_DIGEST_LENGTH]
        for use in content.data
    ):
        return "its data changed"
    return "its training went back to an earlier step" if news.rewritten else None


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-12) or (math.isnan(a) and math.isnan(b))


def _held_data(run: Any) -> dict[str, str]:
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return {item.dataset.name: item.dataset.digest for item in inputs}


def _complete(
    client: Any,
    run: Any,
    content: Content,
    parent: str | None,
    sent: _Sent,
    news: News,
    created: bool,
    replaced: bool,
) -> Pushed:
    from mlflow.entities import Param, RunTag

    run_id = run.info.run_id
    metrics = _metrics(run, content, sent, news)
    parameters = [Param(k, v) for k, v in content.parameters.items() if k not in run.data.params]
    data = [use for use in content.data if use.name not in _held_data(run)]
    files = {path.name: path for path in content.artefacts if path.is_file()}
    digests = {name: sha256_file(path)[:16] for name, path in files.items()}
    attach = [files[name] for name, digest in digests.items() if sent.artefacts.get(name) != digest]

    wanted = {**content.tags, **({_PARENT: parent} if parent else {})}
    weights = None if content.weights is None else weights_digest(content.weights)
    # A curve that is not there, as before and during an analysis, is none that changed.
    series = digest_json(content.series) if content.series else sent.series
    done = _Sent(news.position, series, {**sent.artefacts, **digests}, weights)
    wanted |= {_SENT: done.text(), _SENDING: "no"}
    tags = {k: v for k, v in wanted.items() if run.data.tags.get(k) != v}

    if metrics and not created:
        client.set_tag(run_id, _SENDING, "yes")
        tags[_SENDING] = "no"
    for some in _chunks(parameters, _PARAMETERS):
        client.log_batch(run_id, params=some)
    for some in _chunks(metrics, _METRICS):
        client.log_batch(run_id, metrics=some)
    if data:
        client.log_inputs(run_id, datasets=[_dataset_input(use) for use in data])
    for path in attach:
        _attach(client, run_id, path)
    if content.weights is not None and weights != sent.weights:
        register(client, run_id, content.weights, content.ended or content.time)
    if parent is None and _PARENT in run.data.tags:
        client.delete_tag(run_id, _PARENT)
    # What was sent is noted last: until then the run counts as cut off.
    for some in _chunks([RunTag(k, v) for k, v in tags.items()], _TAGS):
        client.log_batch(run_id, tags=some)
    ended = _set_status(client, run, content)

    changed = bool(metrics or parameters or data or attach or tags or ended)
    action: Literal["created", "replaced", "updated", "unchanged"] = (
        "replaced" if replaced else "created" if created else "updated" if changed else "unchanged"
    )
    return Pushed(run_id, action, len(metrics))


def _metrics(run: Any, content: Content, sent: _Sent, news: News) -> list[Any]:
    """Return the values to send; equal times make a repeated value the same one to MLflow."""
    from mlflow.entities import Metric

    metrics = [
        Metric(name, value, content.time, 0)
        for name, value in content.values.items()
        if name not in run.data.metrics
    ]
    if sent.series is None:
        metrics += [
            Metric(name, value, content.time, step)
            for name, line in content.series.items()
            for step, value in line
        ]
    metrics += [
        Metric(name, value, row.time_ms, row.step)
        for row in news.rows
        for name, value in row.values.items()
    ]
    return metrics


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _dataset_input(use: Any) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=use.name,
        digest=use.digest[:_DIGEST_LENGTH],
        source_type="code",
        source=use.source,
        profile=json.dumps({"sha256": use.digest}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", use.context)])


def _attach(client: Any, run_id: str, path: Path) -> None:
    folder = "figures" if path.suffix == ".png" else None
    client.log_artifact(run_id, str(path), folder)


def _set_status(client: Any, run: Any, content: Content) -> bool:
    """Set name, status and end where they differ; return whether anything did."""
    info = run.info
    named = info.run_name == content.name
    if not named:
        client.update_run(info.run_id, name=content.name)
    if content.ended is None:
        if info.status == content.status:
            return not named
        client.update_run(info.run_id, status=content.status)
        return True
    if (info.status, info.end_time) == (content.status, content.ended):
        return not named
    client.set_terminated(info.run_id, content.status, content.ended)
    return True
