"""Plots of rate against a metric, as Vega-Lite; one chart serves the page and the files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import altair as alt
import vl_convert

from icmbench.report.results import Results, Row, is_number
from icmbench.report.style import DIAMOND, GREY, Dash, Metric, VariantStyle

FONT = "Helvetica, Arial, sans-serif"
HEIGHT = 340
# Where many curves share a plot.
TALL = 640
WIDE = 800
MANY = 12
FILE_WIDTH = 560
PNG_SCALE = 2

# Name of the Vega signal that holds the highlighted labels; charts.js sets it.
PICKED = "picked"

Spec = dict[str, Any]


@dataclass(frozen=True)
class Series:
    """One entry of a chart's legend.

    Attributes:
        label: text in the legend.
        colour: ``#rrggbb``.
        shape: SVG path of the symbol.
        dash: of the line, see ``style.DASHES``.
        hollow: whether symbols are small outlines and the line is thin, as of published numbers.
    """

    label: str
    colour: str
    shape: str
    dash: Dash = ()
    hollow: bool = False


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
    study: str,
    metric: Metric,
    styles: dict[str, VariantStyle],
    published: Sequence[Row] = (),
    curves: Sequence[PublishedCurve] = (),
) -> RateChart:
    """Collect what the plot of rate against ``metric`` shows.

    Args:
        results: the results folder.
        study: name of the study.
        metric: of the vertical axis.
        styles: of the study's variants.
        published: rows with label, variant (or None), bpp and value, in the tables' units; give
            them only where they can be compared with what was measured.
        curves: published curves, likewise.
    """
    curve = [
        row
        for row in results.curve(study, metric.name)
        if row["variant"] in styles and is_number(row["value"])
    ]
    settings = {point["key"]: point for point in results.points(study)}
    points: list[Row] = []
    lines: list[Row] = []
    references: list[Row] = []
    series: list[Series] = []
    for variant, style in styles.items():
        mine = [row for row in curve if row["variant"] == variant]
        if not mine:
            continue
        if not style.is_curve:
            value = sum(row["value"] for row in mine) / len(mine) * metric.factor
            references.append(
                {"text": f"{style.label}: {metric.show(value / metric.factor)}", "value": value}
            )
            continue
        series.append(Series(style.label, style.colour, style.shape, style.dash))
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


def vega_lite(chart: RateChart, *, legend: bool, width: int | str) -> Spec:
    """Return the Vega-Lite specification of a plot.

    Args:
        chart: what it shows.
        legend: whether it carries its own legend; the page has one of buttons instead.
        width: of the plotting area in pixels, or ``container``; plots of many curves in a file
            are wider.
    """
    crowded = len(chart.series) > MANY
    if crowded and width == FILE_WIDTH:
        width = WIDE
    if chart.empty and not chart.references:
        layers = [_message("No operating point has this metric.")]
    else:
        layers = _layers(chart, legend)
    config: Any = alt.Config(
        background="transparent" if not legend else "white",
        font=FONT,
        axis=alt.AxisConfig(
            gridColor="#e3e3e3",
            domainColor="#888888",
            tickColor="#888888",
            labelFontSize=12,
            titleFontSize=13,
            titleFontWeight="normal",
        ),
        legend=alt.LegendConfig(
            labelFontSize=12,
            labelLimit=320,
            symbolSize=90,
            rowPadding=4,
            symbolLimit=0,
        ),
        view=alt.ViewConfig(stroke=None),
    )
    layered: Any = alt.layer(*layers)
    layered = layered.add_params(alt.param(name=PICKED, value=[]))
    height = TALL if crowded else HEIGHT
    layered = layered.properties(width=width, height=height, config=config)
    spec: Spec = layered.to_dict()
    return spec


def _layers(chart: RateChart, legend: bool) -> list[Any]:
    labels = [entry.label for entry in chart.series]
    colours = alt.Scale(domain=labels, range=[entry.colour for entry in chart.series])
    fills = alt.Scale(
        domain=labels,
        range=["transparent" if entry.hollow else entry.colour for entry in chart.series],
    )
    shapes = alt.Scale(domain=labels, range=[entry.shape for entry in chart.series])
    dashes = alt.Scale(domain=labels, range=[list(entry.dash or (1, 0)) for entry in chart.series])
    key = alt.Legend(title=None, orient="right") if legend else None
    ticks = rate_ticks([row["bpp"] for row in chart.points])
    x = alt.X(
        "bpp:Q",
        title="Rate (bits per pixel, logarithmic)",
        scale=alt.Scale(type="log", domain=ticks.domain, nice=False),
        axis=alt.Axis(values=ticks.values, format="~g"),
    )
    y = alt.Y(
        "value:Q",
        title=chart.metric.heading,
        scale=alt.Scale(zero=False, nice=True),
        axis=alt.Axis(tickCount=6),
    )
    stroke = alt.Stroke("label:N", scale=colours, legend=key)

    def shown(opacity: float) -> Any:
        test = f"length({PICKED}) == 0 || indexof({PICKED}, datum.label) >= 0"
        return alt.condition(test, alt.value(opacity), alt.value(0.1))

    tooltip = [
        alt.Tooltip("label:N", title="variant"),
        alt.Tooltip("bpp:Q", title="bpp", format=".4f"),
        alt.Tooltip("shown:N", title=chart.metric.heading),
        alt.Tooltip("interval:N", title="interval"),
        alt.Tooltip("setting:N", title="setting"),
    ]
    layers: list[Any] = []
    if chart.references:
        reference = alt.Chart(alt.Data(values=chart.references))
        layers.append(
            reference.mark_rule(strokeDash=[6, 4], strokeWidth=1.5, color=GREY).encode(
                y=y, tooltip=alt.Tooltip("text:N", title="reference")
            )
        )
        layers.append(
            reference.mark_text(
                align="right", baseline="bottom", dy=-4, fontSize=12, color=GREY
            ).encode(y=y, x=alt.value("width"), text="text:N")
        )
    crowded = len(chart.series) > MANY
    hollow = {entry.label for entry in chart.series if entry.hollow}

    def drawn(rows: Sequence[Row], outlined: bool) -> Any:
        return alt.Chart(
            alt.Data(values=[row for row in rows if (row["label"] in hollow) is outlined])
        )

    def lines(outlined: bool) -> Any:
        chosen = drawn(chart.lines, outlined).mark_line(strokeWidth=1.1 if outlined else 1.8)
        return chosen.encode(
            x=x,
            y=y,
            stroke=stroke,
            strokeDash=alt.StrokeDash("label:N", scale=dashes, legend=None),
            order="rate_index:Q",
            opacity=shown(0.9),
        )

    def symbols(outlined: bool) -> Any:
        size, width = (35, 1.2) if outlined else (45 if crowded else 85, 1.6)
        chosen = drawn(chart.points, outlined).mark_point(size=size, strokeWidth=width)
        return chosen.encode(
            x=x,
            y=y,
            stroke=stroke,
            fill=alt.Fill("label:N", scale=fills, legend=key),
            shape=alt.Shape("label:N", scale=shapes, legend=key),
            opacity=shown(1.0),
            tooltip=tooltip,
        )

    if hollow:
        layers += [lines(True), symbols(True)]
    if chart.points:
        layers.append(lines(False))
        bounded = [row for row in chart.points if "low" in row]
        if bounded:
            layers.append(
                alt.Chart(alt.Data(values=bounded))
                .mark_rule(strokeWidth=1.5)
                .encode(
                    x=x,
                    y=alt.Y("low:Q", title=chart.metric.heading),
                    y2="high:Q",
                    stroke=stroke,
                    opacity=shown(0.65),
                )
            )
        layers.append(symbols(False))
    return layers


def _message(text: str) -> Any:
    return (
        alt.Chart(alt.Data(values=[{"text": text}]))
        .mark_text(fontSize=14, color=GREY)
        .encode(text="text:N", x=alt.value(FILE_WIDTH / 2), y=alt.value(HEIGHT / 2))
    )


# Labels within a decade, coarse to fine; the first that gives three labels is taken.
_TICK_STEPS: tuple[tuple[float, ...], ...] = (
    (1, 2, 5),
    (1, 1.5, 2, 3, 4, 5, 6, 8),
    tuple(i / 2 for i in range(2, 20)),
    tuple(i / 10 for i in range(10, 100)),
    tuple(i / 100 for i in range(100, 1000)),
)


@dataclass(frozen=True)
class RateTicks:
    """A logarithmic rate axis: its domain and the labelled values, in bits per pixel."""

    domain: list[float]
    values: list[float]


def rate_ticks(rates: Sequence[float]) -> RateTicks:
    """Return an axis around ``rates`` (> 0) that labels at least three round values."""
    if not rates:
        return RateTicks([0.01, 10.0], [0.01, 0.1, 1.0, 10.0])
    low, high = min(rates) / 1.15, max(rates) * 1.15
    values: list[float] = []
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in _TICK_STEPS:
        every = [float(f"{step}e{exponent}") for exponent in exponents for step in steps]
        values = [value for value in every if low <= value <= high]
        if len(values) >= 3:
            break
    values = values[:: math.ceil(len(values) / 10) or 1]  # room for the labels
    return RateTicks([float(f"{low:.6g}"), float(f"{high:.6g}")], values)


def figure_files(spec: Spec) -> dict[str, bytes]:
    """Return the bytes of a figure by suffix, ``svg`` and ``png``, drawn without a browser."""
    text = json.dumps(spec, sort_keys=True)
    return {
        "svg": vl_convert.vegalite_to_svg(text).encode(),
        "png": vl_convert.vegalite_to_png(text, scale=PNG_SCALE),
    }


@cache
def javascript() -> str:
    """Return Vega, Vega-Lite and Vega-Embed (BSD-3-Clause) as one script for the page."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script
