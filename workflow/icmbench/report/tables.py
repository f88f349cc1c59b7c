"""Tables of a page, and those of one study's numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from icmbench.config.study import Study, Weights
from icmbench.config.summary import PointSummary
from icmbench.jobs import RateTarget
from icmbench.metrics.bd import WEAK_FLAGS
from icmbench.metrics.catalogue import Metric, find_metric
from icmbench.report.outputs import study_metrics
from icmbench.report.results import POINT, Results, is_number, name_of, rows_of
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

_MISSED = 0.1  # of a target; a rate further from it gets a warning


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: its content.
        kind: ``head`` names the row; ``shared`` belongs to all rows of the same head; ``origin``
            shows who chose a setting.
        note: smaller text beside it.
        marker: variant whose symbol precedes the text.
        link: address that the text leads to.
        grey: whether it is a number that decides nothing.
    """

    text: str
    kind: Literal["text", "number", "head", "shared", "origin"] = "text"
    note: str = ""
    marker: Style | None = None
    link: str = ""
    grey: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: what it shows.
        columns: headings.
        rows: of cells, the first of which is the head. Successive rows with equal heads share it.
        source: the result table that it was made from, with every digit, for the download; None
            downloads the cells.
    """

    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    source: pd.DataFrame | None = None

    @property
    def groups(self) -> list[list[list[Cell]]]:
        """The rows, grouped by head."""
        return [list(rows) for _, rows in itertools.groupby(self.rows, key=lambda row: row[0])]

    @property
    def csv(self) -> str:
        """The content as CSV; of cells, notes have a column of their own."""
        if self.source is not None:
            return self.source.to_csv(index=False, na_rep="nan")
        columns: dict[str, list[str]] = {}
        for place, name in enumerate(self.columns):
            cells = [row[place] for row in self.rows]
            columns[name] = [_value(cell.text) for cell in cells]
            if any(cell.note for cell in cells):
                columns[f"{name}: note"] = [_value(cell.note) for cell in cells]
        return pd.DataFrame(columns).to_csv(index=False)


def _value(text: str) -> str:
    return "" if text == DASH else text.replace("\N{MINUS SIGN}", "-")


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


def setting(results: Results, point: PointSummary) -> Cell:
    """Return the rate setting of an operating point, e.g. ``lambda 0.013``.

    A note gives the QP of intra images if it is recorded.
    """
    if point.rate_parameter is None:
        return text(DASH)
    intra = results.intra_qp(point)
    words = f"{point.rate_parameter} {plain(point.rate_value)}"
    return text(words, f"intra QP {intra}" if intra else "")


def rate_cell(results: Results, point: PointSummary, bpp: float | None) -> Cell:
    """Return a measured rate; a note warns where training was to reach another one."""
    target = rate_target(results.studies[point.study], point)
    excess = bpp / target - 1 if bpp is not None and target else 0.0
    missed = f"misses its target of {plain(target)} by {signed(100 * excess, 0, ' %')}"
    return figure(shown(find_metric("bpp"), bpp), missed if abs(excess) > _MISSED else "")


def rate_target(study: Study, point: PointSummary) -> float | None:
    """Return the rate (bpp) that the codec of a point was steered to, None if it was not."""
    variant = study.variants[point.variant]
    while True:
        weight = variant.train.loss.get("bpp") if variant.train else None
        if isinstance(weight, RateTarget):
            target = weight.target
            return point.rate_value if isinstance(target, str) else target
        origin = variant.codec_from
        if not isinstance(origin, Weights) or origin.study or origin.rate != "same":
            return None
        earlier = study.variants[origin.variant]
        if earlier.codec != variant.codec:
            return None  # another part of its bitstream
        variant = earlier


def measured(metric: Metric, row: Any) -> Cell:
    """Return value and interval of a row of ``curves.csv``; a dash for None."""
    if row is None:
        return figure(DASH)
    return figure(shown(metric, row.value), shown_interval(metric, row.low, row.high))


def key_figures(results: Results, study: str, metrics: Sequence[Metric], styles: Styles) -> Table:
    """Return rate and leading metrics of every evaluated operating point."""
    seed = ["Seed"] if results.many_seeds else []
    columns = ["Variant", "Rate setting", *seed, "Rate (bpp)", *(m.heading for m in metrics)]
    rows = []
    for variant, style in styles.items():
        for point in results.points(study, variant):
            if not point.evaluated:
                continue
            values = results.measured(point)
            rate = next((row.bpp for row in values.values()), None)
            rows.append(
                [
                    head(style),
                    setting(results, point),
                    *([text(point.seed)] if seed else []),
                    rate_cell(results, point, rate),
                    *(measured(metric, values.get(metric.name)) for metric in metrics),
                ]
            )
    caption = (
        "Rate, accuracy and image quality of every operating point, with the "
        f"{results.confidence} interval in brackets. A dash: not measured or not defined."
    )
    curves, names = results.curves, [metric.name for metric in metrics]
    source = curves[(curves["study"] == study) & curves["metric"].isin(names)]
    return Table(caption, columns, rows, source)


def curve_table(results: Results, metric: Metric, styles: Styles) -> Table:
    """Return the numbers of one plot, whose variants may be of several studies."""
    rows, sources = [], []
    for style in styles.values():
        curve = results.curve(style.study, style.name, metric.name)
        sources.append(curve)
        points = {(p.rate_index, p.seed): p for p in results.points(style.study, style.name)}
        for row in rows_of(curve):
            rows.append(
                [
                    head(style),
                    figure(str(row.rate_index)),
                    setting(results, points[row.rate_index, row.seed]),
                    figure(str(row.seed)),
                    rate_cell(results, points[row.rate_index, row.seed], row.bpp),
                    figure(shown(find_metric("bpp"), row.bpp_estimated)),
                    figure(shown(metric, row.value)),
                    figure(shown_interval(metric, row.low, row.high) or DASH),
                    figure(str(row.n_images)),
                ]
            )
    columns = ["Variant", "Rate index", "Rate setting", "Seed", "Rate (bpp)"]
    columns += ["Rate, estimated (bpp)", metric.heading, f"{results.confidence} interval", "Images"]
    caption = f"The numbers of this plot: {metric.title} over rate."
    return Table(caption, columns, rows, pd.concat(sources) if sources else results.curves.iloc[:0])


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
}


@dataclass(frozen=True)
class BdTable:
    """The table of Bjøntegaard deltas and what is needed to read it.

    Attributes:
        table: one row for each comparison and metric.
        images: numbers of test images.
        resamples: numbers of bootstrap resamples.
    """

    table: Table
    images: list[int]
    resamples: list[int]


def bd_table(results: Results, study: str, styles: Styles) -> BdTable | None:
    """Return the Bjøntegaard deltas of a study, or None if nothing was compared."""
    source = results.bd[(results.bd["study"] == study) & results.bd["variant"].isin(styles)]
    if source.empty:
        return None
    order = {
        name: place for place, name in enumerate([*study_metrics(results.plan, study), *styles])
    }
    by = ["metric", "anchor", "variant"]
    source = source.sort_values(by, key=lambda names: names.map(order).fillna(0), kind="stable")
    rows = []
    for row in rows_of(source):
        metric = find_metric(row.metric)
        gain = signed(row.bd_accuracy_points, 2, f" {metric.difference_unit}".rstrip())
        rows.append(
            [
                head(styles[row.variant]),
                text(styles[row.anchor].label if row.anchor in styles else row.anchor),
                text(metric.title),
                figure(signed(row.bd_rate_pct, 1, " %"), _bounds(row, "", 1), row.flags),
                _overlap(row.overlap),
                figure(gain, _bounds(row, "accuracy_", 2), row.flags, "accuracy:"),
                _overlap(row.accuracy_overlap),
                text(row.method),
                text(str(row.flags).replace(";", ", ") or "none"),
            ]
        )
    columns = ["Variant", "Anchor", "Metric", "BD-rate", "Shared qualities"]
    columns += ["BD-accuracy", "Shared rates", "Method", "Flags"]
    table = Table("Bjøntegaard deltas of each variant against its anchor.", columns, rows, source)
    return BdTable(
        table,
        sorted(set(results.curves.loc[results.curves["study"] == study, "n_images"])),
        sorted(set(source["n_resamples"].dropna())),
    )


def _bounds(row: Any, side: str, digits: int) -> str:
    """Return the interval of a delta, and the number of its resamples if some are undefined.

    ``side`` is what its columns begin with.
    """
    bounds = interval(getattr(row, f"{side}low"), getattr(row, f"{side}high"), digits)
    used = getattr(row, f"{side}n_resamples_used")
    lost = used != row.n_resamples
    return f"{bounds} {used} of {row.n_resamples} resamples" if lost else bounds


def _overlap(share: float) -> Cell:
    return figure(f"{number(100 * share, 0)} %" if is_number(share) else DASH)


# --- complexity -----------------------------------------------------------------------------------

_STEPS = {"encode": "Encoding", "decode": "Decoding", "reconstruct": "Reconstruction"}


def complexity_rows(
    results: Results, study: str, metrics: Sequence[Metric], styles: Styles
) -> pd.DataFrame:
    """Return the complexity of every evaluated operating point of a study, NaN if unknown.

    Parameters are counts, ``kmacs_*`` thousands of multiply-accumulates per coded pixel, ``*_ms``
    mean milliseconds per image; ``bpp`` and the metrics are in the tables' units.
    """
    rows: list[dict[str, Any]] = []
    for point in results.points(study):
        if not point.evaluated or point.variant not in styles:
            continue
        stated = results.evaluations.get(point.key, {}).get("complexity") or {}
        parameters, macs = stated.get("parameters") or {}, stated.get("macs_per_pixel") or {}
        kmacs = {step: count / 1000 for step, count in macs.items() if count is not None}
        own = results.measured(point)
        records = results.records_of(point) if point.encoding is not None else None
        row = dict(zip(POINT, name_of(point), strict=True))
        row["bpp"] = next((one.bpp for one in own.values()), None)
        row |= {m.name: own[m.name].value if m.name in own else None for m in metrics}
        row |= {f"parameters_{part}": parameters.get(part) for part in ("codec", "task")}
        row |= {f"kmacs_{step}": kmacs.get(step) for step in (*_STEPS, "task")}
        row |= {f"{s}_ms": records and 1000 * getattr(records, f"{s}_s") for s in _STEPS}
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.astype({name: float for name in table.columns if name not in POINT})


def complexity_table(
    results: Results, study: str, metrics: Sequence[Metric], styles: Styles
) -> Table | None:
    """Return accuracy and complexity of each variant; None if nothing is evaluated.

    Operating points of a variant that differ are shown as a range.
    """
    source = complexity_rows(results, study, metrics, styles)
    if source.empty:
        return None
    columns = {
        "bpp": ("Rate (bpp)", 1.0, 3),
        **{metric.name: (metric.heading, metric.factor, metric.digits) for metric in metrics},
        "parameters_codec": ("Codec, million parameters", 1e-6, 2),
        "parameters_task": ("Task network, million parameters", 1e-6, 2),
        **{f"kmacs_{step}": (f"{words}, kMAC per pixel", 1.0, 1) for step, words in _STEPS.items()},
        "kmacs_task": ("Task network, kMAC per pixel", 1.0, 1),
        **{f"{step}_ms": (f"{words}, ms per image", 1.0, 1) for step, words in _STEPS.items()},
    }
    columns = {name: column for name, column in columns.items() if source[name].notna().any()}
    finite = source.replace([math.inf, -math.inf], math.nan).groupby("variant")[list(columns)]
    least, most = finite.min(), finite.max()
    rows = []
    for variant, style in styles.items():
        if variant in least.index:
            cells = []
            for name, (_, factor, digits) in columns.items():
                ends = [number(side[name][variant] * factor, digits) for side in (least, most)]
                cells.append(figure(" to ".join(dict.fromkeys(ends))))
            rows.append([head(style), *cells])
    caption = (
        "Accuracy and complexity; a range if the operating points of a variant differ. Times are "
        "means over the test images."
    )
    return Table(caption, ["Variant", *(column[0] for column in columns.values())], rows, source)
