"""Plots as Vega-Lite: one specification serves the page and the files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert

from icmbench.report.outputs import FIGURES
from icmbench.report.style import Style
from icmbench.utils.files import write_bytes

FIGURE_SIZE, PANEL_SIZE = (560, 340), (260, 220)  # of a file with one panel, and of each of many
COLUMNS = 3  # of panels

# Name of the Vega signal that holds the labels of the curves that are on; charts.js sets it.
SHOWN = "shown"

Spec = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Plot:
    """One plot on a page.

    A row is a symbol: label, study, bpp (None: a reference line), value, low and high in the shown
    unit, texts of the tooltip and the address of the operating point.
    """

    name: str  # unique in the report; the stem of its files in ``report/figures``
    title: str
    axis: str  # words at the vertical axis
    series: list[Style] = field(default_factory=list)  # legend entries, in order
    on: list[str] = field(default_factory=list)  # labels of those that are drawn at first
    rows: list[Row] = field(default_factory=list)
    note: str = ""
    training: bool = False  # whether it shows losses over steps instead of a metric over rates
    # Titles of the panels that a curve is in, by label; without, all share one.
    panels: dict[str, list[str]] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """Its content, for readers who do not see it."""
        over = "step" if self.training else "rate in bits per pixel"
        return f"{self.axis} over {over}, for {'; '.join(self.on) or 'no variant'}."

    @property
    def positive(self) -> bool:
        """Whether its vertical axis can be logarithmic."""
        ends = [row[name] for row in self.rows for name in ("low", "value") if name in row]
        return all(end is None or end > 0 for end in ends)

    @property
    def live(self) -> Spec:
        """The specification for the page, whose legend switches curves."""
        return _specification(self, self.series, page=True)

    def svg(self, size: tuple[int, int] | None = None, legend: bool = True) -> bytes:
        """Return the figure with the curves that are on, drawn without a browser."""
        series = [entry for entry in self.series if entry.label in self.on]
        spec = _specification(self, series, size=size, legend=legend)
        if not self.rows:
            words = "No operating point has this metric."
            mark = {"type": "text", "text": words, "fontSize": 14, "color": "#767676"}
            spec = {"data": {"values": [{}]}, "mark": mark, "background": "white",
                    "width": FIGURE_SIZE[0], "height": FIGURE_SIZE[1]}  # fmt: skip
        return vl_convert.vegalite_to_svg(json.dumps(spec, sort_keys=True)).encode()

    def files(self) -> dict[str, bytes]:
        """Return its figure and its numbers by suffix: svg, pdf, png, csv."""
        svg = self.svg()
        table = pd.DataFrame(self.rows).drop(columns=["href", "shown"], errors="ignore")
        return {
            "svg": svg,
            "pdf": vl_convert.svg_to_pdf(svg.decode()),
            "png": vl_convert.svg_to_png(svg.decode(), scale=2),
            "csv": table.to_csv(index=False).encode(),
        }

    def save(self, root: Path) -> list[Path]:
        """Write its files to ``report/figures`` and return them."""
        files = {root / FIGURES / f"{self.name}.{name}": c for name, c in self.files().items()}
        for path, content in files.items():
            write_bytes(path, content)
        return list(files)


def by_study(series: Sequence[Style]) -> dict[str, list[Style]]:
    """Return entries of a legend by study; one unnamed group if there is one study."""
    studies = list(dict.fromkeys(entry.study for entry in series if entry.study))
    if len(studies) < 2:
        return {"": list(series)}
    return {study: [entry for entry in series if entry.study == study] for study in studies}


def _specification(
    plot: Plot,
    series: Sequence[Style],
    *,
    page: bool = False,
    size: tuple[int, int] | None = None,
    legend: bool = True,
) -> Spec:
    """Return the Vega-Lite specification of a plot with some of its curves.

    On a page curves are switched by the signal ``SHOWN``, the legend is one of buttons, and
    charts.js sets the width.
    """
    labels = [entry.label for entry in series]
    inside = {entry.label: plot.panels.get(entry.label, [""]) for entry in plot.series}
    titles = list(dict.fromkeys(title for own in inside.values() for title in own))
    rows = [
        row | {"panel": title}
        for row in plot.rows
        if row["label"] in labels
        for title in inside[row["label"]]
    ]

    def look(values: Sequence[Any], key: bool = True) -> Spec:
        drawn = {"title": None, "orient": "right", "labelLimit": 320, "symbolLimit": 0}
        scale = {"domain": labels, "range": values}
        kept = drawn if key and legend and not page else None
        return {"field": "label", "type": "nominal", "scale": scale, "legend": kept}

    def number(name: str, title: str = "", **more: Any) -> Spec:
        return {"field": name, "type": "quantitative", "title": title, **more}

    stroke = look([entry.colour for entry in series])
    linear: Spec = {"type": "linear", "zero": False}
    logarithmic: Spec = {"type": "log"}
    scale = {**(linear if plot.training else logarithmic), "nice": False, "padding": 12}
    axis = {"format": "~g", "labelOverlap": "greedy", "labelSeparation": 5, "tickCount": 6}
    title = "Step" if plot.training else "Rate (bits per pixel)"
    x = number("bpp", title, scale=scale, axis=axis)
    scale = logarithmic if plot.training and plot.positive else linear
    y = number("value", plot.axis, scale=scale, axis={"tickCount": 5})
    places = {"x": x, "y": y, "stroke": stroke}
    texts = {"label": "variant", "shown": plot.axis, "interval": "interval", "setting": "setting"}
    words = [{"field": name, "type": "nominal", "title": t} for name, t in texts.items()]
    reference = {
        "transform": [{"filter": "!isValid(datum.bpp)"}],
        "mark": {"type": "rule", "strokeDash": [6, 4], "strokeWidth": 1.5},
        "encoding": {"y": y, "stroke": stroke, "tooltip": words},
    }
    ends = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
    interval = {
        "transform": [{"filter": "isValid(datum.bpp) && isValid(datum.low)"}],
        "mark": {"type": "rule", "strokeWidth": 1.5, "opacity": 0.6},
        "encoding": places | ends,
    }
    grouped = ["label", "panel", "rate_index", "hollow"]
    means = [{"op": "mean", "field": name, "as": name} for name in ("bpp", "value")]
    joined = {
        "strokeDash": look([list(entry.dash or (1, 0)) for entry in series], key=False),
        "strokeWidth": {"condition": {"test": "datum.hollow", "value": 1}, "value": 1.8},
        "order": number("bpp" if plot.training else "rate_index"),
    }
    line: Spec = {
        "transform": [{"filter": "isValid(datum.bpp)"}],
        "mark": "line",
        "encoding": places | joined,
    }
    if plot.training:
        line["encoding"]["detail"] = {"field": "rate_index"}
    else:
        line["transform"].append({"aggregate": means, "groupby": grouped})
    looks = {
        "fill": look(["transparent" if entry.hollow else entry.colour for entry in series]),
        "shape": look([entry.shape for entry in series]),
        "size": {"condition": {"test": "datum.hollow", "value": 35}, "value": 70},
        "tooltip": [words[0], number("bpp", "bpp", format=".4f"), *words[1:]],
    }
    symbol = {
        "transform": [{"filter": "isValid(datum.bpp)"}],
        "mark": {"type": "point", "strokeWidth": 1.5, "opacity": 1},
        "encoding": places | looks | ({"href": {"field": "href"}} if page else {}),
    }
    many = len(titles) > 1
    width, height = size or (PANEL_SIZE if many else FIGURE_SIZE)
    layers = [reference] if any(row["bpp"] is None for row in rows) else []
    bounded = any(row.get("low") is not None for row in rows)
    layers += [line, *([interval] if bounded else []), *([] if plot.training else [symbol])]
    panel: Spec = {
        "layer": layers,
        "width": "container" if page and not many else width,
        "height": height,
    }
    ground = "transparent" if page else "white"
    spec: Spec = {"data": {"values": rows}, "config": _CONFIG | {"background": ground}}
    if page:
        spec["params"] = [{"name": SHOWN, "value": plot.on}]
        spec["transform"] = [{"filter": f"indexof({SHOWN}, datum.label) >= 0"}]
    if not many:
        return spec | panel
    header = {"title": None, "labelFontSize": 13, "labelFontWeight": "bold"}
    facet = {"field": "panel", "type": "nominal", "sort": titles, "header": header}
    spec |= {"facet": facet, "resolve": {"axis": {"x": "independent"}}}  # labels below each panel
    return spec | {"columns": min(COLUMNS, len(titles)), "spec": panel}


_LINES = {"gridColor": "#e3e3e3", "domainColor": "#888888", "tickColor": "#888888"}
_WORDS = {"labelFontSize": 12, "titleFontSize": 13, "titleFontWeight": "normal"}
_CONFIG: Spec = {
    "font": "Helvetica, Arial, sans-serif",
    "axis": _LINES | _WORDS,
    "legend": {"labelFontSize": 12, "symbolSize": 90, "rowPadding": 4, "symbolOpacity": 1},
    "view": {"stroke": None},
}


@cache
def javascript() -> str:
    """Return Vega, Vega-Lite and Vega-Embed (BSD-3-Clause) as one script for all pages."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
