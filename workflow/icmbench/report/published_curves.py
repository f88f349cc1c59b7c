"""Published rate-quality curves beside the measured ones: in the plots and in a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from icmbench.analyse.compressai_json import read_curve, result_key
from icmbench.analyse.published import obstacle
from icmbench.config.study import published_path
from icmbench.report.chart_data import PublishedCurve, Series
from icmbench.report.results import Results, Row, is_number
from icmbench.report.style import (
    DIAMOND,
    GREY,
    PUBLISHED_DASHES,
    SHAPES,
    Metric,
    VariantStyle,
    metric_style,
    number,
    signed,
)
from icmbench.report.tables import Cell, Table, figure, text


@dataclass(frozen=True)
class PublishedPart:
    """What a page says of a study's published curves.

    Attributes:
        tables: published and measured; empty where no curve can be compared.
        obstacles: why curves are not drawn, in sentences.
        notes: of the curves drawn, with their sources.
    """

    tables: list[Table]
    obstacles: list[str]
    notes: list[str]


def published_part(results: Results, study: str, styles: dict[str, VariantStyle]) -> PublishedPart:
    """Return table, obstacles and notes of a study's published curves."""
    shown, obstacles = _sorted_out(results, study)
    sources = dict.fromkeys(entry["source"] for entry in shown)
    notes = [f"Source of the published curves: {source}" for source in sources]
    notes += [f"{entry['label']}: {entry['note']}" for entry in shown if entry["note"]]
    tables = [make(results, study, shown, styles) for make in (_reproduced, _gains)]
    return PublishedPart([table for table in tables if table and table.rows], obstacles, notes)


def published_series(
    results: Results, study: str, metric: str, styles: dict[str, VariantStyle]
) -> list[PublishedCurve]:
    """Return the published curves of ``metric`` that may be drawn beside the measured ones.

    A curve has the colour and the shape of the variant it stands beside, grey without one.
    """
    curves = []
    alone = 0
    shapes = (*SHAPES, DIAMOND)
    for entry in _sorted_out(results, study)[0]:
        style = styles.get(entry["variant"] or "")
        if entry["variant"] and not style:
            continue  # it stands beside a variant of another plot
        if style:
            colour, shape, dash = style.colour, style.shape, PUBLISHED_DASHES[0]
        else:
            colour, shape = GREY, shapes[alone % len(shapes)]
            dash = PUBLISHED_DASHES[alone // len(shapes) % len(PUBLISHED_DASHES)]
            alone += 1
        found = read_curve(published_path(entry["file"])).results
        if result_key(metric) in found:
            rate, quality = found["bpp"], found[result_key(metric)]
            known = np.isfinite(quality)
            label = f"{entry['label']} (published)"
            series = Series(label, colour, shape, dash, hollow=True)
            curves.append(PublishedCurve(series, rate[known].tolist(), quality[known].tolist()))
    return curves


def _sorted_out(results: Results, study: str) -> tuple[list[Row], list[str]]:
    """Return the curves that may be shown, and sentences on the others."""
    shown: list[Row] = []
    reasons: dict[tuple[str, str], list[str]] = {}
    entries = results.plan["studies"][study]["published_curves"]
    for entry in entries:
        reason = obstacle(results.plan, results.curves, study, entry)
        if reason is None:
            shown.append(entry)
        else:
            reasons.setdefault((reason, entry["dataset"]), []).append(entry["label"])
    sentences = []
    for (reason, dataset), labels in reasons.items():
        which = "The published curves are not drawn"
        if len(labels) < len(entries):
            which = f"Some published curves are not drawn ({', '.join(labels)})"
        sentences.append(f"{which}: they are of {dataset}, and {reason}.")
    return shown, sentences


def _values(results: Results, study: str) -> dict[tuple[str, str, str], Row]:
    return {
        (row["label"], row["metric"], row["what"]): row
        for row in results.published
        if row["study"] == study
    }


def _reproduced(
    results: Results, study: str, shown: list[Row], styles: dict[str, VariantStyle]
) -> Table:
    """Return how near each measured curve comes to the published one."""
    values = _values(results, study)
    rows = []
    for entry in shown:
        label, style = entry["label"], styles.get(entry["variant"] or "")
        metrics = [name for of, name, what in values if (of, what) == (label, "bd_rate_pct")]
        for place, name in enumerate(metrics):
            quality = values.get((label, name, "max_quality_difference"))
            head = [
                Cell(label, "head", len(metrics), marker=style),
                Cell(style.label if style else "", rows=len(metrics)),
            ]
            rows.append(
                [
                    *(head if place == 0 else []),
                    text(metric_style(name).title),
                    _percent(values[label, name, "bd_rate_pct"]),
                    _percent(values.get((label, name, "max_bpp_difference_pct")), signs=False),
                    figure(_distance(quality["value"], metric_style(name)) if quality else _DASH),
                ]
            )
    columns = [
        "Published",
        "Measured here",
        "Metric",
        "BD-rate",
        "Largest difference of rate",
        "of quality",
    ]
    return Table("Measured curves against the published ones, on the same images.", columns, rows)


def _gains(
    results: Results, study: str, shown: list[Row], styles: dict[str, VariantStyle]
) -> Table | None:
    """Return each curve's gain over the anchor, as published and as measured; None without one."""
    values = _values(results, study)
    rows_of = [row for row in values.values() if row["what"] == "published_bd_rate_pct"]
    if not rows_of:
        return None
    base = rows_of[0]["against"]
    anchor = next(entry["variant"] for entry in shown if entry["label"] == base)
    measured = {
        (row["variant"], row["metric"]): row
        for row in results.bd
        if row["study"] == study and row["anchor"] == anchor
    }
    rows = []
    for entry in shown:
        label, style = entry["label"], styles.get(entry["variant"] or "")
        metrics = [row["metric"] for row in rows_of if row["label"] == label]
        for place, name in enumerate(metrics):
            head = [Cell(label, "head", len(metrics), marker=style)]
            rows.append(
                [
                    *(head if place == 0 else []),
                    text(metric_style(name).title),
                    _percent(values[label, name, "published_bd_rate_pct"]),
                    _percent(measured.get((entry["variant"], name)), "bd_rate_pct"),
                ]
            )
    caption = f"BD-rate against {base}: as published, and as measured here."
    return Table(caption, ["Curve", "Metric", "Published", "Measured here"], rows)


_DASH = "\N{EN DASH}"


def _percent(row: Row | None, name: str = "value", signs: bool = True) -> Cell:
    if row is None or not is_number(row[name]):
        return figure(_DASH)
    flags = ", ".join(f for f in str(row["flags"]).split(";") if not f.startswith("accuracy:"))
    shown = signed(row[name], 1, " %") if signs else f"{number(row[name], 2)} %"
    return figure(shown, flags)


def _distance(value: float, metric: Metric) -> str:
    return f"{number(value * metric.factor, metric.digits + 1)} {metric.unit}".strip()
