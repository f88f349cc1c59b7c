"""The table of metrics by class on the page of a task."""

from __future__ import annotations

import pandas as pd

from icmbench.analyse.tables import CLASS_COLUMNS, read_result_table
from icmbench.report.outputs import families_of
from icmbench.report.results import Results
from icmbench.report.style import DASH, Style, Styles
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
    names = ["study", "variant", "metric"]
    own = [found[(found[names] == _names(results, family, s)).all(axis=1)] for s in styles.values()]
    source = pd.concat(own)
    if source.empty:
        return None
    by_rate = [rows.groupby(["class", "rate_index"])["value"].mean() for rows in own]
    counts = source.groupby("class")["count"].max().sort_values(ascending=False, kind="stable")
    rows = [
        [Cell(str(name), "head"), figure(f"{count:,}"), *(_cell(v.get(name)) for v in by_rate)]
        for name, count in counts.head(_MOST).items()
    ]
    caption = (
        f"Single classes ({', '.join(sorted(set(source['metric'])))}, in %) at the highest rate of "
        f"each variant, and at the lowest below it: the {min(_MOST, len(counts))} most frequent of "
        f"{len(counts)}. tables/per_class.csv has every rate and class."
    )
    columns = ["Class", "Occurrences", *(style.label for style in styles.values())]
    return Table(caption, columns, rows)


def _names(results: Results, family: str, style: Style) -> list[str]:
    """Return study, variant, and the metric of single classes that the family leads with."""
    task = results.studies[style.study].variants[style.name].task
    leading = families_of(results.plan, task).get(family, ("",))[0]
    # A mean over classes is of their IoU; other metrics have the same name.
    return [style.study, style.name, leading.replace("miou", "iou")]


def _cell(by_rate: pd.Series | None) -> Cell:
    if by_rate is None:
        return figure(DASH)
    low, high = (f"{100 * value:.1f}" for value in (by_rate.iloc[0], by_rate.iloc[-1]))
    return figure(high, low if len(by_rate) > 1 else "")
