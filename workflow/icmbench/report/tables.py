"""Tables of a page, and those of one study's numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from icmbench.analyse.tables import CLASS_COLUMNS, read_result_table
from icmbench.analyse.targets import missed
from icmbench.config.summary import PointSummary
from icmbench.metrics.bd import WEAK_FLAGS
from icmbench.metrics.catalogue import Metric, find_metric
from icmbench.report.outputs import families_of, leading_comparisons, study_metrics
from icmbench.report.results import CONFIDENCE, Results, is_number, point_address, rows_of
from icmbench.report.style import (
    DASH,
    Style,
    Styles,
    interval,
    number,
    plain,
    shown,
    shown_interval,
    signed,
)


@dataclass(frozen=True)
class Cell:
    """One cell."""

    text: str
    # ``head`` names the row; ``origin`` shows who chose a setting.
    kind: Literal["text", "number", "head", "origin"] = "text"
    note: str = ""  # smaller text beside it
    marker: Style | None = None  # variant whose symbol precedes the text
    link: str = ""
    grey: bool = False  # whether it is a number that decides nothing
    place: str = ""  # id of the cell, for links to it
    evidence: tuple[str, ...] = ()  # sentences, folded


@dataclass(frozen=True)
class Table:
    """A table: its caption, headings, and rows of cells, the first of which is the head."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]


def head(style: Style) -> Cell:
    """Return the cell that names a variant."""
    return Cell(style.label, "head", marker=style)


def text(value: object, note: str = "") -> Cell:
    """Return a cell of text."""
    return Cell(str(value), note=note)


def figure(words: str, note: str = "", flags: str = "", side: str = "") -> Cell:
    """Return a cell that holds a formatted number, grey if it decides nothing.

    ``flags`` are those of a delta as in the tables, ``side`` is what its own begin with.
    """
    weak = {f"{side}{flag}" for flag in WEAK_FLAGS}
    return Cell(words, "number", note=note, grey=not weak.isdisjoint(str(flags).split(";")))


def rate_cell(results: Results, point: PointSummary) -> Cell:
    """Return a measured rate; a note warns where training was to reach another one."""
    bpp = results.rate(point)
    target = results.targets.get((point.study, point.variant, point.rate_index))
    excess = missed(bpp, target) if bpp is not None else 0.0
    words = f"misses its target of {plain(target)} by {signed(100 * excess, 0, ' %')}"
    return figure(shown(find_metric("bpp"), bpp), words if excess else "")


def measured(metric: Metric, row: Any) -> Cell:
    """Return value and interval of a row of ``curves.csv``; a dash for None."""
    if row is None:
        return figure(DASH)
    return figure(shown(metric, row.value), shown_interval(metric, row.low, row.high))


def points_table(results: Results, metrics: Sequence[str], styles: Styles) -> Table:
    """Return rate and metrics of every evaluated operating point of some variants."""
    shown_metrics = [find_metric(name) for name in metrics]
    seed = ["Seed"] if len(results.plan.run.seeds) > 1 else []
    rows = []
    for style in styles.values():
        curve = f"curves/{style.study}/{style.name}.json"
        link = f"../{curve}" if (results.root / curve).is_file() else ""
        for point in results.points(style.study, style.name):
            if not point.evaluated:
                continue
            values = results.measured(point)
            words = f"{point.rate_parameter} {plain(point.rate_value)}"
            setting, warned = words if point.rate_parameter else DASH, results.warnings(point)
            own = Cell(setting, note=" ".join(warned), link=point_address(point))
            cells = [replace(head(style), link=link), own, *([text(point.seed)] if seed else [])]
            cells.append(rate_cell(results, point))
            cells += [measured(metric, values.get(metric.name)) for metric in shown_metrics]
            rows.append(cells)
    columns = ["Variant", "Rate setting", *seed, "Rate (bpp)", *(m.heading for m in shown_metrics)]
    caption = (
        f"Every operating point, with the {CONFIDENCE} interval in brackets. A variant "
        "leads to its curve as CompressAI's JSON, a rate setting to the files of its point."
    )
    return Table(caption, columns, rows)


# --- Bjøntegaard deltas ---------------------------------------------------------------------------

#: What a flag of bd.csv means (see icmbench.metrics.bd), most severe first.
FLAGS = {
    "too-few-points": "too few points for the interpolation, so there is no result",
    "no-overlap": "the curves share no range, so there is no result",
    "cubic-unstable": "the cubic overshoots its own points, so there is no result",
    "low-overlap": "the curves share less than half of their joint range; grey, decides nothing",
    "few-points": "fewer than four points left of a curve; grey, decides nothing",
    "non-monotone": "points dropped because a cheaper point is at least as good",
    "cubic-non-monotone": "the cubic is not monotone in the common range",
    "duplicate-rates": "points of equal rate were averaged",
    "non-finite": "points left out because the metric is not finite",
    "missed-rate": "a rate misses the target of its training run by more than 10 %",
}


def bd_table(results: Results, study: str, styles: Styles) -> Table | None:
    """Return the Bjøntegaard deltas of a study, or None if nothing was compared."""
    source = results.bd[(results.bd["study"] == study) & results.bd["variant"].isin(styles)]
    if source.empty:
        return None
    names = [*study_metrics(results.plan, study), *styles]
    order = {name: place for place, name in enumerate(names)}
    by = ["metric", "anchor", "variant"]
    source = source.sort_values(by, key=lambda names: names.map(order).fillna(0), kind="stable")
    rows = []
    for row in rows_of(source):
        metric = find_metric(row.metric)
        gain = signed(row.bd_accuracy_points, 2, f" {metric.difference_unit}".rstrip())
        flags = str(row.flags)
        rows.append(
            [
                head(styles[row.variant]),
                text(styles[row.anchor].label if row.anchor in styles else row.anchor),
                text(metric.title),
                figure(signed(row.bd_rate_pct, 1, " %"), _bounds(row, "", 1), flags),
                figure(gain, _bounds(row, "accuracy_", 2), flags, "accuracy:"),
                figure(" / ".join(map(_percent, (row.overlap, row.accuracy_overlap)))),
                text(flags.replace(";", ", ") or "none", row.method),
            ]
        )
    columns = ["Variant", "Anchor", "Metric", "BD-rate", "BD-accuracy", "Shared", "Flags, method"]
    images = sorted(set(results.curves.loc[results.curves["study"] == study, "n_images"]))
    resamples = sorted(set(source["n_resamples"].dropna()))
    caption = (
        f"Each variant against its anchor. In brackets: {CONFIDENCE} percentile bootstrap "
        f"over {' or '.join(map(str, images))} test images "
        f"({' or '.join(map(str, resamples))} resamples), the same for both curves."
    )
    return Table(caption, columns, rows)


def leading_gains(results: Results, study: str) -> dict[str, Any]:
    """Return the rows of ``bd.csv`` that decide a gain at equal rate, by variant.

    They are of the leading comparison of a study, in its first metric.
    """
    return {
        row.variant: row
        for main in leading_comparisons(results.studies[study])[1][:1]
        for row in rows_of(results.bd)
        if (row.study, row.metric, row.anchor) == (study, main.metrics[0], main.anchor)
        if row.variant in main.variants and is_number(row.bd_accuracy_points)
        if not figure("", "", row.flags, "accuracy:").grey
    }


def _bounds(row: Any, side: str, digits: int) -> str:
    """Return the interval of a delta, and the number of its resamples if some are undefined.

    ``side`` is what its columns begin with.
    """
    bounds = interval(getattr(row, f"{side}low"), getattr(row, f"{side}high"), digits)
    used = getattr(row, f"{side}n_resamples_used")
    lost = used != row.n_resamples
    return f"{bounds} {used} of {row.n_resamples} resamples" if lost else bounds


def _percent(share: float) -> str:
    return f"{number(100 * share, 0)} %" if is_number(share) else DASH


# --- complexity -----------------------------------------------------------------------------------

_STEPS = {"encode": "Encoding", "decode": "Decoding", "reconstruct": "Reconstruction"}


def complexity_table(
    results: Results, study: str, leading: Sequence[str], styles: Styles
) -> Table | None:
    """Return accuracy and complexity of each variant; None if nothing is evaluated.

    Operating points of a variant that differ are shown as a range.
    """
    metrics = [find_metric(name) for name in leading]
    digits = {"Rate (bpp)": 3} | {metric.heading: metric.digits for metric in metrics}
    found = {
        name: pd.DataFrame([_complexity(results, p, metrics) for p in points])
        for name in styles
        if (points := [point for point in results.points(study, name) if point.evaluated])
    }
    if not found:
        return None
    table = pd.concat(found).dropna(axis=1, how="all").replace([math.inf, -math.inf], math.nan)
    rows = []
    for name in found:
        cells = [head(styles[name])]
        for column, values in table.loc[name].items():
            places = digits.get(str(column), 2 if "parameters" in str(column) else 1)
            ends = [number(end, places) for end in (values.min(), values.max())]
            cells.append(figure(" to ".join(dict.fromkeys(ends))))
        rows.append(cells)
    caption = (
        "Accuracy and complexity; a range if the operating points of a variant differ. Times are "
        "means over the test images."
    )
    return Table(caption, ["Variant", *table.columns], rows)


def _complexity(
    results: Results, point: PointSummary, metrics: Sequence[Metric]
) -> dict[str, float]:
    """Return the numbers of an operating point by column, NaN if unknown."""
    stated = results.evaluations.get(point.key, {}).get("complexity") or {}
    parameters, macs = stated.get("parameters") or {}, stated.get("macs_per_pixel") or {}
    own = results.measured(point)
    records = results.records_of(point) if point.encoding is not None else None
    row: dict[str, Any] = {"Rate (bpp)": results.rate(point)}
    row |= {m.heading: own[m.name].value * m.factor if m.name in own else None for m in metrics}
    for part, words in (("codec", "Codec"), ("task", "Task network")):
        count = parameters.get(part)
        row[f"{words}, million parameters"] = count and count / 1e6
    for step, words in (*_STEPS.items(), ("task", "Task network")):
        row[f"{words}, kMAC per pixel"] = macs.get(step) and macs[step] / 1000
    for step, words in _STEPS.items():
        row[f"{words}, ms per image"] = records and 1000 * getattr(records, f"{step}_s")
    return {name: math.nan if value is None else float(value) for name, value in row.items()}


# --- single classes -------------------------------------------------------------------------------

_MOST = 20  # classes that are shown; the file has all


def class_table(results: Results, family: str, styles: Styles) -> Table | None:
    """Return the metric of the most frequent classes at the highest rate, or None without any.

    A note gives that at the lowest rate. Seeds are averaged.
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


def transfer_table(results: Results, family: str, styles: Styles) -> Table | None:
    """Return how several networks judge the same bitstreams, or None if none are judged twice.

    A cell is the leading metric at the highest rate, and at the lowest below it.
    """
    groups: dict[tuple[str | None, ...], dict[str, Cell]] = {}
    for style in styles.values():
        task = results.studies[style.study].variants[style.name].task
        points = [p for p in results.points(style.study, style.name) if p.evaluated]
        metric = find_metric(families_of(results.plan, task).get(family, ("psnr",))[0])
        curve = results.curve(style.study, style.name, metric.name)
        if curve.empty:
            continue
        ends = curve.groupby("rate_index")[["bpp", "value"]].mean().sort_values("bpp").iloc[[-1, 0]]
        words = [
            shown(metric, value) + (f" at {number(bpp, 3)} bpp" if style.is_curve else "")
            for bpp, value in ends.values
        ]
        group = groups.setdefault((style.study, *(p.encoding for p in points)), {"": head(style)})
        group.setdefault(task, figure(*dict.fromkeys(words)))
    rows = {key: own for key, own in groups.items() if len(own) > 2}
    if not any(key[1] for key in rows):
        return None
    tasks = list(dict.fromkeys(task for own in rows.values() for task in own if task))
    cells = [[own[""], *(own.get(t, figure(DASH)) for t in tasks)] for own in rows.values()]
    caption = "The leading metric by network, at the highest rate and, below it, at the lowest."
    return Table(caption, ["Bitstreams of", *tasks], cells)


def _names(results: Results, family: str, style: Style) -> list[str]:
    """Return study, variant, and the metric of single classes that the family leads with."""
    task = results.studies[style.study].variants[style.name].task
    leading = families_of(results.plan, task).get(family, ("",))[0]
    # A mean over classes is of their IoU; other metrics have the same name.
    return [style.study, style.name, leading.replace("miou", "iou")]


def _cell(by_rate: pd.Series | None) -> Cell:
    ends = [] if by_rate is None else [by_rate.iloc[-1], by_rate.iloc[0]]
    return figure(*dict.fromkeys(f"{100 * value:.1f}" for value in ends)) if ends else figure(DASH)
