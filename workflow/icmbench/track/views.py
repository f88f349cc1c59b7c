"""Ready-made views of an experiment in MLflow's interface.

MLflow folds child runs away and draws no rate-accuracy plot by itself. Its "share" button keeps the
state of the page in a tag of the experiment; the same tags are written here. The format is the
interface's own: where a later version does not know it, that version says so and shows its default.
"""

from __future__ import annotations

import json
from typing import Any

from icmbench.track.content import Content

_TAG = "mlflow.sharedViewState.icmbench-"
_RATE = "bpp"
#: Sections that are not results of an operating point.
_LOSS = ("train/loss", "val/loss")


def view_tags(children: list[Content]) -> dict[str, str]:
    """Return the experiment's tags for the views ``points``, ``curves`` and ``training``.

    Args:
        children: the runs of the operating points and curves.
    """
    points = sorted({name for run in children for name in run.values if "/" not in name})
    quality = [name for name in points if not name.startswith(_RATE) and name != "n_images"]
    series = sorted({name for run in children for name in run.series})
    views = {
        "points": _view("operating point", [_RATE, *quality], [_scatter(q) for q in quality]),
        "curves": _view("curve", [], [_line(name, points=True) for name in series]),
        "training": _view("operating point", [], [_line(name, points=False) for name in _LOSS]),
    }
    return {f"{_TAG}{name}": json.dumps(view, sort_keys=True) for name, view in views.items()}


def _view(kind: str, columns: list[str], charts: list[dict[str, Any]]) -> dict[str, Any]:
    section = {"uuid": "icmbench", "name": "icmbench", "display": True, "isReordered": True}
    return {
        "searchFilter": f"tags.kind = '{kind}'",
        "selectedColumns": [f"metrics.`{name}`" for name in columns] + ["tags.`label`"],
        "runsHiddenMode": "SHOWALL",
        "compareRunCharts": [{**chart, "metricSectionId": "icmbench"} for chart in charts],
        "compareRunSections": [{**section, "deleted": False, "isGenerated": False}],
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
