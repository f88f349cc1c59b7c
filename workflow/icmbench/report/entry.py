"""The entry page: for each study a small plot of its leading comparison, and what it shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from icmbench.analyse.agreement import TABLE
from icmbench.analyse.compare import COLUMNS
from icmbench.analyse.tables import read_result_table
from icmbench.metrics.catalogue import PIXEL_METRICS, Metric, find_metric
from icmbench.report.charts import rate_plot
from icmbench.report.outputs import FIGURES, leading_comparisons, leading_metrics, study_page
from icmbench.report.results import Results, rows_of
from icmbench.report.style import Style, Styles, interval, number, shown, shown_interval
from icmbench.report.tables import Cell, Table, figure, leading_gains, text
from icmbench.utils.files import write_bytes
from icmbench.utils.job_stats import phase_seconds

_MOST = 12  # differences from the record that are shown
_KEYS = 3  # curves with a colour if nothing is compared
_SIZE = (180, 110)
_OTHERS = "#b4bac0"  # curves that the sentence does not name


def card(results: Results, study: str, styles: Styles) -> dict[str, Any]:
    """Return what the entry page shows of a study; writes its plot to ``report/figures``.

    The plot is that of the study's leading comparison, or of all variants if it compares none. Its
    anchor, the variant that the study is about and the best other one have their colours, the
    others are grey.
    """
    content = results.studies[study]
    metric = find_metric([*leading_metrics(results.plan, study), *PIXEL_METRICS][0])
    anchor, variants = "", list(styles)
    subject, comparisons = leading_comparisons(content)
    for main in comparisons[:1]:
        metric, anchor, variants = find_metric(main.metrics[0]), main.anchor, main.variants
    gains = leading_gains(results, study)
    gain = {name: row.bd_accuracy_points for name, row in gains.items() if name != subject}
    best = max(gain, key=lambda name: gain[name], default="")
    base, others = styles.get(anchor), [styles[name] for name in (subject, best) if name in styles]
    named = [base, *others] if base else list(styles.values())[:_KEYS]
    drawn = {style.name: style for style in named}
    grey = {name: replace(style, colour=_OTHERS) for name, style in styles.items()}
    drawn |= {name: grey[name] for name in variants if name in grey and name not in drawn}
    plot = rate_plot(results, study, metric.name, None, drawn)
    # All curves are on; of the rows, the later ones lie above the others.
    on = [entry.label for entry in plot.series]
    plot = replace(plot, axis=metric.title, on=on, rows=plot.rows[::-1], panels={})
    write_bytes(results.root / FIGURES / f"{study}-leading.svg", plot.svg(_SIZE, legend=False))
    return {
        "study": study,
        "page": study_page(study),
        "title": content.title,
        "metric": metric,
        "named": named,
        "sentence": _sentence(metric, base, subject, others, gains),
    }


def _sentence(
    metric: Metric, base: Style | None, subject: str, others: list[Style], gains: dict[str, Any]
) -> str:
    """Return what the curves ``others`` gain over ``base``, the subject's first."""
    if base is None or not gains:
        few = "Too few points, or too little overlap, to compare with"
        return f"{metric.title} over rate." + (f" {few} “{base.label}”." if base else "")
    words: list[str] = []
    for style in others:
        shown_gain = "cannot be compared"
        if row := gains.get(style.name):
            # Positive is better, also of a metric of which less is better.
            gain, unit = row.bd_accuracy_points, metric.difference_unit
            amount = f"{number(abs(gain), 1)} {unit}".strip() + f" of {metric.title}" * (not words)
            bounds = interval(row.accuracy_low, row.accuracy_high, 1)
            shown_gain = f"{'loses' if gain < 0 else 'gains'} {amount} {bounds}".strip()
        rank = "the best of the others" if words else "the best"
        lead = f"“{style.label}”" if style.name == subject else f"{rank} is “{style.label}”, which"
        words.append(f"{lead} {shown_gain}")
    return f"At equal rate against “{base.label}”, {'; '.join(words)}."


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
    """Return what the run has measured, and the CPU seconds of its jobs by phase."""
    points = [point for name in results.studies for point in results.points(name)]
    done = [point.key in results.evaluations for point in points if point.evaluated]
    cost = phase_seconds(results.root / "logs")
    return f"{sum(done)} of {len(done)} operating points are evaluated. {cost}."
