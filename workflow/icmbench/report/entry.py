"""The entry page: for each study a small plot of its leading comparison, and what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from icmbench.analyse.agreement import TABLE
from icmbench.analyse.compare import COLUMNS
from icmbench.analyse.tables import read_result_table
from icmbench.config.summary import PointSummary
from icmbench.metrics.bd import WEAK_FLAGS
from icmbench.metrics.catalogue import PIXEL_METRICS, Metric, find_metric
from icmbench.report.charts import rate_plot
from icmbench.report.outputs import FIGURES, leading_metrics, study_page
from icmbench.report.results import Results, is_number, rows_of
from icmbench.report.style import Styles, interval, number, shown, shown_interval
from icmbench.report.tables import Cell, Table, figure, text
from icmbench.utils.files import write_bytes

_MOST = 12  # differences from the record that are shown
_KEYS = 3  # curves with a colour if nothing is compared
_SIZE = (180, 110)
_OTHERS = "#b4bac0"  # curves that the sentence does not name


def card(results: Results, study: str, styles: Styles) -> dict[str, Any]:
    """Return what the entry page shows of a study; writes its plot to ``report/figures``.

    The plot is that of the study's first comparison, or of all variants if it compares none. Its
    anchor and the variant with the largest gain have their colours, the others are grey.
    """
    content = results.studies[study]
    metric = find_metric([*leading_metrics(results.plan, study), *PIXEL_METRICS][0])
    anchor, variants = "", list(styles)
    if content.comparisons:
        first = content.comparisons[0]
        metric, anchor, variants = find_metric(first.metrics[0]), first.anchor, first.variants
    best = _best(results, study, metric, anchor, variants)
    named = [name for name in (anchor, best and best.variant) if name in styles]
    named = named or list(styles)[:_KEYS]
    drawn = {
        name: styles[name] if name in named else replace(styles[name], colour=_OTHERS)
        for name in [*variants, anchor]  # the anchor lies above the others
        if name in styles
    }
    plot = rate_plot(results, study, metric.name, None, drawn)
    name = f"{study}-leading.svg"
    write_bytes(results.root / FIGURES / name, plot.svg(_SIZE, legend=False))
    points = results.points(study)
    shown_variants = {point.variant for point in points if point.evaluated}
    return {
        "study": study,
        "page": study_page(study),
        "title": content.title,
        "figure": name,
        "metric": metric,
        "named": [styles[name] for name in named],
        "sentence": _sentence(metric, anchor, best, styles),
        "done": f"{len(shown_variants)} variants, {_done(results, points)} points",
    }


def _best(
    results: Results, study: str, metric: Metric, anchor: str, variants: Sequence[str]
) -> Any | None:
    """Return the row of ``bd.csv`` of the variant with the largest gain at equal rate, if any."""
    rows = results.bd
    wanted = (rows["study"] == study) & (rows["metric"] == metric.name)
    rows = rows[wanted & (rows["anchor"] == anchor) & rows["variant"].isin(variants)]
    weak = {f"accuracy:{flag}" for flag in WEAK_FLAGS}
    decided = [
        row
        for row in rows_of(rows)
        if is_number(row.bd_accuracy_points) and weak.isdisjoint(str(row.flags).split(";"))
    ]
    return max(decided, key=lambda row: row.bd_accuracy_points, default=None)


def _sentence(metric: Metric, anchor: str, best: Any | None, styles: Styles) -> str:
    base = styles[anchor].label if anchor in styles else ""
    if best is None:
        reason = f" No curve shares enough with that of {base} to be compared." if base else ""
        return f"{metric.title} over rate.{reason}"
    # Positive is better, also of a metric of which less is better.
    gain, unit = best.bd_accuracy_points, metric.difference_unit
    amount = f"{number(abs(gain), 1)} {unit} of {metric.title}".replace("  ", " ")
    bounds = interval(best.accuracy_low, best.accuracy_high, 1)
    label = styles[best.variant].label
    if gain > 0:
        return f"At equal rate, {label} gains {amount} over {base} {bounds}."
    return f"None gains on {base}: at equal rate, the nearest, {label}, loses {amount} {bounds}."


def differences(results: Results) -> Table | None:
    """Return what differs from the results of record beyond noise, the clearest first, if any."""
    path = results.root / TABLE
    found = read_result_table(path, COLUMNS) if path.is_file() else pd.DataFrame(columns=COLUMNS)
    beyond = found[(found["verdict"] == "beyond noise") & found["study"].isin(results.studies)]
    rows = []
    for row in rows_of(beyond.head(_MOST)):
        metric = find_metric(row.metric)
        label = results.studies[row.study].variants[row.variant].label
        rows.append(
            [
                Cell(f"{row.study}: {label}", "head", link=study_page(row.study)),
                text(f"rate index {row.rate_index}"),
                text(metric.heading),
                figure(shown(metric, row.a)),
                figure(shown(metric, row.b)),
                figure(shown(metric, row.difference), shown_interval(metric, row.low, row.high)),
            ]
        )
    columns = ["Variant", "Operating point", "Metric", "Record", "This run", "Difference"]
    caption = f"The clearest {len(rows)} of {len(beyond)} differences beyond noise."
    return Table(caption, columns, rows) if rows else None


def what_ran(results: Results) -> str:
    """Return what the run has measured and what its jobs cost, in one sentence."""
    points = [point for name in results.studies for point in results.points(name)]
    trained, evaluated = (
        sum(job.get("cpu_seconds") or 0 for job in jobs.values()) / 60 for jobs in results.jobs
    )
    return (
        f"{_done(results, points)} operating points are evaluated; CPU minutes: "
        f"{trained:.0f} of training and {evaluated:.0f} of evaluation."
    )


def _done(results: Results, points: Sequence[PointSummary]) -> str:
    evaluated = [point.key in results.evaluations for point in points if point.evaluated]
    return f"{sum(evaluated)} of {len(evaluated)}"
