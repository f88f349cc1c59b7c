"""Plots of rate against a metric as Vega-Lite: one specification serves the page and the files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import altair as alt
import vl_convert
from altair.utils.schemapi import debug_mode

from icmbench.metrics.catalogue import Metric
from icmbench.report.results import Results, is_number, rows_of
from icmbench.report.style import GREY, Style, Styles, shown, shown_interval

FONT = "Helvetica, Arial, sans-serif"
HEIGHT, TALL = 340, 640  # of a plot of few and of many curves
FILE_WIDTH, WIDE = 560, 800
MANY = 12
PNG_SCALE = 2

# Name of the Vega signal that holds the highlighted labels; charts.js sets it.
PICKED = "picked"

Spec = dict[str, Any]
Row = dict[str, Any]


# --- data -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PublishedCurve:
    """Published points of one legend entry.

    Attributes:
        style: of the entry.
        rates: in bits per pixel.
        qualities: in the tables' unit.
        joined: whether a line joins them.
    """

    style: Style
    rates: list[float]
    qualities: list[float]
    joined: bool = True


@dataclass(frozen=True, eq=False)
class RateChart:
    """The content of one plot.

    Attributes:
        metric: of the vertical axis.
        series: legend entries, in order.
        points: rows with label, bpp, value, low, high (in the shown unit) and tooltip texts.
        lines: rows with label, bpp, value and rate_index: means over seeds, joined in that order.
        references: rows with text and value: accuracy of variants without a rate.
    """

    metric: Metric
    series: list[Style] = field(default_factory=list)
    points: list[Row] = field(default_factory=list)
    lines: list[Row] = field(default_factory=list)
    references: list[Row] = field(default_factory=list)


def rate_chart(
    results: Results,
    metric: Metric,
    styles: Styles,
    published: Sequence[PublishedCurve] = (),
) -> RateChart:
    """Collect the content of the plot of rate against ``metric``.

    Args:
        results: the results folder.
        metric: of the vertical axis.
        styles: of the variants, which may be of several studies.
        published: curves that can be compared with the measured ones.
    """
    chart = RateChart(metric)
    for style in styles.values():
        curve = results.curve(style.study, style.name, metric.name)
        curve = curve[[is_number(value) for value in curve["value"]]]
        if curve.empty:
            continue
        if not style.is_curve:
            mean = float(curve["value"].mean())
            words = f"{style.label}: {shown(metric, mean)}"
            chart.references.append({"text": words, "value": mean * metric.factor})
            continue
        chart.series.append(style)
        points = {(p.rate_index, p.seed): p for p in results.points(style.study, style.name)}
        for row in rows_of(curve):
            point = points[row.rate_index, row.seed]
            setting = f"seed {row.seed}, {row.n_images} images"
            if point.rate_parameter:
                setting = f"{point.rate_parameter} {point.rate_value:g}, {setting}"
            chart.points.append(_point(metric, style.label, row.bpp, row.value, row, setting))
        means = curve.groupby("rate_index")[["bpp", "value"]].mean()
        chart.lines.extend(
            {
                "label": style.label,
                "rate_index": row.Index,
                "bpp": row.bpp,
                "value": row.value * metric.factor,
            }
            for row in rows_of(means)
        )
    for entry in published:
        chart.series.append(entry.style)
        drawn = [
            {"rate_index": index, **_point(metric, entry.style.label, rate, quality)}
            for index, (rate, quality) in enumerate(zip(entry.rates, entry.qualities, strict=True))
        ]
        chart.points.extend(drawn)
        chart.lines.extend(drawn if entry.joined else [])
    return chart


def _point(
    metric: Metric, label: str, rate: float, value: float, row: Any = None, setting: str = ""
) -> Row:
    """Return one symbol; without a row of ``curves.csv``, a published one."""
    point: Row = {
        "label": label,
        "bpp": rate,
        "value": value * metric.factor,
        "shown": shown(metric, value),
        "interval": "not published",
        "setting": setting,
    }
    if row is not None:
        point["interval"] = shown_interval(metric, row.low, row.high) or "none"
        if is_number(row.low) and is_number(row.high):
            point |= {"low": row.low * metric.factor, "high": row.high * metric.factor}
    return point


# --- drawing --------------------------------------------------------------------------------------


def vega_lite(chart: RateChart, *, legend: bool, width: int | str = FILE_WIDTH) -> Spec:
    """Return the Vega-Lite specification of a plot.

    Args:
        chart: its content.
        legend: whether it carries its own legend; the page has one of buttons instead.
        width: of the plotting area in pixels, or ``container``; plots of many curves in a file are
            wider.
    """
    crowded = len(chart.series) > MANY
    if crowded and width == FILE_WIDTH:
        width = WIDE
    data: dict[str, list[Row]] = {}
    # Checking every part against Vega-Lite's schema would take most of the time; a test does it.
    with debug_mode(False):
        if chart.points or chart.references:
            layers = _Drawing(chart, legend, data).layers()
        else:
            layers = [_message("No operating point has this metric.", data)]
        layered: Any = alt.layer(*layers).add_params(alt.param(name=PICKED, value=[]))
        layered = layered.properties(
            width=width, height=TALL if crowded else HEIGHT, config=_config(legend)
        )
        spec: Spec = layered.to_dict(validate=False)
    return {**spec, "datasets": data}


def _config(legend: bool) -> Any:
    return alt.Config(
        background="white" if legend else "transparent",
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
            labelFontSize=12, labelLimit=320, symbolSize=90, rowPadding=4, symbolLimit=0
        ),
        view=alt.ViewConfig(stroke=None),
    )


def _chart(data: dict[str, list[Row]], name: str, rows: list[Row]) -> Any:
    """Return a chart of rows that are stored once under ``name``; a copy per layer is slow."""
    data[name] = rows
    return alt.Chart(alt.NamedData(name))


def _message(words: str, data: dict[str, list[Row]]) -> Any:
    chart = _chart(data, "message", [{"text": words}]).mark_text(fontSize=14, color=GREY)
    return chart.encode(text="text:N", x=alt.value(FILE_WIDTH / 2), y=alt.value(HEIGHT / 2))


class _Drawing:
    """The layers of one plot; their rows go into ``data``."""

    def __init__(self, chart: RateChart, legend: bool, data: dict[str, list[Row]]) -> None:
        self.chart, self.data = chart, data
        labels = [entry.label for entry in chart.series]
        self.hollow = {entry.label for entry in chart.series if entry.hollow}

        def scale(values: list[Any]) -> Any:
            return alt.Scale(domain=labels, range=values)

        key = alt.Legend(title=None, orient="right") if legend else None
        fills = ["transparent" if e.hollow else e.colour for e in chart.series]
        dashes = scale([list(entry.dash or (1, 0)) for entry in chart.series])
        self.stroke = alt.Stroke(
            "label:N", scale=scale([entry.colour for entry in chart.series]), legend=key
        )
        self.fill = alt.Fill("label:N", scale=scale(fills), legend=key)
        self.dash = alt.StrokeDash("label:N", scale=dashes, legend=None)
        shapes = scale([entry.shape for entry in chart.series])
        self.shape = alt.Shape("label:N", scale=shapes, legend=key)
        ends, labelled = rate_ticks([row["bpp"] for row in chart.points])
        self.x = alt.X(
            "bpp:Q",
            title="Rate (bits per pixel, logarithmic)",
            scale=alt.Scale(type="log", domain=ends, nice=False),
            axis=alt.Axis(values=labelled, format="~g"),
        )
        self.y = alt.Y(
            "value:Q",
            title=chart.metric.heading,
            scale=alt.Scale(zero=False, nice=True),
            axis=alt.Axis(tickCount=6),
        )

    def layers(self) -> list[Any]:
        """Return references, then published curves, then measured ones with their intervals."""
        layers = self._references() if self.chart.references else []
        if self.hollow:
            layers += [self._lines(hollow=True), self._symbols(hollow=True)]
        if self.chart.points:
            layers.append(self._lines(hollow=False))
            bounded = [row for row in self.chart.points if "low" in row]
            if bounded:
                rules = _chart(self.data, "intervals", bounded).mark_rule(strokeWidth=1.5)
                low = alt.Y("low:Q", title=self.chart.metric.heading)
                layers.append(
                    rules.encode(
                        x=self.x, y=low, y2="high:Q", stroke=self.stroke, opacity=_opacity(0.65)
                    )
                )
            layers.append(self._symbols(hollow=False))
        return layers

    def _references(self) -> list[Any]:
        heading = self.chart.metric.heading
        reference = _chart(self.data, "references", _kept_apart(self.chart))
        rule = reference.mark_rule(strokeDash=[6, 4], strokeWidth=1.5, color=GREY)
        words = reference.mark_text(
            align="right", baseline="bottom", dy=-4, fontSize=12, color=GREY
        )
        place = alt.Y("place:Q", title=heading)
        return [
            rule.encode(y=self.y, tooltip=alt.Tooltip("text:N", title="reference")),
            words.encode(y=place, x=alt.value("width"), text="text:N"),
        ]

    def _rows(self, name: str, rows: list[Row], hollow: bool) -> Any:
        chosen = [row for row in rows if (row["label"] in self.hollow) is hollow]
        return _chart(self.data, f"published-{name}" if hollow else name, chosen)

    def _lines(self, hollow: bool) -> Any:
        lines = self._rows("lines", self.chart.lines, hollow)
        return lines.mark_line(strokeWidth=1.1 if hollow else 1.8).encode(
            x=self.x,
            y=self.y,
            stroke=self.stroke,
            strokeDash=self.dash,
            order="rate_index:Q",
            opacity=_opacity(0.9),
        )

    def _symbols(self, hollow: bool) -> Any:
        size = 45 if len(self.chart.series) > MANY else 85
        size, width = (35, 1.2) if hollow else (size, 1.6)
        symbols = self._rows("points", self.chart.points, hollow)
        return symbols.mark_point(size=size, strokeWidth=width).encode(
            x=self.x,
            y=self.y,
            stroke=self.stroke,
            fill=self.fill,
            shape=self.shape,
            opacity=_opacity(1.0),
            tooltip=[
                alt.Tooltip("label:N", title="variant"),
                alt.Tooltip("bpp:Q", title="bpp", format=".4f"),
                alt.Tooltip("shown:N", title=self.chart.metric.heading),
                alt.Tooltip("interval:N", title="interval"),
                alt.Tooltip("setting:N", title="setting"),
            ],
        )


def _opacity(opacity: float) -> Any:
    """Return an opacity that fades everything but the highlighted labels."""
    test = f"length({PICKED}) == 0 || indexof({PICKED}, datum.label) >= 0"
    return alt.condition(test, alt.value(opacity), alt.value(0.1))


def _kept_apart(chart: RateChart) -> list[Row]:
    """Return the references, each with a ``place`` for its text so that none overlap.

    Texts of lines that are close together are stacked above the highest of them.
    """
    rows = [*chart.points, *chart.references]
    values = [row[name] for row in rows for name in ("low", "value", "high") if name in row]
    gap = 0.055 * (max(values) - min(values))
    groups: list[list[Row]] = []
    for row in sorted(chart.references, key=lambda reference: float(reference["value"])):
        if groups and row["value"] - groups[-1][-1]["value"] < gap:
            groups[-1].append(row)
        else:
            groups.append([row])
    placed: list[Row] = []
    for group in groups:
        base = group[-1]["value"]
        if placed:
            base = max(base, placed[-1]["place"] + gap)
        placed += [{**row, "place": base + place * gap} for place, row in enumerate(group)]
    return placed


# Labels within a decade, coarse to fine; the first that gives three labels is taken.
_TICK_STEPS: tuple[tuple[float, ...], ...] = (
    (1, 2, 5),
    (1, 1.5, 2, 3, 4, 5, 6, 8),
    tuple(i / 2 for i in range(2, 20)),
    tuple(i / 10 for i in range(10, 100)),
    tuple(i / 100 for i in range(100, 1000)),
)


def rate_ticks(rates: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return the ends and the labels of a logarithmic axis of ``rates`` (> 0), in bits per pixel.

    At least three round values are labelled.
    """
    if not rates:
        return [0.01, 10.0], [0.01, 0.1, 1.0, 10.0]
    low, high = min(rates) / 1.15, max(rates) * 1.15
    values: list[float] = []
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in _TICK_STEPS:
        every = [float(f"{step}e{exponent}") for exponent in exponents for step in steps]
        values = [value for value in every if low <= value <= high]
        if len(values) >= 3:
            break
    values = values[:: math.ceil(len(values) / 10) or 1]  # room for the labels
    return [float(f"{low:.6g}"), float(f"{high:.6g}")], values


def figure_files(spec: Spec, formats: Sequence[str]) -> dict[str, bytes]:
    """Return the bytes of a figure by suffix (svg, pdf, png), drawn without a browser."""
    words = json.dumps(spec, sort_keys=True)
    made: dict[str, Callable[[], bytes]] = {
        "svg": lambda: vl_convert.vegalite_to_svg(words).encode(),
        "pdf": lambda: vl_convert.vegalite_to_pdf(words),
        "png": lambda: vl_convert.vegalite_to_png(words, scale=PNG_SCALE),
    }
    return {suffix: made[suffix]() for suffix in formats}


@cache
def javascript() -> str:
    """Return Vega, Vega-Lite and Vega-Embed (BSD-3-Clause) as one script for the page."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script
