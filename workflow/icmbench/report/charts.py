"""Plots of rate against a metric, as Vega-Lite; one chart serves the page and the files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import altair as alt
import vl_convert
from altair.utils.schemapi import debug_mode

from icmbench.report.chart_data import RateChart
from icmbench.report.results import Row
from icmbench.report.style import GREY

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
    data: dict[str, list[Row]] = {}
    # Checking every part against Vega-Lite's schema would take most of the time; a test does it.
    with debug_mode(False):
        spec = _vega_lite(chart, legend, width, crowded, data)
    return {**spec, "datasets": data}


def _vega_lite(
    chart: RateChart, legend: bool, width: int | str, crowded: bool, data: dict[str, list[Row]]
) -> Spec:
    """Return the specification without its data, which are left in ``data`` by name."""
    if chart.empty and not chart.references:
        layers = [_message("No operating point has this metric.", data)]
    else:
        layers = _layers(chart, legend, data)
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
    spec: Spec = layered.to_dict(validate=False)
    return spec


def _chart(data: dict[str, list[Row]], name: str, rows: list[Row]) -> Any:
    """Return a chart of rows that stand under ``name``: copying them in every layer is slow."""
    data[name] = rows
    return alt.Chart(alt.NamedData(name))


def _layers(chart: RateChart, legend: bool, data: dict[str, list[Row]]) -> list[Any]:
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
        reference = _chart(data, "references", _kept_apart(chart))
        layers.append(
            reference.mark_rule(strokeDash=[6, 4], strokeWidth=1.5, color=GREY).encode(
                y=y, tooltip=alt.Tooltip("text:N", title="reference")
            )
        )
        layers.append(
            reference.mark_text(
                align="right", baseline="bottom", dy=-4, fontSize=12, color=GREY
            ).encode(
                y=alt.Y("place:Q", title=chart.metric.heading), x=alt.value("width"), text="text:N"
            )
        )
    crowded = len(chart.series) > MANY
    hollow = {entry.label for entry in chart.series if entry.hollow}

    def drawn(name: str, rows: Sequence[Row], outlined: bool) -> Any:
        chosen = [row for row in rows if (row["label"] in hollow) is outlined]
        return _chart(data, f"published-{name}" if outlined else name, chosen)

    def lines(outlined: bool) -> Any:
        chosen = drawn("lines", chart.lines, outlined).mark_line(
            strokeWidth=1.1 if outlined else 1.8
        )
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
        chosen = drawn("points", chart.points, outlined).mark_point(size=size, strokeWidth=width)
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
                _chart(data, "intervals", bounded)
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


def _kept_apart(chart: RateChart) -> list[Row]:
    """Return the references with a ``place`` each for its text: no two overlap.

    Texts of lines that are close together stand above the highest of them.
    """
    shown = [*chart.points, *chart.references]
    values = [row[name] for row in shown for name in ("low", "value", "high") if name in row]
    gap = 0.055 * (max(values) - min(values))
    groups: list[list[Row]] = []
    for row in sorted(chart.references, key=lambda reference: float(reference["value"])):
        if groups and row["value"] - groups[-1][-1]["value"] < gap:
            groups[-1].append(row)
        else:
            groups.append([row])
    rows: list[Row] = []
    for group in groups:
        base = group[-1]["value"]
        if rows:
            base = max(base, rows[-1]["place"] + gap)
        rows += [{**row, "place": base + place * gap} for place, row in enumerate(group)]
    return rows


def _message(text: str, data: dict[str, list[Row]]) -> Any:
    return (
        _chart(data, "message", [{"text": text}])
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


def figure_files(spec: Spec, formats: Sequence[str]) -> dict[str, bytes]:
    """Return the bytes of a figure by suffix (svg, pdf, png), drawn without a browser."""
    text = json.dumps(spec, sort_keys=True)
    made: dict[str, Callable[[], bytes]] = {
        "svg": lambda: vl_convert.vegalite_to_svg(text).encode(),
        "pdf": lambda: _stable(vl_convert.vegalite_to_pdf(text)),
        "png": lambda: vl_convert.vegalite_to_png(text, scale=PNG_SCALE),
    }
    return {suffix: made[suffix]() for suffix in formats}


# Entries of a dictionary that name objects, one a line, as svg2pdf writes them.
_REFERENCES = re.compile(rb"(?:^ +/\w+ \d+ 0 R\n){2,}", re.MULTILINE)


def _stable(pdf: bytes) -> bytes:
    """Return a PDF whose dictionaries are sorted, so that equal figures are equal bytes.

    The converter writes them in random order. Their length stays, so every offset holds.
    """
    return _REFERENCES.sub(lambda found: b"".join(sorted(found[0].splitlines(True))), pdf)


@cache
def javascript() -> str:
    """Return Vega, Vega-Lite and Vega-Embed (BSD-3-Clause) as one script for the page."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script
