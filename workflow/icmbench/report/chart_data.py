"""What the plots of rate against a metric show, before it is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from icmbench.report.results import Results, Row, is_number
from icmbench.report.style import DIAMOND, GREY, Dash, Metric, VariantStyle


@dataclass(frozen=True)
class Series:
    """One entry of a chart's legend.

    Attributes:
        label: text in the legend.
        colour: ``#rrggbb``.
        shape: SVG path of the symbol.
        dash: of the line, see ``style.DASHES``.
        hollow: whether symbols are small outlines and the line is thin, as of published numbers.
        study: of the variant; empty for what is published.
    """

    label: str
    colour: str
    shape: str
    dash: Dash = ()
    hollow: bool = False
    study: str = ""


@dataclass(frozen=True)
class PublishedCurve:
    """A published curve: its legend entry, rates in bpp and qualities in the tables' unit."""

    series: Series
    rates: list[float]
    qualities: list[float]


@dataclass(frozen=True, eq=False)
class RateChart:
    """What one plot shows.

    Attributes:
        metric: of the vertical axis.
        series: legend entries, in order.
        points: rows with label, bpp, value, low, high (shown unit), rate_index and tooltip texts.
        lines: rows with label, bpp, value and rate_index: means over seeds, joined in that order.
        references: rows with text and value: accuracy of variants without a rate.
    """

    metric: Metric
    series: list[Series]
    points: list[Row]
    lines: list[Row]
    references: list[Row]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw on the rate axis."""
        return not self.points


def rate_chart(
    results: Results,
    metric: Metric,
    styles: dict[str, VariantStyle],
    published: Sequence[Row] = (),
    curves: Sequence[PublishedCurve] = (),
) -> RateChart:
    """Collect what the plot of rate against ``metric`` shows.

    Args:
        results: the results folder.
        metric: of the vertical axis.
        styles: of the variants, which may be of several studies.
        published: rows with label, variant (or None), bpp and value, in the tables' units; give
            them only where they can be compared with what was measured.
        curves: published curves, likewise.
    """
    settings = {point["key"]: point for point in results.plan["points"]}
    points: list[Row] = []
    lines: list[Row] = []
    references: list[Row] = []
    series: list[Series] = []
    for style in styles.values():
        rows = results.curve(style.study, metric.name, style.name)
        mine = [row for row in rows if is_number(row["value"])]
        if not mine:
            continue
        if not style.is_curve:
            value = sum(row["value"] for row in mine) / len(mine) * metric.factor
            references.append(
                {"text": f"{style.label}: {metric.show(value / metric.factor)}", "value": value}
            )
            continue
        entry = Series(style.label, style.colour, style.shape, style.dash, study=style.study)
        series.append(entry)
        points.extend(_point(row, style.label, metric, settings) for row in mine)
        lines.extend(_means(mine, style.label, metric))
    for row in published:
        style_of = styles.get(row["variant"] or "")
        label = f"{row['label']} (published)"
        colour = style_of.colour if style_of else GREY
        if label not in [entry.label for entry in series]:
            series.append(Series(label, colour, DIAMOND, hollow=True))
        points.append(
            {
                "label": label,
                "bpp": row["bpp"],
                "value": row["value"] * metric.factor,
                "shown": metric.show(row["value"]),
                "interval": "not published",
                "setting": "",
            }
        )
    for published_curve in curves:
        series.append(published_curve.series)
        drawn = _published_rows(published_curve, metric)
        points.extend(drawn)
        lines.extend(drawn)
    return RateChart(metric, series, points, lines, references)


def _published_rows(curve: PublishedCurve, metric: Metric) -> list[Row]:
    return [
        {
            "label": curve.series.label,
            "rate_index": index,
            "bpp": rate,
            "value": quality * metric.factor,
            "shown": metric.show(quality),
            "interval": "not published",
            "setting": "",
        }
        for index, (rate, quality) in enumerate(zip(curve.rates, curve.qualities, strict=True))
    ]


def _point(row: Row, label: str, metric: Metric, settings: dict[str, Row]) -> Row:
    key = f"{row['study']}/{row['variant']}/rate{row['rate_index']}-seed{row['seed']}"
    point = settings.get(key, {})
    parameter = point.get("rate_parameter")
    setting = f"{parameter} {point['rate_value']:g}, " if parameter else ""
    shown: Row = {
        "label": label,
        "bpp": row["bpp"],
        "value": row["value"] * metric.factor,
        "shown": metric.show(row["value"]),
        "interval": metric.show_interval(row["low"], row["high"]) or "none",
        "setting": f"{setting}seed {row['seed']}, {row['n_images']} images",
    }
    if is_number(row["low"]) and is_number(row["high"]):
        shown |= {"low": row["low"] * metric.factor, "high": row["high"] * metric.factor}
    return shown


def _means(rows: Iterable[Row], label: str, metric: Metric) -> list[Row]:
    by_rate: dict[int, list[Row]] = {}
    for row in rows:
        by_rate.setdefault(row["rate_index"], []).append(row)
    return [
        {
            "label": label,
            "rate_index": index,
            "bpp": sum(row["bpp"] for row in runs) / len(runs),
            "value": sum(row["value"] for row in runs) / len(runs) * metric.factor,
        }
        for index, runs in sorted(by_rate.items())
    ]
