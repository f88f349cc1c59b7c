"""The page's tables as data: a caption, columns and cells, rendered by one template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from icmbench.report.outputs import study_metrics
from icmbench.report.results import Results, Row, is_number
from icmbench.report.selection import Rest
from icmbench.report.style import (
    Metric,
    VariantStyle,
    interval,
    metric_style,
    number,
    plain,
    signed,
)

Kind = Literal["text", "number", "head", "origin"]


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what it says.
        kind: head cells name their row; origin cells say who chose a setting.
        rows: how many rows it spans.
        note: smaller text below.
        marker: variant whose symbol stands before the text.
        link: address that the text leads to.
    """

    text: str
    kind: Kind = "text"
    rows: int = 1
    note: str = ""
    marker: VariantStyle | None = None
    link: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: what it shows.
        columns: headings.
        rows: of cells; shorter where a cell spans several rows.
        source: rows of the results' own tables that it was made from, with every digit; the
            download holds these in place of the cells.
        rest: where the whole table is, where this is a part of it.
    """

    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    source: Sequence[Row] = ()
    rest: Rest | None = None


def text(value: object, note: str = "") -> Cell:
    """Return a cell of text."""
    return Cell(str(value), note=note)


def figure(shown: str, note: str = "") -> Cell:
    """Return a cell that holds a formatted number."""
    return Cell(shown, "number", note=note)


def setting(results: Results, point: Row) -> Cell:
    """Return the rate setting of an operating point, e.g. ``lambda 0.013``.

    A note gives the QP of intra images where it is recorded.
    """
    if point["rate_parameter"] is None:
        return text("\N{EN DASH}")
    intra = results.intra_qp(point)
    shown = f"{point['rate_parameter']} {plain(point['rate_value'])}"
    return text(shown, f"intra QP {intra}" if intra else "")


def key_figures(
    results: Results, study: str, metrics: Sequence[Metric], styles: dict[str, VariantStyle]
) -> Table:
    """Return rate and leading metrics of every evaluated operating point."""
    many_seeds = len(results.plan["run"]["seeds"]) > 1
    columns = ["Variant", "Rate setting", *(["Seed"] if many_seeds else []), "Rate (bpp)"]
    columns.extend(metric.heading for metric in metrics)
    measured = _by_point(results, study)
    names = [metric.name for metric in metrics]
    source = [
        row
        for row in results.curves
        if row["study"] == study and row["metric"] in names and row["variant"] in styles
    ]
    rows: list[list[Cell]] = []
    for variant, style in styles.items():
        points = [point for point in results.points(study, variant) if point["evaluated"]]
        for place, point in enumerate(points):
            head = [Cell(style.label, "head", len(points), marker=style)] if place == 0 else []
            values = measured.get((variant, point["rate_index"], point["seed"]), {})
            rate = next((row["bpp"] for row in values.values()), None)
            cells = [setting(results, point)]
            if many_seeds:
                cells.append(text(point["seed"]))
            cells.append(figure(metric_style("bpp").show(rate)))
            for metric in metrics:
                row = values.get(metric.name)
                if row is None:
                    cells.append(figure(number(None, 0)))
                else:
                    bounds = metric.show_interval(row["low"], row["high"])
                    cells.append(figure(metric.show(row["value"]), bounds))
            rows.append([*head, *cells])
    caption = (
        f"Rate, accuracy and image quality of every operating point; in brackets the "
        f"{results.confidence} interval. A dash: not measured or not defined."
    )
    return Table(caption, columns, rows, source)


def _by_point(results: Results, study: str) -> dict[tuple[str, int, int], dict[str, Row]]:
    measured: dict[tuple[str, int, int], dict[str, Row]] = {}
    for row in results.curves:
        if row["study"] == study:
            key = (row["variant"], row["rate_index"], row["seed"])
            measured.setdefault(key, {})[row["metric"]] = row
    return measured


def curve_table(results: Results, metric: Metric, styles: dict[str, VariantStyle]) -> Table:
    """Return the numbers behind one plot, whose variants may be of several studies."""
    columns = [
        "Variant",
        "Rate index",
        "Rate setting",
        "Seed",
        "Rate (bpp)",
        "Rate, estimated (bpp)",
        metric.heading,
        f"{results.confidence} interval",
        "Images",
    ]
    rate = metric_style("bpp")
    points = {
        (p["study"], p["variant"], p["rate_index"], p["seed"]): p for p in results.plan["points"]
    }
    rows = []
    source: list[Row] = []
    for style in styles.values():
        mine = results.curve(style.study, metric.name, style.name)
        source += mine
        for place, row in enumerate(mine):
            head = [Cell(style.label, "head", len(mine), marker=style)] if place == 0 else []
            rows.append(
                [
                    *head,
                    figure(str(row["rate_index"])),
                    setting(
                        results, points[style.study, style.name, row["rate_index"], row["seed"]]
                    ),
                    figure(str(row["seed"])),
                    figure(rate.show(row["bpp"])),
                    figure(rate.show(row["bpp_estimated"])),
                    figure(metric.show(row["value"])),
                    figure(metric.show_interval(row["low"], row["high"]) or "\N{EN DASH}"),
                    figure(str(row["n_images"])),
                ]
            )
    caption = f"The numbers of this plot: {metric.title} over rate."
    return Table(caption, columns, rows, source)


# What a flag of bd.csv means (see icmbench.metrics.bd for the policy), in the order of severity.
FLAGS = {
    "too-few-points": "too few points for the interpolation, so there is no result",
    "no-overlap": "the curves share no range, so there is no result",
    "cubic-unstable": "the cubic overshoots its own points, so there is no result",
    "low-overlap": "the curves share less than 75 % of their joint range",
    "few-points": "fewer than four points in a curve",
    "non-monotone": "points dropped because a cheaper point is at least as good",
    "cubic-non-monotone": "the cubic is not monotone in the common range",
    "duplicate-rates": "points of equal rate were averaged",
    "non-finite": "points left out because the metric is not finite",
}


@dataclass(frozen=True)
class BdTables:
    """The BD table and what is needed to read it."""

    table: Table
    flags: dict[str, str]
    images: list[int]
    resamples: list[int]
    incomplete: bool


def bd_table(results: Results, study: str, styles: dict[str, VariantStyle]) -> BdTables | None:
    """Return the Bjøntegaard table of a study, or None where nothing was compared."""
    rows = [row for row in results.bd if row["study"] == study and row["variant"] in styles]
    if not rows:
        return None
    order = {
        name: place for place, name in enumerate([*study_metrics(results.plan, study), *styles])
    }
    rows.sort(key=lambda row: [order.get(row[k], 0) for k in ("metric", "anchor", "variant")])
    cells = []
    flags: dict[str, str] = {}
    for row in rows:
        metric = metric_style(row["metric"])
        unit = "dB" if metric.unit == "dB" else "points"
        named = [flag for flag in str(row.get("flags") or "").split(";") if flag]
        for flag in named:
            name = flag.removeprefix("accuracy:").split(":")[0]
            flags[name] = FLAGS.get(name, "see the documentation of icmbench.metrics.bd")
        style = styles[row["variant"]]
        anchor = styles[row["anchor"]].label if row["anchor"] in styles else row["anchor"]
        cells.append(
            [
                Cell(style.label, "head", marker=style),
                text(anchor),
                text(metric.title),
                figure(signed(row["bd_rate_pct"], 1, " %"), _bounds(row, "", 1)),
                figure(
                    signed(row["bd_accuracy_points"], 2, f" {unit}"), _bounds(row, "accuracy_", 2)
                ),
                text(row.get("method", "")),
                figure(_percent(row.get("overlap"))),
                text(", ".join(named) or "none"),
            ]
        )
    images = {row["n_images"] for row in results.curves if row["study"] == study}
    resamples = {row["n_resamples"] for row in rows if is_number(row.get("n_resamples"))}
    columns = [
        "Variant",
        "Anchor",
        "Metric",
        "BD-rate",
        "BD-accuracy",
        "Method",
        "Overlap",
        "Flags",
    ]
    table = Table("Bjøntegaard deltas of each variant against its anchor.", columns, cells, rows)
    found = {name: flags[name] for name in [*FLAGS, *flags] if name in flags}
    lost = any(_lost(row, metric) for row in rows for metric in ("", "accuracy_"))
    return BdTables(table, found, sorted(images), sorted(resamples), lost)


def _bounds(row: Row, metric: str, digits: int) -> str:
    """Return the interval of a BD metric, and how many resamples it rests on where some are lost.

    ``metric`` is what its columns begin with.
    """
    bounds = interval(row.get(f"{metric}low"), row.get(f"{metric}high"), digits)
    if not _lost(row, metric):
        return bounds
    return f"{bounds} {row[f'{metric}n_resamples_used']} of {row['n_resamples']} resamples"


def _lost(row: Row, metric: str) -> bool:
    """Return whether a BD metric is undefined in some resamples."""
    used, drawn = row.get(f"{metric}n_resamples_used"), row.get("n_resamples")
    return is_number(used) and is_number(drawn) and used != drawn


def _percent(value: float | None) -> str:
    if value is None or not is_number(value):
        return number(None, 0)
    return number(100 * value, 0) + " %"
