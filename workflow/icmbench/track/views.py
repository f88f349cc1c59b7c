"""Ready-made views of an experiment in MLflow's interface.

MLflow folds child runs away and draws no rate-accuracy plot by itself. Its "share" button keeps the
state of the page in a tag of the experiment; the same tags are written here. The format is the
interface's own: where a later version does not know it, that version says so and shows its default.
"""

from __future__ import annotations

import json
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
_LOSS = ("train/loss", "val/loss")


def experiment_tags(experiment: str, note: str, children: list[Content]) -> dict[str, str]:
    """Return the experiment's tags: its kind, the views, and a description that links them.

    Args:
        experiment: identifier of the experiment.
        note: what the experiment is, in Markdown.
        children: the runs of the operating points and curves.
    """
    links = " | ".join(
        f"[{title}](#/experiments/{experiment}/runs?viewStateShareKey={_KEY}{name}"
        "&compareRunsMode=CHART)"
        for name, title in _TITLES.items()
    )
    return {
        "mlflow.note.content": f"{links}\n\n{note}",
        # Else the interface asks what kind of experiment this is.
        "mlflow.experimentKind": "custom_model_development",
        **_view_tags(children),
    }


def _view_tags(children: list[Content]) -> dict[str, str]:
    points = sorted({name for run in children for name in run.values if "/" not in name})
    quality = [name for name in points if not name.startswith(_RATE) and name != "n_images"]
    series = sorted({name for run in children for name in run.series}, key=_metric)
    views = {
        "points": _view(
            "points", "operating point", [_RATE, *quality], [_scatter(q) for q in quality]
        ),
        "curves": _view("curves", "curve", [], [_line(name, points=True) for name in series]),
        "training": _view(
            "training", "operating point", [], [_line(name, points=False) for name in _LOSS]
        ),
    }
    return {f"{_TAG}{name}": json.dumps(view, sort_keys=True) for name, view in views.items()}


def _metric(series: str) -> str:
    return series.removesuffix("_vs_millibpp")


def _view(name: str, kind: str, columns: list[str], charts: list[dict[str, Any]]) -> dict[str, Any]:
    section = {"uuid": "icmbench", "name": _TITLES[name], "display": True, "isReordered": True}
    return {
        "searchFilter": f"tags.kind = '{kind}'",
        # Sorted by date, the interface would fold child runs under their parent again.
        "orderByKey": f"metrics.`{columns[0]}`" if columns else "tags.`variant`",
        "orderByAsc": True,
        "selectedColumns": [f"metrics.`{name}`" for name in columns] + ["tags.`label`"],
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
        "lineSmoothness": 0,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": False,
    }
