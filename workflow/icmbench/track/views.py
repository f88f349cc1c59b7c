"""Ready-made views of an experiment in MLflow's interface.

MLflow folds child runs away and draws no rate-accuracy plot by itself. What its *Views* menu saves
is the state of the page, in a tag of the experiment; the same tags are written here. The format is
the interface's own: where a later version does not know it, that version shows its default.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from icmbench.track.content import Content

_KEY = "icmbench-"
_TAG = f"mlflow.sharedViewState.{_KEY}"
_TITLES = {
    "curves": "Rate-accuracy curves",
    "points": "Operating points",
    "training": "Training",
}
_RATE = "bpp"
_LAYOUT = {"deleted": False, "isGenerated": False, "columns": 2, "cardHeight": 400}
_RUN_NAME, _LABEL = "attributes.`Run Name`", "tags.`label`"
_POINTS = "tags.kind = 'operating point'"
_TRAINED = f"{_POINTS} and tags.steps != ''"  # a tag of trainings alone
_LOSS = ("train/loss", "val/loss")


def experiment_tags(experiment: str, study: Content, runs: list[Content]) -> dict[str, str]:
    """Return the experiment's tags: its kind, the views, and a description that links them.

    Args:
        experiment: identifier of the experiment.
        study: the run of the study.
        runs: the runs of its variants and operating points.
    """
    # Without the last part the interface opens in the mode used last, at first the one for traces.
    links = " | ".join(
        f"[{title}](#/experiments/{experiment}/runs?viewStateShareKey={_KEY}{name}"
        "&compareRunsMode=CHART&workflowType=machine_learning)"
        for name, title in _TITLES.items()
    )
    return {
        "mlflow.note.content": f"{links}\n\n{study.tags['mlflow.note.content']}",
        # Else the interface asks what kind of experiment this is.
        "mlflow.experimentKind": "custom_model_development",
        **_view_tags(runs, study.started),
    }


def _view_tags(children: list[Content], time: int) -> dict[str, str]:
    points = sorted({name for run in children for name in run.values if "/" not in name})
    quality = [name for name in points if not name.startswith(_RATE) and name != "n_images"]
    series = sorted({name for run in children for name in run.series}, key=_metric)
    views = {
        "points": _view("points", _POINTS, [_RATE, *quality], [_scatter(q) for q in quality]),
        "curves": _view(
            "curves", "tags.kind = 'variant'", [], [_line(name, points=True) for name in series]
        ),
        "training": _view("training", _TRAINED, [], [_line(name, points=False) for name in _LOSS]),
    }
    # The menu lists the newest first.
    times = {name: time - place for place, name in enumerate(_TITLES)}
    return {f"{_TAG}{name}": _saved(name, times[name], view) for name, view in views.items()}


def _saved(name: str, time: int, view: dict[str, Any]) -> str:
    """Return a view as MLflow saves one; compressed, because a tag has a limit of length."""
    state = base64.b64encode(zlib.compress(json.dumps(view, sort_keys=True).encode())).decode()
    saved = {"name": _TITLES[name], "createdAt": time, "updatedAt": time}
    return json.dumps({**saved, "state": f"deflate;{state}"})


def _metric(series: str) -> str:
    return series.removesuffix("_vs_millibpp")


def _columns(metrics: list[str]) -> dict[str, Any]:
    """Return the state of a table that shows a run's whole name, then these metrics in order."""
    if not metrics:
        return {}
    columns = [_metric_column(name) for name in metrics]
    first = ["1", _RUN_NAME, "runDateAndNestInfo"]  # the interface's names: tick box, name, age
    return {"columnOrder": [*first, *columns, _LABEL], "columnWidths": {_RUN_NAME: 260}}


def _metric_column(name: str) -> str:
    return f"metrics.`{name}`"


def _view(
    name: str, search: str, columns: list[str], charts: list[dict[str, Any]]
) -> dict[str, Any]:
    section = {"uuid": "icmbench", "name": _TITLES[name], "display": True, "isReordered": True}
    return {
        "searchFilter": search,
        # Sorted by date, the interface would fold child runs under their parent again.
        "orderByKey": _metric_column(columns[0]) if columns else "tags.`variant`",
        "orderByAsc": True,
        "selectedColumns": [*map(_metric_column, columns), _LABEL],
        **_columns(columns),
        "runsHiddenMode": "SHOWALL",
        "compareRunCharts": [{**chart, "metricSectionId": "icmbench"} for chart in charts],
        "compareRunSections": [{**section, **_LAYOUT}],
        "isAccordionReordered": True,
    }


def _chart(kind: str, name: str) -> dict[str, Any]:
    return {
        "uuid": f"icmbench-{name}",
        "type": kind,
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
    }


def _scatter(metric: str) -> dict[str, Any]:
    return {
        **_chart("SCATTER", metric),
        "xaxis": {"key": _RATE, "type": "METRIC"},
        "yaxis": {"key": metric, "type": "METRIC"},
    }


def _line(metric: str, points: bool) -> dict[str, Any]:
    return {
        **_chart("LINE", metric),
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "step",
        "displayPoints": points,
        # Losses of a study's stages differ by orders of magnitude.
        "scaleType": "linear" if points else "log",
        "lineSmoothness": 0,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": False,
    }
