"""The table of metrics by class on the page of a task."""

from __future__ import annotations

import pandas as pd

from icmbench.analyse.tables import CLASS_COLUMNS, read_result_table
from icmbench.report.outputs import families_of
from icmbench.report.results import Results
from icmbench.report.style import DASH, Styles
from icmbench.report.tables import Cell, Table, figure

_MOST = 20  # classes that are shown; the file has all


def class_table(results: Results, family: str, styles: Styles) -> Table | None:
    """Return the metric of each class at the highest rate of each variant, or None without any.

    A note gives that at the lowest rate. Shown are the classes that occur most often. Seeds are
    averaged.
    """
    path = results.root / "tables" / "per_class.csv"
    if not path.is_file():
        return None
    found = read_result_table(path, CLASS_COLUMNS)
    kept = [
        own[own["metric"].isin(_metrics(results, family, style.study, style.name))]
        for style in styles.values()
        for own in [found[(found["study"] == style.study) & (found["variant"] == style.name)]]
    ]
    source = pd.concat(kept) if kept else found[:0]
    if source.empty:
        return None
    counts = source.groupby("class")["count"].max().sort_values(ascending=False, kind="stable")
    rows = [
        [
            Cell(str(name), "head"),
            figure(f"{count:,}"),
            *(_cell(own[own["class"] == name]) for own in kept),
        ]
        for name, count in counts.head(_MOST).items()
    ]
    caption = (
        f"Single classes ({', '.join(sorted(set(source['metric'])))}, in %) at the highest rate of "
        f"each variant, and at the lowest below it: the {min(_MOST, len(counts))} most frequent of "
        f"{len(counts)}. tables/per_class.csv has every rate and class."
    )
    columns = ["Class", "Occurrences", *(style.label for style in styles.values())]
    return Table(caption, columns, rows)


def _metrics(results: Results, family: str, study: str, variant: str) -> set[str]:
    """Return the metrics of single classes that belong to a family's leading metric."""
    task = results.studies[study].variants[variant].task
    leading = families_of(results.plan, task).get(family, ("",))[0]
    # A mean over classes is of their IoU; other metrics have the same name.
    return {leading.replace("miou", "iou")}


def _cell(own: pd.DataFrame) -> Cell:
    by_rate = own.groupby("rate_index")["value"].mean()
    if by_rate.empty:
        return figure(DASH)
    low, high = (f"{100 * value:.1f}" for value in (by_rate.iloc[0], by_rate.iloc[-1]))
    return figure(high, low if len(by_rate) > 1 else "")
