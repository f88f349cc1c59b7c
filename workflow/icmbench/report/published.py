"""Published numbers beside what was measured here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from icmbench.report.results import Results, Row, is_number
from icmbench.report.style import VariantStyle, metric_style, number
from icmbench.report.tables import Cell, Table, figure, text

COMPARABLE_SCALE = "paper"


@dataclass(frozen=True)
class Group:
    """One published table or figure and the table that sets it beside the measurements."""

    name: str
    table: Table
    notes: list[str]


def comparable(results: Results) -> bool:
    """Return whether measured numbers stand on the published set-up: the scale is ``paper``."""
    return bool(results.plan["scale"]["name"] == COMPARABLE_SCALE)


def published_points(results: Results, study: str, metric: str) -> list[Row]:
    """Return the published rows that have both a rate and ``metric``, for a plot."""
    points = []
    for row in _rows(results, study):
        rate, quality = row.cell("bpp"), row.cell(metric)
        if rate and quality:
            points.append(
                {
                    "label": row.label,
                    "variant": row.variant,
                    "bpp": rate["value"],
                    "value": quality["value"],
                }
            )
    return points


@dataclass
class _PublishedRow:
    group: str
    label: str
    variant: str | None
    cells: list[Row]

    def cell(self, metric: str) -> Row | None:
        """Return the first number of a metric, or None."""
        return next((cell for cell in self.cells if cell["metric"] == metric), None)


def _rows(results: Results, study: str) -> list[_PublishedRow]:
    rows: dict[tuple[str, str, str | None], _PublishedRow] = {}
    for cell in results.plan["studies"][study]["published"]:
        key = (cell["group"], cell["label"], cell["variant"])
        row = rows.setdefault(key, _PublishedRow(*key, []))
        row.cells.append(cell)
    for row in rows.values():
        row.cells.sort(key=lambda cell: cell["metric"] != "bpp")
    return list(rows.values())


def published_groups(results: Results, study: str, styles: dict[str, VariantStyle]) -> list[Group]:
    """Return one table for each published table or figure that a study quotes."""
    rows = _rows(results, study)
    groups = []
    for name in dict.fromkeys(row.group for row in rows):
        mine = [row for row in rows if row.group == name]
        cells = [cell for row in mine for cell in row.cells]
        table = Table(
            f"{name}: published and measured here.",
            ["Published as", "Metric", "Published", "Measured here", "Measured at", "Confidence"],
            [line for row in mine for line in _lines(results, study, row, styles)],
        )
        sources = dict.fromkeys(cell["source"] for cell in cells)
        notes = dict.fromkeys(
            f"{cell['label']}, {metric_style(cell['metric']).title}: {cell['note']}"
            for cell in cells
            if cell["note"]
        )
        groups.append(Group(name, table, [f"Source: {source}" for source in sources] + [*notes]))
    return groups


def _lines(
    results: Results, study: str, row: _PublishedRow, styles: dict[str, VariantStyle]
) -> list[list[Cell]]:
    style = styles.get(row.variant or "")
    at, rate_index = _nearest(results, study, row)
    if style and rate_index is not None:
        at = f"{style.label}, {at}"
    lines = []
    for place, cell in enumerate(row.cells):
        metric = metric_style(cell["metric"])
        span = len(row.cells)
        head = [Cell(row.label, "head", span, marker=style)] if place == 0 else []
        lines.append(
            [
                *head,
                text(metric.heading, _against(cell, styles)),
                figure(metric.show(cell["value"])),
                _bd(results, study, cell)
                if cell["anchor"]
                else _measured(results, study, row.variant, cell["metric"], rate_index),
                *([Cell(at, rows=span)] if place == 0 else []),
                text(cell["confidence"]),
            ]
        )
    return lines


def _against(cell: Row, styles: dict[str, VariantStyle]) -> str:
    """Return what a BD metric compares with, in words; empty for other metrics."""
    anchor = cell["anchor"]
    return f"against {styles[anchor].label if anchor in styles else anchor}" if anchor else ""


def _bd(results: Results, study: str, cell: Row) -> Cell:
    """Return the BD metric that a published one stands beside, with its interval."""
    column, _, integrated = cell["metric"].partition(":")
    low, high = ("low", "high") if column == "bd_rate_pct" else ("accuracy_low", "accuracy_high")
    wanted = {"study": study, "metric": integrated, "variant": cell["variant"]}
    wanted["anchor"] = cell["anchor"]
    metric = metric_style(cell["metric"])
    for row in results.bd:
        if all(row[key] == value for key, value in wanted.items()):
            return figure(metric.show(row[column]), metric.show_interval(row[low], row[high]))
    return figure(number(None, 0))


def _nearest(results: Results, study: str, row: _PublishedRow) -> tuple[str, int | None]:
    """Return where the measured curve is read: at the rate nearest to the published one."""
    rates: dict[int, list[float]] = {}
    for measured in results.variant_rows(study, row.variant):
        rates.setdefault(measured["rate_index"], []).append(measured["bpp"])
    if not rates:
        return "\N{EN DASH}", None
    means = {index: sum(values) / len(values) for index, values in rates.items()}
    if len(means) == 1:
        index = next(iter(means))
    elif rate := row.cell("bpp"):
        wanted = rate["value"]
        index = min(means, key=lambda i: abs(math.log(means[i] / wanted)))
    elif any(cell["anchor"] for cell in row.cells):
        return "the whole curve", None
    else:
        return "range of the curve", None
    return f"rate index {index}, {metric_style('bpp').show(means[index])} bpp", index


def _measured(
    results: Results, study: str, variant: str | None, name: str, rate_index: int | None
) -> Cell:
    """Return the mean over seeds at a rate index; without one, the range of the curve."""
    rows = results.variant_rows(study, variant)
    if name == "bpp":
        rows = [{**row, "value": row["bpp"], "low": None, "high": None} for row in rows]
    else:
        rows = [row for row in rows if row["metric"] == name]
    rows = [row for row in rows if is_number(row["value"])]
    metric = metric_style(name)
    if rate_index is None and rows:
        values = [row["value"] for row in rows]
        return figure(f"{metric.show(min(values))} to {metric.show(max(values))}")
    rows = [row for row in rows if row["rate_index"] == rate_index]
    if not rows:
        return figure(number(None, 0))
    mean = sum(row["value"] for row in rows) / len(rows)
    bounds = metric.show_interval(rows[0]["low"], rows[0]["high"]) if len(rows) == 1 else ""
    return figure(metric.show(mean), bounds)
